"""Tasks in which an image has several labels: scenes of two to five different things, in artwork EmojiCLIP never saw.

Labels are (N, C): 1 the class is there (PRESENT), 0 it is not (ABSENT), -1 nobody said (UNKNOWN). Only training labels
are ever unknown: `split.hide_labels(share_known, seed)` keeps every entry, positive or negative, independently with
that probability. Known entries of a smaller share are known for a larger one, too (same seed), so curves over the share
compare like with like. Classes of a task are cut in two for zero-shot recognition: `task.seen_unseen()`.

Scenes are composed with the preset SEVERAL (nearly no overlap), each object of another class, classes drawn evenly; the
drawings of train, val and test are those of the single-label tasks, so no look-alike is in two of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vlmcourse.paths import data_dir
from vlmcourse.tasks.base import FewShot, Split, Task
from vlmcourse.tasks.emoji import FAMILIES, TEMPLATES, art_fingerprint, artwork, classes_of, drawings
from vlmcourse.tasks.registry import register_task
from vlmcourse.tasks.split import digest, permutation
from vlmcourse.world.compose import SEVERAL, compose
from vlmcourse.world.concepts import load_concepts

PRESENT, ABSENT, UNKNOWN = 1, 0, -1
OBJECTS = (2, 5)  # in a scene, least and most
SIZES = {"train": 24, "val": 4, "test": 16}  # scenes for each class of the task
RECIPE = "several 1"  # change it when the same numbers would give other images

__all__ = ["ABSENT", "PRESENT", "UNKNOWN", "MultiLabelSplit", "MultiLabelTask", "SeenUnseen"]


class MultiLabelSplit(Split):
    """A split with labels (N, C) of PRESENT, ABSENT, UNKNOWN. boxes: a function that gives (N, C, 4), see `boxes`.

    Other arguments and errors as in Split.
    """

    def __init__(self, images, labels, class_names, templates=("a photo of a {}.",), name="split", fingerprint=None,
                 boxes: Callable[[], Tensor] | None = None):  # fmt: skip
        super().__init__(images, labels, class_names, templates, name, fingerprint)
        self._find_boxes, self._boxes = boxes, None

    def check_labels(self, labels: Tensor) -> Tensor:
        """Labels as (N, C) int64, checked."""
        if labels.ndim != 2 or labels.shape[1] != self.num_classes or not len(labels):
            raise ValueError(
                f"labels must have shape (N, {self.num_classes}) with N >= 1, got {tuple(labels.shape)} "
                f"in split {self.name!r}"
            )
        if labels.is_floating_point() or labels.is_complex():
            raise TypeError(f"labels must be integers or bools, got {labels.dtype}")
        labels = labels.long().clone()
        if not torch.isin(labels, torch.tensor([PRESENT, ABSENT, UNKNOWN])).all():
            raise ValueError(f"labels must be {PRESENT}, {ABSENT} or {UNKNOWN}, got {labels.unique().tolist()}")
        return labels

    @property
    def known(self) -> Tensor:
        """(N, C) bool."""
        return self.labels != UNKNOWN

    @property
    def counts(self) -> Tensor:
        """Images known to show each class, (C,) int64."""
        return (self.labels == PRESENT).sum(dim=0)

    @property
    def image_fingerprint(self) -> str:
        """Identifies the pictures in their order; what is computed of them does not depend on the labels."""
        root, indices = self.origin
        whole = len(indices) == len(root) and torch.equal(indices, torch.arange(len(root)))
        return root.fingerprint if whole else digest("pictures", root.fingerprint, indices.numpy().tobytes())

    @property
    def boxes(self) -> Tensor:
        """(N, C, 4) float32: x1, y1, x2, y2 in pixels around the visible part of each class; zeros where there is none.

        RuntimeError for a split whose boxes nobody knows.
        """
        root, indices = self.origin
        if root is not self:
            return root.boxes[indices][:, [root.class_names.index(name) for name in self.class_names]]
        if self._boxes is None:
            if self._find_boxes is None:
                raise RuntimeError(f"split {self.name!r} has no boxes; the composed tasks have some, such as 'scenes'")
            self._boxes = self._find_boxes()
        return self._boxes

    def hide_labels(self, share_known: float, seed: int) -> "MultiLabelSplit":
        """The same images with each label known with probability share_known (0 < share_known <= 1), else UNKNOWN."""
        if isinstance(share_known, bool) or not isinstance(share_known, int | float) or not 0 < share_known <= 1:
            raise ValueError(f"share_known={share_known!r} must be a number above 0, at most 1")
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise ValueError(f"seed must be an integer, got {seed!r}")
        draw = np.random.default_rng(int(digest("known labels", seed), 16)).random(tuple(self.labels.shape))
        labels = self.labels.where(torch.from_numpy(draw < share_known), UNKNOWN)
        name = f"{self.name}/{100 * share_known:g}% known/seed{seed}"
        return self._derive(torch.arange(len(self)), labels, self.class_names, name)

    def keep_classes(self, classes: Sequence[int], name: str | None = None) -> "MultiLabelSplit":
        """Only these columns of the labels, and only images on which one of these classes is known to be PRESENT."""
        classes = [int(c) for c in classes]
        if not classes or len(set(classes)) < len(classes) or min(classes) < 0 or max(classes) >= self.num_classes:
            raise ValueError(f"classes must be distinct numbers in 0..{self.num_classes - 1}, got {classes}")
        labels = self.labels[:, classes]
        indices = (labels == PRESENT).any(dim=1).nonzero().squeeze(1)
        if not len(indices):
            raise ValueError(f"split {self.name!r} has no image with one of the classes {classes}")
        names = [self.class_names[c] for c in classes]
        return self._derive(indices, labels[indices], names, name or f"{self.name}[{len(names)} classes]")


class SeenUnseen(NamedTuple):
    """`seen`: the task with the seen classes alone, for training; `unseen`: with the others alone, for testing."""

    seen: "MultiLabelTask"
    unseen: "MultiLabelTask"


@dataclass(frozen=True, eq=False, repr=False)
class MultiLabelTask(Task):
    """A Task whose splits are MultiLabelSplits. unseen_classes: names that zero-shot training leaves out."""

    unseen_classes: tuple[str, ...] = ()

    def few_shot(self, shots: int, seed: int) -> FewShot:
        """`shots` times C training scenes, and min(shots, 4) times C validation scenes (all, if there are fewer).

        A scene shows several classes, so each class is on more than `shots` of them. ValueError if shots < 1 or too
        many.
        """
        if isinstance(shots, bool) or not isinstance(shots, int) or shots < 1:
            raise ValueError(f"shots must be an integer >= 1, got {shots!r}")
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise ValueError(f"seed must be an integer, got {seed!r}")
        count = len(self.draw_classes)
        if shots * count > len(self.train):
            most = len(self.train) // count
            raise ValueError(f"shots must be at most {most} for task {self.name!r}, got shots={shots}")

        def draw(part: str, split: Split, n: int) -> Split:
            order = torch.from_numpy(permutation(len(split), self.draw_name, part, shots, seed))
            return split.subset(order[:n].sort().values, f"{self.name}/{part}/{shots}-shot/seed{seed}")

        val = None if self.val is None else draw("val", self.val, min(shots, 4) * count)
        return FewShot(draw("train", self.train, shots * count), val)

    def seen_unseen(self) -> SeenUnseen:
        """Two tasks, one with the seen classes, one with `unseen_classes`; ValueError if the task has no such cut."""
        unseen = [c for c, name in enumerate(self.class_names) if name in self.unseen_classes]
        if not unseen:
            raise ValueError(f"task {self.name!r} has no unseen classes")
        seen = [c for c in range(self.num_classes) if c not in unseen]
        return SeenUnseen(self._with(seen, "seen"), self._with(unseen, "unseen"))

    def _with(self, classes: list[int], suffix: str) -> "MultiLabelTask":
        parts = {p: s.keep_classes(classes, f"{self.name}/{suffix}/{p}") for p, s in self.splits.items()}
        numbers = tuple(self.draw_classes[c] for c in classes)
        rest = {"title": f"{self.title} ({suffix} classes)", "draw_classes": numbers, "unseen_classes": ()}
        return replace(self, name=f"{self.name}/{suffix}", **{"val": None, **parts, **rest})


def _scenes(ids: bytes, seed: int):
    """Scenes of up to five sprites each; ids: (N, 5) int64 as bytes, -1 for no object."""
    numbers, library = np.frombuffer(ids, dtype=np.int64).reshape(-1, OBJECTS[1]), artwork()
    mono = library.mono[numbers.clip(min=0)] & (numbers >= 0)
    return compose(library.rgba(numbers), seed, settings=SEVERAL, mono=mono)


def _images(ids: bytes, seed: int) -> Tensor:
    return _scenes(ids, seed).images


def _boxes(ids: bytes, seed: int, chosen: np.ndarray, classes: int) -> Tensor:
    found = _scenes(ids, seed).boxes  # (N, 5, 4)
    boxes = torch.zeros(len(chosen), classes + 1, 4)  # the last row takes the objects that are not there
    boxes[torch.arange(len(chosen))[:, None], torch.from_numpy(chosen)] = found
    return boxes[:, :classes]


def scene_split(pools: Sequence[Sequence[int]], n: int, names, name: str, seed: int) -> MultiLabelSplit:
    """n scenes, each of 2 to 5 classes; pools: the drawings of each class."""
    draw = np.random.default_rng(int(digest(RECIPE, name, seed), 16))
    ids = np.full((n, OBJECTS[1]), -1, dtype=np.int64)
    chosen, labels = np.full_like(ids, len(pools)), np.zeros((n, len(pools)), dtype=np.int64)
    for i in range(n):
        few = draw.permutation(len(pools))[: draw.integers(OBJECTS[0], OBJECTS[1] + 1)]
        ids[i, : len(few)] = [draw.choice(pools[c]) for c in few]
        chosen[i, : len(few)], labels[i, few] = few, PRESENT
    fingerprint = digest(RECIPE, art_fingerprint(data_dir() / "sprites"), ids.tobytes(), labels.tobytes(), seed)
    find = partial(_boxes, ids.tobytes(), seed, chosen, len(pools))
    return MultiLabelSplit(partial(_images, ids.tobytes(), seed), torch.from_numpy(labels), names, TEMPLATES, name,
                           fingerprint, find)  # fmt: skip


def build_scenes(name: str, title: str, what: str, concepts) -> MultiLabelTask:
    """The multi-label task of these concepts; every third class is unseen."""
    names, library = [c.name for c in concepts], artwork()
    pools = [drawings(library, c, "shared") for c in concepts]
    splits = {
        part: scene_split([p[part] for p in pools], size * len(names), names, f"{name}/{part}", seed)
        for seed, (part, size) in enumerate(SIZES.items(), start=11)
    }
    return MultiLabelTask(
        name=name, title=title, **splits, what=what, kind="multi-label", unseen_classes=tuple(names[2::3]),
        licence="see data/sprites/licences: MIT, Apache-2.0, CC-BY, CC0, ISC, OFL, Unlicense",
        source="held-out artwork of data/sprites, composed by vlmcourse.world.compose (preset SEVERAL)",
    )  # fmt: skip


THINGS = (
    "bus", "car", "airplane", "ship", "house", "umbrella", "fire", "gift", "key", "scissors", "cat", "beer",
    "musical note", "camera", "robot", "alarm clock", "book", "envelope", "pen", "trophy", "thumbs up", "flag",
    "shopping cart", "cloud",
)  # fmt: skip


@register_task("scenes")
def scenes() -> MultiLabelTask:
    """24 classes."""
    concepts = load_concepts()
    what = "Two to five of 24 things in one picture. A pooled feature must tell them all; the small ones get lost."
    return build_scenes("scenes", "Scenes", what, [concepts.by_name(name) for name in THINGS])


@register_task("scenes_85")
def scenes_85() -> MultiLabelTask:
    """All classes of world_16."""
    what = "Two to five of the classes of world_16 in one picture: the COCO of this world."
    return build_scenes("scenes_85", "Scenes, all classes", what, classes_of(FAMILIES["world_16"]))
