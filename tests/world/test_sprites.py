"""The sprite library: what it reads, selects and returns, and what it says about damaged files."""

import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from vlmcourse.errors import DataError
from vlmcourse.world.sprites import load_sprites

HEADER = "sprite,source,cell,concept,icon_name,mono,cluster,cut\n"


def shape(number: int, mono: bool) -> np.ndarray:
    """A rectangle (64, 64, 4) whose width tells sprites apart."""
    cell = np.zeros((64, 64, 4), dtype=np.uint8)
    cell[8:56, 8 : 16 + 8 * number] = (0, 0, 0, 255) if mono else (200, 30 * number, 40, 255)
    return cell


def atlas(cells: list[np.ndarray], mono: bool) -> Image.Image:
    sheet = np.zeros((64, 32 * 64, 4), dtype=np.uint8)
    for i, cell in enumerate(cells):
        sheet[:, 64 * i : 64 * (i + 1)] = cell
    return Image.fromarray(sheet[..., 3]) if mono else Image.fromarray(sheet)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "share-alike").mkdir()
    sources = {
        "paint": {"mono": False, "share_alike": False},
        "ink": {"mono": True, "share_alike": False},
        "free": {"mono": False, "share_alike": True},
    }
    lines, number = [], 0
    for source, record in sources.items():
        cells = [shape(i, record["mono"]) for i in range(3)]
        where = tmp_path / "share-alike" if record["share_alike"] else tmp_path
        atlas(cells, record["mono"]).save(where / f"{source}.webp", quality=80)
        for i, cut in enumerate(("train", "held_out", "novel")):
            lines.append(f"{number},{source},{i},{7 + i},name-{i},{int(record['mono'])},{number},{cut}")
            number += 1
    (tmp_path / "sources.json").write_text(json.dumps(sources))
    (tmp_path / "index.csv").write_text(HEADER + "\n".join(lines) + "\n")
    return tmp_path


def test_columns_and_selection(folder):
    library = load_sprites(folder)
    assert len(library) == 9
    assert library.mono.tolist() == [False] * 3 + [True] * 3 + [False] * 3
    assert library.icon_name[4] == "name-1"
    assert library.select().tolist() == list(range(9))
    assert library.select(cut="train").tolist() == [0, 3, 6]
    assert library.select(cut=("train", "novel"), source=["ink"]).tolist() == [3, 5]
    assert library.select(concept=8, mono=False).tolist() == [1, 7]
    assert library.select(concept=[7, 9], source="free").tolist() == [6, 8]
    assert library.select(concept=99).tolist() == []


def test_rgba(folder):
    library = load_sprites(folder)
    cells = library.rgba([2, 4, 8])
    assert cells.shape == (3, 64, 64, 4) and cells.dtype == torch.uint8
    for cell, wanted in zip(cells, (shape(2, False), shape(1, True), shape(2, False)), strict=True):
        gap = np.abs(cell.numpy().astype(int) - wanted)
        assert gap[..., 3].mean() < 1.5  # alpha, through lossy compression
        assert gap[16:48, 12:20].max() < 30
    assert cells[1, :, :, :3].max() == 0  # black ink


def test_rgba_shapes_and_absent_objects(folder):
    library = load_sprites(folder)
    cells = library.rgba(np.array([[0, -1], [-1, 5]]))
    assert cells.shape == (2, 2, 64, 64, 4)
    assert not cells[0, 1].any() and not cells[1, 0].any()
    assert torch.equal(cells[1, 1], library.rgba(5))
    assert torch.equal(cells, library.rgba(torch.tensor([[0, -1], [-1, 5]])))
    assert library.rgba([]).shape == (0, 64, 64, 4)


def test_atlases_are_decoded_once_and_lazily(folder):
    library = load_sprites(folder)
    (folder / "ink.webp").unlink()
    library.rgba([0])  # the missing atlas is not needed
    (folder / "paint.webp").unlink()
    library.rgba([1])  # already in memory
    with pytest.raises(DataError, match="paint.webp"):
        pickle.loads(pickle.dumps(library)).rgba([1])  # a worker reads for itself


def test_wrong_arguments(folder):
    library = load_sprites(folder)
    with pytest.raises(ValueError, match="'trian'.*train"):
        library.select(cut="trian")
    with pytest.raises(ValueError, match="'paints'.*paint"):
        library.select(source="paints")
    with pytest.raises(ValueError, match=r"-1\.\.8"):
        library.rgba([9])
    with pytest.raises(ValueError, match="integers"):
        library.rgba([0.5])


def expect(folder, name: str, number: int | None = None):
    with pytest.raises(DataError) as info:
        library = load_sprites(folder)
        library.rgba([number])
    assert name in str(info.value)
    assert all(word in str(info.value) for word in ("vlmcourse doctor", "git", "vlmcourse data build"))


@pytest.mark.parametrize("name", ["index.csv", "sources.json"])
def test_missing_index(folder, name):
    (folder / name).unlink()
    expect(folder, name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        HEADER,
        "a,b\n1,2\n",
        HEADER + "0,paint,0,7,x,0,0,train\n1,pai",
        HEADER + "1,paint,0,7,x,0,0,train\n",
        HEADER + "0,paint,zero,7,x,0,0,train\n",
        HEADER + "0,nowhere,0,7,x,0,0,train\n",
        HEADER + "0,paint,0,7,x,0,0,tra\n",
        "\0\0\0",
    ],
)
def test_damaged_index(folder, text):
    (folder / "index.csv").write_text(text)
    expect(folder, "index.csv")


def test_damaged_sources(folder):
    (folder / "sources.json").write_text('{"paint": {"mono"')
    expect(folder, "sources.json")
    (folder / "sources.json").write_bytes(b"\xff\xfe\x00")
    expect(folder, "sources.json")


@pytest.mark.parametrize("number, name", [(0, "paint.webp"), (3, "ink.webp"), (6, "share-alike")])
def test_damaged_atlas(folder, number, name):
    path = load_sprites(folder).path(["paint", "ink", "free"][number // 3])
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:20], b"", b"not a picture"):
        path.write_bytes(content)
        expect(folder, name, number)
    path.unlink()
    expect(folder, name, number)


def test_atlas_of_the_wrong_size(folder):
    Image.new("RGBA", (640, 64)).save(folder / "paint.webp")
    expect(folder, "paint.webp", 0)
    index = (folder / "index.csv").read_text().replace("2,paint,2", "2,paint,40")
    (folder / "index.csv").write_text(index)
    atlas([shape(0, False)], False).save(folder / "paint.webp")
    expect(folder, "paint.webp", 2)


def test_negative_cell(folder):
    index = (folder / "index.csv").read_text().replace("2,paint,2", "2,paint,-2")
    (folder / "index.csv").write_text(index)
    expect(folder, "index.csv")
