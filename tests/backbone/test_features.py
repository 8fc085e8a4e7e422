"""The feature cache: the same numbers as without it, one computation, and no way to get a wrong or half file."""

import errno
import subprocess
import sys
import textwrap
import warnings
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from vlmcourse import files
from vlmcourse.backbone import features as features_module
from vlmcourse.backbone.augment import random_resized_crops
from vlmcourse.backbone.features import Encoder, image_features
from vlmcourse.tasks.base import Split


class Counting:
    """A backbone that counts the images it encodes."""

    def __init__(self, backbone):
        self.backbone, self.count = backbone, 0

    def __getattr__(self, name):
        return getattr(self.backbone, name)

    def encode_image(self, images, **options):
        self.count += len(images)
        return self.backbone.encode_image(images, **options)


class Pictures:
    def __init__(self, images, fingerprint="pictures"):
        self.images, self.fingerprint = images, fingerprint

    def __len__(self):
        return len(self.images)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("VLMCOURSE_CACHE", str(tmp_path))
    return tmp_path / "features"


@pytest.fixture
def backbone(vit_backbone):
    return Counting(vit_backbone)


@pytest.fixture
def split(images):
    return Pictures(images)


def cached(folder):
    return [p for p in folder.iterdir() if p.suffix != ".lock"]


def test_the_test_view_is_encode_image_and_is_computed_once(backbone, split, folder):
    features = image_features(backbone, split)
    assert torch.equal(features, backbone.backbone.encode_image(split.images))
    assert not features.requires_grad and features.shape == (5, 16)
    assert torch.equal(image_features(backbone, split), features)
    assert torch.equal(image_features(backbone, split, seed=3, flip=False), features)  # the test view has no draws
    raw = image_features(backbone, split, normalise=False)  # from the same file
    assert torch.equal(raw, backbone.backbone.encode_image(split.images, normalise=False))
    assert backbone.count == 5 and len(cached(folder)) == 1
    assert torch.equal(image_features(backbone, split, cache=False), features)
    assert backbone.count == 10


def test_views_are_random_resized_crops(backbone, split):
    views = image_features(backbone, split, views=2, crop_scale=(0.3, 0.9), seed=7)
    assert views.shape == (2, 5, 16)
    generator = torch.Generator().manual_seed(7)
    for view in views:
        crops = random_resized_crops(split.images, generator, scale=(0.3, 0.9), size=32)
        expected = backbone.backbone.encode_image(backbone.normalise(crops))
        torch.testing.assert_close(view, expected, rtol=0, atol=1e-6)
    again = image_features(backbone, split, views=2, crop_scale=(0.3, 0.9), seed=7, cache=False, batch_size=2)
    torch.testing.assert_close(again, views, rtol=0, atol=1e-6)  # the draws do not depend on the batch size
    assert image_features(backbone, split, crop_scale=(0.3, 0.9)).shape == (1, 5, 16)
    assert image_features(backbone, split, views=2).shape == (2, 5, 16)


def test_everything_that_matters_has_its_own_file(backbone, make_backbone, split, folder):
    settings = [
        {},
        {"views": 2},
        {"views": 3},
        {"views": 2, "seed": 1},
        {"views": 2, "flip": False},
        {"views": 2, "crop_scale": (0.5, 1)},
    ]
    for options in settings:
        image_features(backbone, split, **options)
    image_features(backbone, Pictures(split.images, "other pictures"))
    image_features(backbone.to(dtype=torch.bfloat16), split)
    image_features(make_backbone("vit", seed=1), split)
    assert len(cached(folder)) == len(settings) + 3
    image_features(backbone, split, views=2, crop_scale=(0.08, 1.0))  # the default, said
    assert len(cached(folder)) == len(settings) + 3


def test_precision_and_size_of_the_pictures(vit_backbone, generator):
    pictures = torch.randint(0, 256, (3, 3, 40, 50), generator=generator, dtype=torch.uint8)
    half = vit_backbone.to(dtype=torch.bfloat16)
    for _ in range(2):  # computed, then read
        features = image_features(half, Pictures(pictures))
        assert features.dtype == torch.bfloat16
        assert torch.equal(features, half.encode_image(pictures))
    assert image_features(vit_backbone, Pictures(pictures), views=2).shape == (2, 3, 16)


@pytest.mark.parametrize("damage", ["truncated", "empty", "noise", "one byte", "another key"])
def test_damaged_files_are_computed_again(backbone, split, folder, damage):
    features = image_features(backbone, split)
    (file,) = cached(folder)
    whole = file.read_bytes()
    if damage == "another key":
        image_features(backbone, Pictures(split.images[:4], "four"))
        (other,) = (p for p in cached(folder) if p != file)
        file.write_bytes(other.read_bytes())
    else:
        wrong = {"truncated": whole[:-20], "empty": b"", "noise": b"noise " * 40}
        file.write_bytes(wrong.get(damage, whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]))
    with pytest.warns(RuntimeWarning, match="cached features are damaged and computed again"):
        assert torch.equal(image_features(backbone, split), features)
    count = backbone.count
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(image_features(backbone, split), features)
    assert backbone.count == count  # repaired


def test_a_full_disk_costs_a_warning_not_the_result(backbone, split, folder, monkeypatch):
    def full(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.warns(RuntimeWarning, match="features are not cached: .* No space left on device"):
        features = image_features(backbone, split)
    assert torch.equal(features, backbone.backbone.encode_image(split.images))
    assert backbone.count == 5  # not computed twice
    assert cached(folder) == []


def test_a_folder_that_cannot_be_written(backbone, split, tmp_path, monkeypatch):
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("VLMCOURSE_CACHE", str(tmp_path / "a file"))
    with pytest.warns(RuntimeWarning, match="features are not cached"):
        assert image_features(backbone, split).shape == (5, 16)
    assert backbone.count == 5


def test_an_interrupted_run_leaves_no_file_and_the_next_one_clears_up(backbone, split, folder, monkeypatch):
    folder.mkdir()

    def interrupted(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(backbone, "encode_image", interrupted, raising=False)
        with pytest.raises(KeyboardInterrupt):
            image_features(backbone, split)
    assert cached(folder) == []
    image_features(backbone, split)
    (file,) = cached(folder)
    leftover = folder / f".{file.stem}.1-dead.part.safetensors"
    leftover.write_bytes(b"half")
    file.unlink()
    image_features(backbone, split)
    assert cached(folder) == [file]


def test_errors_of_the_pictures_are_not_mistaken_for_a_full_disk(backbone):
    class Broken:
        fingerprint = "broken"

        @property
        def images(self):
            raise FileNotFoundError("the pictures are gone")

    with pytest.raises(FileNotFoundError, match="the pictures are gone"):
        image_features(backbone, Broken())
    for views in (0, 1.5):
        with pytest.raises(ValueError, match="views="):
            image_features(backbone, Broken(), views=views)


def test_two_processes_compute_once(tmp_path):
    """Each process notes when it computes; whoever comes second waits and reads."""
    code = """
        import pathlib, sys, time, torch
        from types import SimpleNamespace as Bag
        from vlmcourse.backbone.features import image_features
        notes, name = pathlib.Path(sys.argv[1]), sys.argv[2]
        (notes / f"ready-{name}").touch()
        while len(list(notes.glob("ready-*"))) < 2:
            time.sleep(0.01)

        def encode_image(images, **options):
            (notes / f"computed-{name}").touch()
            time.sleep(1)
            return images.float().mean((1, 2, 3))[:, None] * torch.ones(4)

        backbone = Bag(encode_image=encode_image, fingerprint="b", device=torch.device("cpu"))
        pictures = Bag(images=torch.full((3, 3, 2, 2), 7, dtype=torch.uint8), fingerprint="s")
        assert image_features(backbone, pictures, normalise=False).eq(7).all()
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), str(tmp_path)]
    running = [subprocess.Popen([*command, name], stderr=subprocess.PIPE, text=True) for name in "ab"]
    for process in running:
        _, problems = process.communicate(timeout=120)
        assert process.returncode == 0, problems
    assert len(list(tmp_path.glob("computed-*"))) == 1


def test_a_split_needs_only_images_and_a_fingerprint(vit_backbone, images):
    bag = SimpleNamespace(images=images, fingerprint="bag")
    features = image_features(vit_backbone, bag)
    torch.testing.assert_close(features, F.normalize(features, dim=-1))


def whole_task(images, copies):
    return Split(images.repeat(copies, 1, 1, 1), torch.arange(len(images) * copies) % 2, ("cat", "dog"))


def test_draws_of_one_split_share_its_features(backbone, images):
    whole = whole_task(images, 3)
    draws = [whole.subset(rows) for rows in ([0, 5, 2], [5, 1], [3])] + [whole.keep_classes([1])]
    for draw in draws:
        alone = image_features(backbone, draw, cache=False)
        torch.testing.assert_close(image_features(backbone, draw), alone, atol=1e-5, rtol=0)
    assert backbone.count == len(whole) + sum(map(len, draws)), "the draws were encoded without the cache only"


def test_little_of_a_large_split_is_encoded_alone(backbone, images, monkeypatch):
    monkeypatch.setattr(features_module, "SMALL", 2)
    whole = whole_task(images, 3)
    image_features(backbone, whole.subset([1]))
    assert backbone.count == 1
    image_features(backbone, whole.subset(range(len(whole) // 3)))
    assert backbone.count == 1 + len(whole)


def test_a_split_whose_features_are_too_large_to_keep_is_not_encoded_for_a_draw(backbone, images, monkeypatch):
    whole, seen = whole_task(images, 3), []

    def positions(backbone, images, batch_size):
        seen.append(len(images))
        return torch.zeros(len(images), 5, 8)

    monkeypatch.setattr(features_module, "LARGEST", len(whole) * 5 * 8 * 4 - 1)
    image_features(backbone, whole.subset([1, 4]), encoder=Encoder("positions", positions, ndim=3))
    assert max(seen) == 2
