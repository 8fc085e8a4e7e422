"""Two tasks with real images, far from the world of EmojiCLIP: Fashion-MNIST (a subset ships), scikit-learn's digits.

Both are small and grey: 28x28 and 8x8 pixels, enlarged to 64x64 by bicubic interpolation and repeated to three
channels. Fashion-MNIST: Xiao, Rasul, Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms", arXiv 1708.07747 (2017). Digits: Alpaydin, Kaynak, "Optical Recognition of Handwritten Digits", UCI (1998),
the test part.
"""

import hashlib
import json
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from vlmcourse.errors import DataError
from vlmcourse.files import verify
from vlmcourse.paths import data_dir
from vlmcourse.tasks.base import Split, Task
from vlmcourse.tasks.registry import register_task
from vlmcourse.tasks.split import digest, permutation

SIZE = 64  # pixels, the image size of the embedded backbone
RECIPE = f"bicubic {SIZE}"  # part of the fingerprints

FASHION_CLASSES = (
    "t-shirt",
    "trousers",
    "pullover sweater",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "handbag",
    "ankle boot",
)
FASHION_TEMPLATES = (
    "a black and white picture of a {}.",
    "a picture of a {}.",
    "a grey {} on a black background.",
    "a {}.",
)
DIGIT_CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIGIT_TEMPLATES = (
    "the number {}.",
    "a picture of the number {}.",
    "the white number {} on a black background.",
    "number {}.",
)
DIGITS_TRAIN, DIGITS_VAL = 40, 20  # images per class; the rest is the test split


def enlarge(grey: Tensor, size: int = SIZE) -> Tensor:
    """Grey images (N, h, w) uint8 as (N, 3, size, size) uint8: antialiased bicubic, rounded, clipped to 0..255."""
    large = F.interpolate(grey[:, None].float(), (size, size), mode="bicubic", antialias=True, align_corners=False)
    return large.round().clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1).contiguous()


def read_sheet(path: Path, classes: int, tile: int) -> Tensor:
    """A sheet with one row of tiles per class as (classes * columns, tile, tile) uint8, class by class."""
    with Image.open(path) as image:
        sheet = torch.from_numpy(np.array(image.convert("L")))  # (classes * tile, columns * tile)
    columns = sheet.shape[1] // tile
    if tuple(sheet.shape) != (classes * tile, columns * tile):
        raise DataError(
            f"{path} has {tuple(sheet.shape)} pixels, expected {classes} rows of {tile}-pixel tiles; get the file again"
        )
    return sheet.view(classes, tile, columns, tile).transpose(1, 2).reshape(-1, tile, tile)


def _load_sheet(path: Path, sha256: str) -> Tensor:
    verify(path, sha256)
    return enlarge(read_sheet(path, len(FASHION_CLASSES), tile=28))


@register_task("fashion_mnist")
def fashion_mnist() -> Task:
    """40 training, 20 validation, 60 test images for each of 10 classes. DataError if the shipped files are damaged."""
    folder = data_dir() / "fashion_mnist"
    try:
        subset = json.loads((folder / "subset.json").read_text("utf-8"))
        parts = {part: subset["splits"][part] for part in ("train", "val", "test")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder / 'subset.json'} is missing or damaged ({error}); restore data/fashion_mnist"
        ) from error
    splits = {}
    for part, facts in parts.items():
        load = partial(_load_sheet, folder / facts["file"], facts["sha256"])
        labels = torch.arange(len(FASHION_CLASSES)).repeat_interleave(facts["per_class"])
        fingerprint = digest("fashion_mnist", part, facts["pixels_sha256"], RECIPE)
        splits[part] = Split(load, labels, FASHION_CLASSES, FASHION_TEMPLATES, f"fashion_mnist/{part}", fingerprint)
    return Task(
        name="fashion_mnist",
        title="Fashion-MNIST (small)",
        **splits,
        licence="MIT, Copyright 2017 Zalando SE",
        source="Zalando Research, github.com/zalandoresearch/fashion-mnist; train and val are cut from its training "
        "file, test from its test file (data/fashion_mnist/README.md)",
        what="Photographs of clothes and shoes from a shop, 28x28 pixels, grey on black, enlarged to 64x64. Real "
        "images far from the drawings that EmojiCLIP was trained on.",
    )


@register_task("digits")
def digits() -> Task:
    """scikit-learn's 1,797 handwritten digits: 40 training and 20 validation images per class, the rest for test."""
    from sklearn.datasets import load_digits

    data = load_digits()
    grey = torch.from_numpy((data.images * (255 / 16)).round().astype(np.uint8))  # (1797, 8, 8), from levels 0..16
    labels = torch.from_numpy(data.target).long()
    chosen: dict[str, list[np.ndarray]] = {"train": [], "val": [], "test": []}
    for c in range(len(DIGIT_CLASSES)):
        members = np.flatnonzero(data.target == c)
        members = members[permutation(len(members), "digits", "split", c)]
        pieces = np.split(members, [DIGITS_TRAIN, DIGITS_TRAIN + DIGITS_VAL])
        for part, piece in zip(chosen, pieces, strict=True):
            chosen[part].append(piece)
    content = hashlib.sha256(grey.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()
    everything = Split(
        partial(enlarge, grey), labels, DIGIT_CLASSES, DIGIT_TEMPLATES, "digits", digest(content, RECIPE)
    )
    parts = {part: everything.subset(np.concatenate(pieces), f"digits/{part}") for part, pieces in chosen.items()}
    return Task(
        name="digits",
        title="Handwritten digits",
        **parts,
        licence="CC-BY-4.0 (UCI Machine Learning Repository); distributed with scikit-learn (BSD-3-Clause)",
        source="E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, as in sklearn.datasets.load_digits",
        what="Handwritten digits, 8x8 pixels with 17 grey levels, white on black, enlarged to 64x64. The class names "
        "are the numbers as words.",
    )
