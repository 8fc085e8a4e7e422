"""Cut the small Fashion-MNIST that ships in data/fashion_mnist from the published files: one PNG sheet per split.

    python -m vlmcourse.tasks.far_build SOURCE [OUT]

SOURCE is a folder with the four published files (`train-images-idx3-ubyte` …, also with `.gz`), or the Debian package
`dataset-fashion-mnist` as a .deb file. Per class, `permutation` orders the published images by a seeded random number;
the first 40 of the training file become train, the next 20 val, the first 60 of the test file test. A sheet has one row
of 28x28 tiles per class. `subset.json` beside the sheets records the positions in the published files and the
checksums.
"""

import gzip
import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from vlmcourse.errors import DataError
from vlmcourse.files import atomic_write
from vlmcourse.paths import data_dir
from vlmcourse.tasks.split import permutation

PER_CLASS = {"train": 40, "val": 20, "test": 60}
UPSTREAM_CLASSES = "T-shirt/top, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker, Bag, Ankle boot".split(", ")
PUBLISHED = {  # sha256 of the unpacked files
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def build_fashion_mnist(source: str | Path, out: str | Path | None = None) -> dict:
    """Write three sheets and subset.json to `out` (default: data/fashion_mnist); return the content of subset.json.

    Raises ValueError if `source` is neither a folder nor a .deb file, DataError if a published file is missing or has
    another content.
    """
    source, out = Path(source), Path(out) if out is not None else data_dir() / "fashion_mnist"
    out.mkdir(parents=True, exist_ok=True)
    arrays = {name: read_idx(_published(source, name)) for name in PUBLISHED}
    subset = {
        "upstream": "https://github.com/zalandoresearch/fashion-mnist",
        "upstream_sha256": PUBLISHED,
        "upstream_classes": UPSTREAM_CLASSES,
        "splits": {},
    }
    for part, count in PER_CLASS.items():
        file = "t10k" if part == "test" else "train"
        first = PER_CLASS["train"] if part == "val" else 0
        images, labels = arrays[f"{file}-images-idx3-ubyte"], arrays[f"{file}-labels-idx1-ubyte"]
        positions = []
        for c in range(len(UPSTREAM_CLASSES)):
            members = np.flatnonzero(labels == c)
            order = permutation(len(members), "fashion_mnist", file, c)
            positions.append(members[order[first : first + count]])
        sheet = np.concatenate([np.concatenate(list(images[p]), axis=1) for p in positions])  # (10 * 28, count * 28)
        png = io.BytesIO()
        Image.fromarray(sheet).save(png, "PNG", optimize=True)
        atomic_write(out / f"{part}.png", png.getvalue())
        subset["splits"][part] = {
            "file": f"{part}.png",
            "sha256": hashlib.sha256(png.getvalue()).hexdigest(),
            "pixels_sha256": hashlib.sha256(sheet.tobytes()).hexdigest(),
            "per_class": count,
            "cut_from": f"{file}-images-idx3-ubyte",
            "positions": [" ".join(map(str, p)) for p in positions],
        }
    atomic_write(out / "subset.json", (json.dumps(subset, indent=1) + "\n").encode())
    return subset


def read_idx(content: bytes) -> np.ndarray:
    """The uint8 array in an IDX file: 0, 0, type 8, number of axes, one big-endian uint32 per axis, the data."""
    if content[:3] != b"\0\0\x08":
        raise DataError(f"not an IDX file of unsigned bytes: it starts with {content[:4]!r}")
    shape = np.frombuffer(content, ">u4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape)


def _published(source: Path, name: str) -> bytes:
    """The unpacked content of the published file `name`, checked."""
    if source.is_file() and source.suffix == ".deb":
        content = gzip.decompress(_from_deb(source, f"{name}.gz"))
    elif (source / name).is_file():
        content = (source / name).read_bytes()
    elif (source / f"{name}.gz").is_file():
        content = gzip.decompress((source / f"{name}.gz").read_bytes())
    elif source.is_dir():
        raise DataError(f"{source} has neither {name} nor {name}.gz")
    else:
        raise ValueError(f"source must be a folder with the published files or a .deb file, got {str(source)!r}")
    if hashlib.sha256(content).hexdigest() != PUBLISHED[name]:
        raise DataError(f"{name} in {source} is not the published file (its sha256 differs)")
    return content


def _from_deb(deb: Path, name: str) -> bytes:
    """One file of a Debian package: an `ar` archive (60-byte headers, even offsets) that holds data.tar.*"""
    content, at = deb.read_bytes(), 8
    while at < len(content):
        member, size = content[at : at + 16].decode().strip(" /"), int(content[at + 48 : at + 58])
        if member.startswith("data.tar"):
            with tarfile.open(fileobj=io.BytesIO(content[at + 60 : at + 60 + size])) as tar:
                for entry in tar:
                    if entry.isfile() and Path(entry.name).name == name:
                        return tar.extractfile(entry).read()
        at += 60 + size + size % 2
    raise DataError(f"{deb} does not contain {name}")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    written = build_fashion_mnist(*sys.argv[1:])
    print({part: facts["per_class"] for part, facts in written["splits"].items()})
