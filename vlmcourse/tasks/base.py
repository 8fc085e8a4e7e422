"""What a method is transferred to: a task with its splits, and the draws that the protocols make from them.

Few-shot draw (Zhou et al., CoOp, IJCV 2022): K images per class without replacement from `train`, min(K, 4) from `val`.
Draws for different K are independent, as in the protocol (the 1-shot image need not be among the 2 shots). Every class
has its own generator, seeded by (task name, split, K, draw seed, class), hence
- the draw depends neither on the method, nor on its initialisation seed, nor on what used random numbers before;
- base-to-new (CoCoOp, CVPR 2022) "draw on all classes, then keep the base classes" holds by construction.
Base-to-new: the first ceil(C/2) classes by label are base, the others new, both relabelled from 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch

from vlmcourse.tasks.split import Split, digest, permutation

__all__ = ["FewShot", "Split", "Task"]


class FewShot(NamedTuple):
    """A few-shot draw: `train` with K images per class, `val` with min(K, 4), or None if the task has no `val`."""

    train: Split
    val: Split | None


@dataclass(frozen=True, eq=False)
class Task:
    """Class names, templates and splits under one name, with what a reader must know about the data.

    what, source, licence: for the data card. domains: test images of the same classes (or of some of them) under a
    shift. kind: what the labels are; few-shot draws and base-to-new are defined for "single-label". zero_shot: recorded
    top-1 of the embedded backbone, a fraction of 1. draw_name, draw_classes: the task whose draw is shared and the
    labels of the classes there, set by `keep_classes`. Raises ValueError where the splits do not fit together.
    """

    name: str
    title: str
    train: Split
    val: Split | None
    test: Split
    licence: str
    source: str = ""
    what: str = ""
    domains: dict[str, Split] = field(default_factory=dict)
    kind: str = "single-label"
    zero_shot: float | None = None
    draw_name: str = ""
    draw_classes: tuple[int, ...] = ()

    def __post_init__(self):
        for part, split in self.splits.items():
            if split.class_names != self.class_names:
                raise ValueError(
                    f"task {self.name!r}: {part} and train must have the same class names in the same order"
                )
        for domain, split in self.domains.items():
            extra = sorted(set(split.class_names) - set(self.class_names))
            if extra:
                raise ValueError(
                    f"task {self.name!r}: domain {domain!r} has classes that the task does not have: {extra}"
                )
        if not self.draw_name:
            object.__setattr__(self, "draw_name", self.name)
            object.__setattr__(self, "draw_classes", tuple(range(self.num_classes)))

    @property
    def splits(self) -> dict[str, Split]:
        """train, val (where there is one) and test by name."""
        return {p: s for p, s in (("train", self.train), ("val", self.val), ("test", self.test)) if s is not None}

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.train.class_names

    @property
    def templates(self) -> tuple[str, ...]:
        return self.train.templates

    @property
    def num_classes(self) -> int:
        return self.train.num_classes

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that identify all splits, domains, class names and templates."""
        prints = [s.fingerprint for s in (*self.splits.values(), *self.domains.values())]
        return digest("task", self.class_names, self.templates, *self.domains, *prints)

    def __repr__(self) -> str:
        return (
            f"Task({self.name!r}, {self.num_classes} classes, "
            + ", ".join(f"{p} {len(s)}" for p, s in self.splits.items())
            + ")"
        )

    def few_shot(self, shots: int, seed: int) -> FewShot:
        """K = `shots` training images per class, and min(K, 4) validation images (all, if a class has fewer).

        `seed` is the seed of the draw; methods take another one for their initialisation. Images come class by class.
        Raises ValueError if shots < 1 or if a class has fewer training images.
        """
        self._single_label("few_shot")
        if isinstance(shots, bool) or not isinstance(shots, int) or shots < 1:
            raise ValueError(f"shots must be an integer >= 1, got {shots!r}")
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise ValueError(f"seed must be an integer, got {seed!r}")
        fewest, smallest = min((int(n), c) for c, n in enumerate(self.train.counts))
        if shots > fewest:
            raise ValueError(
                f"shots must be at most {fewest} for task {self.name!r}: class {self.class_names[smallest]!r} has only "
                f"{fewest} training images, got shots={shots}"
            )
        train = self._draw("train", self.train, shots, shots, seed)
        return FewShot(train, None if self.val is None else self._draw("val", self.val, min(shots, 4), shots, seed))

    def _draw(self, part: str, split: Split, per_class: int, shots: int, seed: int) -> Split:
        chosen = []
        for label, draw_class in enumerate(self.draw_classes):
            members = (split.labels == label).nonzero().squeeze(1)
            order = permutation(len(members), self.draw_name, part, shots, seed, draw_class)
            chosen.append(members[torch.from_numpy(order[:per_class])])
        return split.subset(torch.cat(chosen), f"{self.name}/{part}/{shots}-shot/seed{seed}")

    def base_to_new(self, split_seed: int | None = None) -> tuple["Task", "Task"]:
        """(base, new): ceil(C/2) classes and the others, each a task of its own with labels from 0, class order kept.

        split_seed None: the protocol's rule, the first half by label is base. An integer: a random half drawn with that
        seed (for results over several splits of the classes). Few-shot draws equal those of the full task on the same
        classes.
        """
        self._single_label("base_to_new")
        if self.num_classes < 2:
            raise ValueError(f"base_to_new needs at least 2 classes, task {self.name!r} has {self.num_classes}")
        order = (
            np.arange(self.num_classes)
            if split_seed is None
            else permutation(self.num_classes, "classes", self.name, split_seed)
        )
        half, suffix = -(-self.num_classes // 2), "" if split_seed is None else f"@{split_seed}"
        base, new = sorted(order[:half].tolist()), sorted(order[half:].tolist())
        return self.keep_classes(base, f"base{suffix}"), self.keep_classes(new, f"new{suffix}")

    def keep_classes(self, classes: Sequence[int], suffix: str) -> "Task":
        """The task "<name>/<suffix>" with these classes only, labelled 0, 1, … in this order; same few-shot draws."""
        self._single_label("keep_classes")
        names = [self.class_names[c] for c in classes]
        parts = {p: s.keep_classes(classes, f"{self.name}/{suffix}/{p}") for p, s in self.splits.items()}
        domains = {}
        for domain, split in self.domains.items():
            kept = [split.class_names.index(n) for n in names if n in split.class_names]
            if kept:
                domains[domain] = split.keep_classes(kept, f"{self.name}/{suffix}/{domain}")
        return replace(
            self,
            name=f"{self.name}/{suffix}",
            title=f"{self.title} ({suffix} classes)",
            train=parts["train"],
            val=parts.get("val"),
            test=parts["test"],
            domains=domains,
            zero_shot=None,
            draw_classes=tuple(self.draw_classes[c] for c in classes),
        )

    def _single_label(self, what: str) -> None:
        if self.kind != "single-label":
            raise ValueError(f"{what} is defined for single-label tasks, task {self.name!r} is {self.kind!r}")

    @property
    def card(self) -> str:
        """The data card as markdown."""
        rows = [
            f"| {part} | {len(s)} | {int(s.counts.min())} | {int(s.counts.max())} |"
            if self.kind == "single-label"
            else f"| {part} | {len(s)} | | |"
            for part, s in (*self.splits.items(), *((f"domain: {d}", s) for d, s in self.domains.items()))
        ]
        lines = [f"### {self.title} (`{self.name}`)", "", *([self.what, ""] if self.what else [])]
        lines += [f"- Source: {self.source}"] if self.source else []
        lines += [
            f"- Licence: {self.licence}",
            f"- Labels: {self.kind}, {self.num_classes} classes: {', '.join(self.class_names)}",
        ]
        lines += ["- Templates: " + " · ".join(f"“{t}”" for t in self.templates)]
        lines += (
            [f"- Zero-shot top-1 of the embedded backbone: {100 * self.zero_shot:.1f} %"]
            if self.zero_shot is not None
            else []
        )
        return (
            "\n".join(
                [*lines, "", "| split | images | fewest per class | most per class |", "|---|---|---|---|", *rows]
            )
            + "\n"
        )
