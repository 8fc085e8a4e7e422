"""The tasks by name: `get_task("fashion_mnist")`. A module in this package adds a task by decorating its builder:

    @register_task("digits")
    def digits() -> Task: ...

All modules of the package are imported at the first look-up; a task is built at its first use and kept.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Callable

from vlmcourse.tasks.base import Task

_factories: dict[str, Callable[[], Task]] = {}
_tasks: dict[str, Task] = {}


def register_task(name: str) -> Callable[[Callable[[], Task]], Callable[[], Task]]:
    """Decorator for a function without arguments that builds the task `name`; a name twice is a ValueError."""
    if not isinstance(name, str) or not name or "/" in name:
        raise ValueError(f'name must be a non-empty string without "/", got {name!r}')

    def add(factory: Callable[[], Task]) -> Callable[[], Task]:
        old = _factories.get(name)
        if old is not None and (old.__module__, old.__qualname__) != (factory.__module__, factory.__qualname__):
            raise ValueError(f"task {name!r} is already registered by {old.__module__}.{old.__qualname__}")
        _factories[name] = factory
        _tasks.pop(name, None)  # a module that was reloaded brings its new version
        return factory

    return add


def list_tasks() -> list[str]:
    """The names of all tasks, sorted."""
    _import_all()
    return sorted(_factories)


def get_task(name: str) -> Task:
    """The task of this name, built once per process. Raises ValueError with close matches for an unknown name."""
    names = list_tasks()
    if name not in _factories:
        close = difflib.get_close_matches(str(name), names)
        hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
        raise ValueError(f"name: there is no task {name!r}; {hint}tasks: {', '.join(names)}")
    if name not in _tasks:
        task = _factories[name]()
        if task.name != name:
            raise ValueError(f"the task registered as {name!r} calls itself {task.name!r}")
        _tasks[name] = task
    return _tasks[name]


def _import_all() -> None:
    package = importlib.import_module("vlmcourse.tasks")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"vlmcourse.tasks.{module.name}")
