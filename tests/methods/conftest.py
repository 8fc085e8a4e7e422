"""Small synthetic splits: noisy images whose colours and stripes depend on the class."""

import pytest
import torch

from vlmcourse.tasks.base import Split

NAMES = ("tabby cat", "dog", "hot air balloon", "red_fox")
TEMPLATES = ("a photo of a {}.", "an icon of a {}.")


def make_split(per_class=4, seed=0, names=NAMES, size=32, name="toy", labels=None):
    """Images (N, 3, size, size) uint8, class by class: a class's two colours in stripes, and noise."""
    pattern = torch.Generator().manual_seed(99)
    colours = torch.randint(0, 256, (len(names), 2, 3, 1, 1), generator=pattern).float()  # equal for every split
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(names)).repeat_interleave(per_class) if labels is None else torch.as_tensor(labels)
    rows = torch.arange(size)[:, None].expand(size, size)
    stripes = torch.stack([(rows // (2 + c) % 2).float() for c in range(len(names))])[labels, None]  # (N, 1, S, S)
    clean = colours[labels, 0] * stripes + colours[labels, 1] * (1 - stripes)
    noisy = clean + 40 * torch.randn(len(labels), 3, size, size, generator=draw)
    return Split(noisy.clamp(0, 255).to(torch.uint8), labels, names, TEMPLATES, name)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Cached features of a test stay with the test."""
    monkeypatch.setenv("VLMCOURSE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def splits():
    """A function that makes splits: splits(per_class=4, seed=0, names=..., size=32)."""
    return make_split


@pytest.fixture
def train():
    return make_split(per_class=4, seed=1, name="train")


@pytest.fixture
def val():
    return make_split(per_class=3, seed=2, name="val")


@pytest.fixture
def test_split():
    return make_split(per_class=5, seed=3, name="test")


@pytest.fixture(params=["vit_backbone", "resnet_backbone"])
def tower(request):
    """Both kinds of image tower, one after the other."""
    return request.getfixturevalue(request.param)
