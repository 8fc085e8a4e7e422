"""Small synthetic splits: noisy images whose colours and stripes depend on the class."""

import pytest
import torch

from vlmcourse.tasks.base import Split
from vlmcourse.tasks.multi_label import MultiLabelSplit

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


@pytest.fixture(scope="session")
def mask_splits():
    """A function that makes splits with masks: the left and right halves of an image show two of the classes."""
    from vlmcourse.tasks.segmentation import IGNORE, MaskSplit

    def make(n=8, seed=0, names=NAMES, size=32, ignore_middle=True):
        draw, pattern = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(99)
        colours = torch.randint(0, 256, (len(names), 3, 1, 1), generator=pattern).float()
        sides = torch.stack([torch.randperm(len(names), generator=draw)[:2] for _ in range(n)])  # (n, 2)
        left = torch.arange(size) < size // 2
        labels = torch.where(left, sides[:, :1, None], sides[:, 1:, None]).expand(n, size, size)
        images = torch.where(left, colours[sides[:, 0]], colours[sides[:, 1]]).expand(n, 3, size, size)
        labels = labels.clone()
        if ignore_middle:
            labels[:, :, size // 2 - 1 : size // 2 + 1] = IGNORE
        noisy = images + 20 * torch.randn(images.shape, generator=draw)
        return MaskSplit(noisy.clamp(0, 255).to(torch.uint8), labels, names, TEMPLATES, f"halves/{seed}")

    return make


QUARTERS = torch.tensor([[250, 20, 20], [20, 250, 20], [20, 20, 250], [240, 240, 20]])


def make_multi_label(n=24, seed=0, size=32, name="toy"):
    """MultiLabelSplit: class c fills quarter c of the image with its colour, or is absent; one to four classes."""
    """n images of one to three classes; class c fills quarter c of the image with its colour."""
    draw = torch.Generator().manual_seed(seed)
    labels = (torch.rand(n, 4, generator=draw) < 0.5).long()
    labels[torch.arange(n), torch.randint(4, (n,), generator=draw)] = 1
    images = 60 * torch.rand(n, 3, size, size, generator=draw) + 100
    half = size // 2
    for c, (top, left) in enumerate(((0, 0), (0, half), (half, 0), (half, half))):
        rows = (labels[:, c] == 1).nonzero().squeeze(1)
        noise = 10 * torch.randn(len(rows), 3, half, half, generator=draw)
        images[rows, :, top : top + half, left : left + half] = QUARTERS[c][None, :, None, None] + noise
    return MultiLabelSplit(images.clamp(0, 255).to(torch.uint8), labels, NAMES, TEMPLATES, name)


@pytest.fixture(scope="session")
def multi_label():
    """A function that makes splits with several labels per image: multi_label(n=24, seed=0)."""
    return make_multi_label
