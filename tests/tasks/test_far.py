import gzip
import io
import json
import shutil
import tarfile

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from vlmcourse.errors import DataError
from vlmcourse.paths import data_dir
from vlmcourse.tasks import far, far_build, get_task


def test_fashion_mnist():
    task = get_task("fashion_mnist")
    assert [len(s) for s in task.splits.values()] == [400, 200, 600]
    assert all((s.counts == n).all() for s, n in zip(task.splits.values(), (40, 20, 60), strict=True))
    assert task.num_classes == 10 and task.class_names[9] == "ankle boot"
    images = task.test.images
    assert images.shape == (600, 3, 64, 64) and images.dtype == torch.uint8
    assert torch.equal(images[:, 0], images[:, 2])  # grey
    assert images[:, 0, :2, :2].float().mean() < 60 and images.max() > 250  # mostly dark corners, full range
    means = torch.stack([task.train.images[task.train.labels == c].float().mean(0) for c in range(10)]).flatten(1)
    nearest = torch.cdist(images.float().flatten(1), means).argmin(1)
    assert (nearest == task.test.labels).float().mean() > 0.6  # rows of the sheets are classes


def test_fashion_mnist_splits_share_no_image():
    splits = get_task("fashion_mnist").splits
    seen = [{image.numpy().tobytes() for image in split.images} for split in splits.values()]
    assert len(seen[0]) == 400 and not (seen[0] & seen[1] | seen[0] & seen[2] | seen[1] & seen[2])


def test_digits():
    task = get_task("digits")
    assert [len(s) for s in task.splits.values()] == [400, 200, 1197]
    assert (task.train.counts == 40).all() and (task.val.counts == 20).all() and task.test.counts.min() > 100
    everything = torch.cat([s.origin[1] for s in task.splits.values()])
    assert everything.sort().values.tolist() == list(range(1797))  # each image in one split
    assert task.train.images.shape == (400, 3, 64, 64)
    truth = torch.from_numpy(load_digits().target)
    assert torch.equal(truth[task.test.origin[1]], task.test.labels)


def test_cards_name_the_licences():
    assert "MIT" in get_task("fashion_mnist").card and "CC-BY-4.0" in get_task("digits").card


def test_enlarge_keeps_flat_images_and_range():
    flat = torch.full((2, 28, 28), 200, dtype=torch.uint8)
    assert (far.enlarge(flat) == 200).all() and far.enlarge(flat, 32).shape == (2, 3, 32, 32)
    checkers = (torch.arange(64).view(1, 8, 8) % 2 * 255).to(torch.uint8)
    large = far.enlarge(checkers)
    assert large.min() == 0 and large.max() == 255  # overshoot is clipped, not wrapped


def test_sheet_is_read_class_by_class(tmp_path):
    tiles = torch.arange(6, dtype=torch.uint8).view(2, 3, 1, 1).expand(2, 3, 4, 4)  # 2 classes, 3 columns
    path = tmp_path / "s.png"
    far.Image.fromarray(tiles.permute(0, 2, 1, 3).reshape(8, 12).numpy()).save(path)
    assert far.read_sheet(path, classes=2, tile=4)[:, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(DataError, match="expected 3 rows"):
        far.read_sheet(path, classes=3, tile=4)


@pytest.fixture
def copied(tmp_path, monkeypatch):
    shutil.copytree(data_dir() / "fashion_mnist", tmp_path / "fashion_mnist")
    monkeypatch.setenv("VLMCOURSE_DATA", str(tmp_path))
    return tmp_path / "fashion_mnist"


def test_damaged_sheet(copied):
    content = bytearray((copied / "val.png").read_bytes())
    content[5000] ^= 1
    (copied / "val.png").write_bytes(content)
    task = far.fashion_mnist()
    assert len(task.train.images) == 400
    with pytest.raises(DataError, match="val.png is damaged"):
        _ = task.val.images


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"splits": []}'])
def test_damaged_index(copied, content):
    (copied / "subset.json").unlink() if content is None else (copied / "subset.json").write_bytes(content)
    with pytest.raises(DataError, match="subset.json.* is missing or damaged"):
        far.fashion_mnist()


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Four small files in the published format: 70 training and 60 test images per class."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "published"
    folder.mkdir()
    content = {}
    for part, count in (("train", 70), ("t10k", 60)):
        content[f"{part}-images-idx3-ubyte"] = idx(rng.integers(0, 256, (count * 10, 28, 28), np.uint8))
        content[f"{part}-labels-idx1-ubyte"] = idx(rng.permutation(np.repeat(np.arange(10, dtype=np.uint8), count)))
    for name, data in content.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(data, 1))
    monkeypatch.setattr(
        far_build, "PUBLISHED", {name: far_build.hashlib.sha256(d).hexdigest() for name, d in content.items()}
    )
    return folder


def pixels(folder) -> list[str]:
    return [s["pixels_sha256"] for s in json.loads((folder / "subset.json").read_text())["splits"].values()]


def test_build_from_a_folder_and_from_a_package(published, tmp_path, monkeypatch):
    subset = far_build.build_fashion_mnist(published, tmp_path / "out" / "fashion_mnist")
    images = far_build.read_idx(gzip.decompress((published / "train-images-idx3-ubyte.gz").read_bytes()))
    monkeypatch.setenv("VLMCOURSE_DATA", str(tmp_path / "out"))
    task = far.fashion_mnist()
    rows = [[int(i) for i in row.split()] for row in subset["splits"]["val"]["positions"]]
    assert torch.equal(task.val.images[20], far.enlarge(torch.from_numpy(images[[rows[1][0]]]))[0])
    train_rows = [i for row in subset["splits"]["train"]["positions"] for i in row.split()]
    assert not set(train_rows) & {str(i) for row in rows for i in row}

    tar_bytes = io.BytesIO()
    with tarfile.open(fileobj=tar_bytes, mode="w:xz") as tar:
        for file in sorted(published.iterdir()):
            tar.add(file, f"./usr/share/datasets/{file.name}")
    members = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": tar_bytes.getvalue()}
    ar = b"!<arch>\n"
    for name, data in members.items():
        ar += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
    (tmp_path / "set.deb").write_bytes(ar)
    far_build.build_fashion_mnist(tmp_path / "set.deb", tmp_path / "again")
    assert pixels(tmp_path / "again") == pixels(tmp_path / "out" / "fashion_mnist")


def test_build_refuses_other_files(published, tmp_path):
    with pytest.raises(ValueError, match="source must be a folder"):
        far_build.build_fashion_mnist(tmp_path / "nothing", tmp_path / "out")
    (published / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"other"))
    with pytest.raises(DataError, match="is not the published file"):
        far_build.build_fashion_mnist(published, tmp_path / "out")
    (published / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="has neither"):
        far_build.build_fashion_mnist(published, tmp_path / "out")
    with pytest.raises(DataError, match="not an IDX file"):
        far_build.read_idx(b"PNG...")
    assert not (tmp_path / "out" / "subset.json").exists()


def test_shipped_files_say_how_they_were_made():
    subset = json.loads((data_dir() / "fashion_mnist" / "subset.json").read_text())
    assert subset["upstream_sha256"] == far_build.PUBLISHED
    assert [s["per_class"] for s in subset["splits"].values()] == list(far_build.PER_CLASS.values())
    for split in subset["splits"].values():
        assert [len(row.split()) for row in split["positions"]] == [split["per_class"]] * 10
    assert (data_dir() / "fashion_mnist" / "LICENSE").is_file()
