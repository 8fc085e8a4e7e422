"""What is transferred to: data sets with class names, templates, splits, few-shot draws and base-to-new halves."""

from vlmcourse.tasks.base import FewShot, Split, Task
from vlmcourse.tasks.registry import get_task, list_tasks, register_task

__all__ = ["FewShot", "Split", "Task", "get_task", "list_tasks", "register_task"]
