"""Methods that learn from several tasks at once: what they share beside `Method`.

    method.fit_tasks({"office supplies": train_1, "road signs": train_2})     tasks by name, each with its own classes
    method.for_task("road signs").score(task.test)                            an ordinary fitted method for one of them
    method.fit(train)                                                         the same with a single task

The images of all tasks are one pool 0..N-1, task after task, and so are the classes: logits of the whole method are
(B, sum_t C_t), and `for_task` keeps the columns of one task. A subclass writes `_fit_tasks(train, val)` (dictionaries)
and `_logits(features)`; `by_task` says which images of a batch belong to which task.
"""

import torch

from vlmcourse.methods.base import Method
from vlmcourse.methods.class_text import readable
from vlmcourse.tasks.base import Split


class MultiTask(Method):
    """task_name: what `fit` calls its only task; None: the first part of the split's name, "office" for
    "office/train/16-shot/seed1". `tasks` is {name: class names} of the fitted tasks, in their order."""

    def __init__(self, backbone, *, task_name=None, seed=0, progress=False):
        super().__init__(backbone, seed=seed, progress=progress)
        if task_name is not None and (not isinstance(task_name, str) or not task_name.strip()):
            raise ValueError(f"task_name={task_name!r} must be words, or None to take them from the split's name")
        self.task_name, self.tasks, self.task = task_name, {}, None  # task: the one that for_task chose

    def fit_tasks(self, train, val=None):
        """Learn from several tasks. train: {name: Split}; val: the same for some of the names, or None. Returns self.

        A name is words about the task; methods that read it give them to the text tower. TypeError, ValueError.
        """
        val = val or {}
        for argument, splits in (("train", train), ("val", val)):
            wrong = not isinstance(splits, dict) or not all(isinstance(s, Split) for s in splits.values())
            if wrong or not all(isinstance(name, str) and name.strip() for name in splits):
                raise TypeError(f"{argument} must be {{name: Split}}, as {{'office': task.few_shot(16, 0).train}}")
        if not train:
            raise ValueError("train={} must have at least one task")
        for name, split in val.items():
            if name not in train or tuple(split.class_names) != tuple(train[name].class_names):
                raise ValueError(f"val[{name!r}] must have the name and the class names of a task in train")
        self.tasks = {name: tuple(split.class_names) for name, split in train.items()}
        self.class_names = tuple(c for names in self.tasks.values() for c in names)
        self.templates = tuple(next(iter(train.values())).templates)
        self.task = next(iter(train)) if len(train) == 1 else None
        self.history, self._fitted, self._columns = {}, False, None
        self._fit_tasks(train, val)
        self._fitted = True
        return self

    def _fit_tasks(self, train, val):
        raise NotImplementedError(f"{type(self).__name__} must define _fit_tasks(train, val)")

    def _fit(self, train, val):
        name = self.task_name or readable(train.name.split("/")[0])
        self.fit_tasks({name: train}, None if val is None else {name: val})

    def for_task(self, name):
        """The method for one of its tasks: class names, logits, predictions, scores of that task alone."""
        self._require_fit()
        if name not in self.tasks:
            raise ValueError(f"name={name!r} is not a fitted task; there are {list(self.tasks)}")
        first = sum(len(self.tasks[other]) for other in list(self.tasks)[: list(self.tasks).index(name)])
        moved = self._moved(self.tasks[name], None)
        moved.task, moved._columns = name, list(range(first, first + len(self.tasks[name])))
        return moved

    def score(self, split):
        self._require_task("score")
        return super().score(split)

    def for_classes(self, class_names, templates=None):
        self._require_task("for_classes")
        return super().for_classes(class_names, templates)

    def _require_task(self, what):
        self._require_fit()
        if self.task is None:
            raise ValueError(f"{what} needs one task: call for_task(name) first; names are {list(self.tasks)}")


def by_task(indices, sizes):
    """Split a batch of the pool by task: [(task, positions in the batch, indices within the task), ...], all (b_t,).

    indices: (B,) long in 0..sum(sizes)-1. sizes: images per task. Tasks without an image in the batch are left out.
    """
    ends = torch.tensor(sizes).cumsum(0)
    task = torch.bucketize(indices, ends, right=True)  # (B,)
    starts = ends - torch.tensor(sizes)
    groups = [(t, (task == t).nonzero()[:, 0]) for t in range(len(sizes))]
    return [(t, where, indices[where] - starts[t]) for t, where in groups if len(where)]
