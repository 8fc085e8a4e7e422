"""A split of a task: images with labels, class names and prompt templates, loaded at the first look at an image.

Shapes: images (N, 3, H, W) uint8, labels (N,) int64 in 0..C-1. `subset` and `keep_classes` stay lazy and remember where
they come from (`origin`), so that features which are already there for the whole split can be indexed.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset


def digest(*parts) -> str:
    """16 hexadecimal digits that identify the given byte strings, numbers and strings, in order."""
    sha = hashlib.sha256()
    for part in parts:
        part = part if isinstance(part, bytes) else str(part).encode()
        sha.update(len(part).to_bytes(8, "big") + part)
    return sha.hexdigest()[:16]


def permutation(n: int, *key) -> np.ndarray:
    """The numbers 0..n-1 in a random order that depends on `key` only. (n,) int64."""
    return np.argsort(np.random.default_rng(int(digest(*key), 16)).random(n), kind="stable")


class Split(Dataset):
    """Images with labels, and the class names and prompt templates that give the labels a meaning.

    images: uint8 tensor (N, 3, H, W), or a function without arguments that returns one, called at the first use of an
    image. labels: (N,) integers in 0..C-1. class_names: C distinct strings. templates: strings with exactly one "{}"
    each. fingerprint: identifies images and labels in their order (names and templates not included); computed from the
    content (which loads the images) unless given. Whoever gives one promises that equal fingerprints mean equal
    content. Raises ValueError or TypeError for wrong shapes, dtypes, labels out of range, an empty split, and wrong
    names or templates.
    """

    def __init__(
        self,
        images: Tensor | Callable[[], Tensor],
        labels: Tensor | Sequence[int],
        class_names: Sequence[str],
        templates: Sequence[str] = ("a photo of a {}.",),
        name: str = "split",
        fingerprint: str | None = None,
    ):
        self.name = name
        self.class_names = _strings("class_names", class_names)
        self.templates = _strings("templates", templates)
        for template in self.templates:
            if template.count("{}") != 1:
                raise ValueError(
                    f'templates: {template!r} must contain exactly one "{{}}", the place of the class name'
                )
        self.labels = self.check_labels(labels if callable(labels) else torch.as_tensor(labels))
        if not (callable(images) or isinstance(images, Tensor)):
            raise TypeError(
                f"images must be a uint8 tensor or a function that returns one, got {type(images).__name__}"
            )
        self._load = images if not isinstance(images, Tensor) else None
        self._images = self._check_images(images) if self._load is None else None
        self._fingerprint = fingerprint
        self._origin: tuple[Split, Tensor] | None = None  # of a subset

    def check_labels(self, labels: Tensor) -> Tensor:
        """Labels as (N,) int64, checked. A split with another kind of label overrides this."""
        if labels.ndim != 1 or labels.numel() == 0:
            raise ValueError(
                f"labels must have shape (N,) with N >= 1, got {tuple(labels.shape)} in split {self.name!r}"
            )
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise TypeError(f"labels must be integers, got {labels.dtype}")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= self.num_classes:
            wrong = low if low < 0 else high
            raise ValueError(f"labels: {wrong} is outside 0..{self.num_classes - 1} ({self.num_classes} class names)")
        return labels.long().clone()

    def _check_images(self, images: Tensor) -> Tensor:
        if not isinstance(images, Tensor) or images.dtype != torch.uint8:
            got = images.dtype if isinstance(images, Tensor) else type(images).__name__
            raise TypeError(f"images of split {self.name!r} must be a uint8 tensor (N, 3, H, W), got {got}")
        if images.ndim != 4 or images.shape[1] != 3 or len(images) != len(self):
            raise ValueError(
                f"images of split {self.name!r} must have shape ({len(self)}, 3, H, W), got {tuple(images.shape)}"
            )
        return images

    @property
    def images(self) -> Tensor:
        """uint8 (N, 3, H, W), loaded at first use and then kept."""
        if self._images is None:
            self._images = self._check_images(self._load())
        return self._images

    @property
    def origin(self) -> tuple["Split", Tensor]:
        """The split that was first built, and the positions (N,) of this split's images in it."""
        return self._origin or (self, torch.arange(len(self)))

    @property
    def fingerprint(self) -> str:
        if self._fingerprint is None:
            root, indices = self.origin
            if root is self:
                content = (tuple(self.images.shape), self.images.contiguous().numpy().tobytes())
            else:
                content = (root.fingerprint, indices.numpy().tobytes())
            self._fingerprint = digest("split", *content, self.labels.contiguous().numpy().tobytes())
        return self._fingerprint

    @property
    def image_fingerprint(self) -> str:
        """Identifies the pictures in their order, for what is computed of pictures alone; may be the fingerprint."""
        return self.fingerprint

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def counts(self) -> Tensor:
        """Images per class, (C,) int64."""
        return torch.bincount(self.labels, minlength=self.num_classes)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        label = self.labels[i]
        return self.images[i], int(label) if label.ndim == 0 else label

    def __repr__(self) -> str:
        return f"Split({self.name!r}, {len(self)} images, {self.num_classes} classes)"

    def subset(self, indices: Tensor | Sequence[int], name: str | None = None) -> "Split":
        """The images at `indices` (integers, or a mask (N,) of bools), in that order, still lazy.

        The result knows its `origin`, so features of that can be indexed instead of computed again. Raises ValueError
        if `indices` is empty or out of range.
        """
        indices = torch.as_tensor(indices)
        if indices.dtype == torch.bool:
            if indices.shape != (len(self),):
                raise ValueError(f"indices: a mask must have shape ({len(self)},), got {tuple(indices.shape)}")
            indices = indices.nonzero().squeeze(1)
        if indices.ndim != 1 or indices.numel() == 0:
            raise ValueError(
                f"indices must select at least one image of split {self.name!r}, got shape {tuple(indices.shape)}"
            )
        if indices.is_floating_point():
            raise TypeError(f"indices must be integers or bools, got {indices.dtype}")
        if int(indices.min()) < 0 or int(indices.max()) >= len(self):
            raise ValueError(
                f"indices must lie in 0..{len(self) - 1} (split {self.name!r}), got {indices.min()}..{indices.max()}"
            )
        return self._derive(
            indices.long(), self.labels[indices.long()], self.class_names, name or f"{self.name}[{len(indices)}]"
        )

    def keep_classes(self, classes: Sequence[int], name: str | None = None) -> "Split":
        """Only the images of these classes (labels of this split), relabelled 0, 1, … in the order of `classes`."""
        classes = [int(c) for c in classes]
        if not classes or len(set(classes)) < len(classes) or min(classes) < 0 or max(classes) >= self.num_classes:
            raise ValueError(f"classes must be distinct labels in 0..{self.num_classes - 1}, got {classes}")
        new_label = torch.full((self.num_classes,), -1)
        new_label[torch.tensor(classes)] = torch.arange(len(classes))
        indices = (new_label[self.labels] >= 0).nonzero().squeeze(1)
        names = [self.class_names[c] for c in classes]
        return self._derive(
            indices, new_label[self.labels[indices]], names, name or f"{self.name}[{len(names)} classes]"
        )

    def _derive(self, indices: Tensor, labels: Tensor, class_names: Sequence[str], name: str) -> "Split":
        split = type(self)(partial(_take, self, indices), labels, class_names, self.templates, name)
        root, parents = self.origin
        split._origin = (root, parents[indices])
        return split


def _take(split: Split, indices: Tensor) -> Tensor:
    return split.images[indices]


def _strings(argument: str, values: Iterable[str]) -> tuple[str, ...]:
    if isinstance(values, str):
        raise TypeError(f"{argument} must be a sequence of strings, got the single string {values!r}")
    values = tuple(values)
    if not values:
        raise ValueError(f"{argument} must not be empty")
    for value in values:
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{argument}: {value!r} is not a non-empty string")
    doubles = sorted(value for value, count in Counter(values).items() if count > 1)
    if doubles:
        raise ValueError(f"{argument} must be distinct, but {doubles} occur more than once")
    return values
