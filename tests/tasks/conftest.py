"""A toy task of 5 classes: an image of class c is one colour near 40 c, so every image says what it shows."""

import pytest
import torch

from vlmcourse.tasks import Split, Task

NAMES = ("ant", "bee", "cat", "dog", "elk")


def make_split(name: str, per_class: int, seed: int = 0, names=NAMES) -> Split:
    labels = torch.arange(len(names)).repeat(per_class)  # interleaved: 0 1 2 3 4 0 1 ...
    noise = torch.randint(0, 10, (len(labels), 3, 4, 4), generator=torch.Generator().manual_seed(seed))
    return Split((40 * labels[:, None, None, None] + noise).to(torch.uint8), labels, names, ("a {}.", "my {}."), name)


@pytest.fixture
def split() -> Split:
    return make_split("toy/train", 6)


@pytest.fixture
def task() -> Task:
    sizes = {"train": 6, "val": 3, "test": 4}
    train, val, test = (make_split(f"toy/{part}", n, s) for s, (part, n) in enumerate(sizes.items()))
    dark = Split(test.images // 2, test.labels, NAMES, test.templates, "toy/dark")
    few = dark.keep_classes([1, 4], "toy/few")
    return Task("toy", "Toy", train, val, test, "CC0", domains={"dark": dark, "few": few})
