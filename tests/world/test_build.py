"""Rebuilding the artwork: matching names, finding look-alikes, cutting, writing atlases, and a whole tiny build."""

import csv
import json
import re

import numpy as np
import pytest
from PIL import Image

from vlmcourse.errors import DataError
from vlmcourse.world import build as builder
from vlmcourse.world.build import fetch
from vlmcourse.world.build.atlas import write_atlas, write_attribution
from vlmcourse.world.build.cluster import clusters, keep_distinct, thumbnails
from vlmcourse.world.build.cuts import TRAIN_CAP, choose_novel, cut_clusters, held_out_clusters
from vlmcourse.world.build.match import Entry, base_name, is_filled, match, read_entries, slug
from vlmcourse.world.build.read import read_iconify, read_openclipart, read_stamps
from vlmcourse.world.build.render import render
from vlmcourse.world.build.sources import Icon
from vlmcourse.world.concepts import load_concepts
from vlmcourse.world.sprites import load_sprites

# ---- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Red Apple", "red-apple"),
        ("woman’s hat", "womans-hat"),
        ("Mrs. Claus: dark", "mrs-claus-dark"),
        ("--x--", "x"),
        ("日本", ""),
    ],
)
def test_slug(text, expected):
    assert slug(text) == expected


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("cat", "cat"),
        ("cat-24-filled", "cat"),  # fluent: size and fill
        ("animal-cat-16-regular", "animal-cat"),
        ("cat-outline", "cat"),
        ("cat-solid", "cat"),
        ("baseline-cat", "cat"),
        ("outline-cat", "cat"),
        ("cat-outline-rounded", "cat"),
        ("cat-bold-duotone", "cat"),
        ("cat-line-duotone", "cat"),
        ("cat-20px", "cat"),
        ("cat-o", "cat"),
        ("cat_face", "cat-face"),
        ("Cat2", "cat"),
        ("cat-twotone-loop", "cat"),
        ("hot-dog", "hot-dog"),
        ("round", "round"),  # a name is never stripped to nothing
        ("24", "24"),
    ],
)
def test_base_name(name, base):
    assert base_name(name) == base
    assert base_name(base) == base


def test_is_filled():
    assert all(map(is_filled, ("cat-fill", "cat-24-filled", "cat-solid", "cat-bold", "cat-duotone", "cat-color")))
    assert not any(map(is_filled, ("cat", "cat-outline", "cat-24-regular", "cat-line", "cat-thin")))


def icon(source: str, name: str, base: str | None = None) -> Icon:
    return Icon(source, name, base_name(name) if base is None else base, "<svg/>", mono=True)


ENTRIES = [
    Entry("animals", "cat", ("cat", "cat face"), ("cat", "kitten")),
    Entry("animals", "dog", ("dog",), ("dog", "puppy")),
    Entry("animals", "mouse animal", ("mouse", "mouse face"), ("rat",)),
    Entry("animals", "seal animal", ("seal",), ()),
    Entry("food", "hot dog", ("hot dog",), ("hot-dog", "hotdog")),
    Entry("objects", "computer mouse", ("computer mouse",), ("mouse",)),
    Entry("objects", "guitar", ("guitar",), ("guitar", "electric-guitar")),
    Entry("transport", "car", ("automobile",), ("car",)),
]


@pytest.mark.parametrize(
    ("source", "name", "concept"),
    [
        ("mdi", "cat", "cat"),
        ("mdi", "kitten", "cat"),
        ("fluent", "cat-24-filled", "cat"),
        ("mdi", "cat-face", None),  # a label counts in emoji sets only
        ("noto", "cat-face", "cat"),
        ("noto", "mouse", "mouse animal"),  # in emoji sets a mouse is an animal
        ("noto", "mouse-face", "mouse animal"),
        ("mdi", "mouse", "computer mouse"),
        ("fxemoji", "catface", "cat"),  # names without hyphens
        ("twemoji", "catface", None),
        ("mdi", "hot-dog", "hot dog"),
        ("mdi", "hot-dog-outline", "hot dog"),
        ("streamline-freehand", "pets-animals-dog", "dog"),  # the topic comes first
        ("mdi", "pets-animals-dog", None),
        ("streamline-freehand", "fast-food-hot-dog", "hot dog"),
        ("streamline-freehand", "animal-mouse", None),  # the ending belongs to a group that is not trusted
        ("streamline-freehand", "music-electric-guitar", None),
        ("streamline-freehand", "transport-car", "car"),
        ("mdi", "automobile", None),
        ("noto", "automobile", "car"),
        ("mdi", "日本", None),
        ("mdi", "wolf", None),
    ],
)
def test_match(source, name, concept):
    found = match(ENTRIES, [icon(source, name)])
    assert list(found) == ([concept] if concept else [])


def test_an_entry_without_icon_names_catches_nothing():
    """Clip art and photographs whose names hold no letters must not become a concept."""
    assert not [e.name for e in read_entries(builder.TABLE) if "" in e.icons + e.labels]
    assert match(ENTRIES, [icon("tuxpaint-stamps", "12", base="")]) == {}


def test_at_most_two_variants_of_a_drawing():
    names = ["cat-24-filled", "cat-16-filled", "cat-24-regular", "cat-16-regular", "kitten-24-regular"]
    found = match(ENTRIES, [icon("fluent", n) for n in names])["cat"]
    assert [i.name for i in found] == ["cat-16-filled", "cat-16-regular", "kitten-24-regular"]
    found = match(ENTRIES, [icon("mdi", n) for n in ("cat-outline", "cat", "cat-line")])["cat"]
    assert [i.name for i in found] == ["cat"]
    assert len(match(ENTRIES, [icon(s, "cat") for s in ("mdi", "tabler", "mdi-light")])["cat"]) == 3


def test_match_does_not_depend_on_the_order_of_icons():
    icons = [icon(s, n) for s in ("mdi", "noto") for n in ("cat", "cat-fill", "dog", "car", "kitten")]
    assert match(ENTRIES, icons) == match(ENTRIES, icons[::-1])


def test_read_entries(tmp_path):
    (tmp_path / "t.txt").write_text("# comment\n\nanimals; cat; cat, cat face; cat , kitten\nfood; egg; ; egg\n")
    entries = read_entries(tmp_path / "t.txt")
    assert entries[0] == Entry("animals", "cat", ("cat", "cat face"), ("cat", "kitten"))
    assert entries[1] == Entry("food", "egg", (), ("egg",))


# ---- reading ---------------------------------------------------------------------------------------------------------


def write_set(folder, names: dict[str, str], palette=False, licence="MIT", **extra):
    """An unpacked Iconify package with these drawings (name -> svg body)."""
    folder.mkdir(parents=True, exist_ok=True)
    icons = {name: {"body": body} for name, body in names.items()}
    (folder / "icons.json").write_text(json.dumps({"icons": icons, "width": 24, "height": 24} | extra))
    author = {"name": "Ada", "url": "https://example.org"}
    info = {"name": folder.name.title(), "author": author, "license": {"title": licence, "spdx": licence}}
    (folder / "info.json").write_text(json.dumps(info | {"palette": palette}))
    (folder / "package.json").write_text(json.dumps({"version": "1.2.3"}))


def test_read_iconify(tmp_path):
    write_set(tmp_path / "mdi", {"cat": "<path d='M0 0'/>", "dog": "<g/>"})
    data = json.loads((tmp_path / "mdi/icons.json").read_text())
    data["icons"]["dog"]["hidden"] = True
    data["icons"]["cat"] |= {"width": 30, "left": -2}
    (tmp_path / "mdi/icons.json").write_text(json.dumps(data))
    (cat,) = read_iconify(tmp_path / "mdi")
    assert (cat.source, cat.name, cat.base, cat.mono, cat.raster) == ("mdi", "cat", "cat", True, False)
    assert 'viewBox="-2 0 30 24"' in cat.svg and "<path d='M0 0'/>" in cat.svg
    write_set(tmp_path / "noto", {"cat": ""}, palette=True)
    assert read_iconify(tmp_path / "noto")[0].mono is False


def test_read_openclipart(tmp_path):
    for name in ("animals/cat_sitting_01", "animals/cat_bw", "food/cat", "animals/catalogue", "food/hot_dog", "x/dog"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.svg").write_text("<svg/>")
    (tmp_path / "animals/日本.svg").write_text("<svg/>")
    found = {i.name: i.base for i in read_openclipart(tmp_path, ENTRIES)}
    assert found == {"cat_sitting_01": "cat", "hot_dog": "hot-dog"}
    assert read_openclipart(tmp_path / "nothing", ENTRIES) == []


def test_read_stamps(tmp_path):
    names = ("animals/cat", "animals/w_dog_old", "animals/cat_mirror", "cartoon/dog", "animals/puppy02", "animals/wolf")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGBA", (8, 8)).save(tmp_path / f"{name}.png")
    found = {i.name: i.base for i in read_stamps(tmp_path, ENTRIES)}
    assert found == {"cat": "cat", "w_dog_old": "dog", "puppy02": "puppy"}
    assert all(i.raster and not i.mono for i in read_stamps(tmp_path, ENTRIES))


# ---- look-alikes -----------------------------------------------------------------------------------------------------


def drawing(seed: int, colour=(0, 0, 0)) -> np.ndarray:
    """A sprite (64, 64, 4) of random blocks; another seed gives another drawing."""
    blocks = np.random.default_rng(seed).random((8, 8)) < 0.5
    cell = np.zeros((64, 64, 4), np.uint8)
    cell[..., :3] = colour
    cell[..., 3] = np.kron(blocks, np.ones((8, 8))) * 255
    return cell


def test_thumbnails():
    small = thumbnails(np.stack([drawing(0), drawing(1), np.zeros((64, 64, 4), np.uint8)]))
    assert small.shape == (3, 256)
    np.testing.assert_allclose(np.linalg.norm(small, axis=1), [1, 1, 0], atol=1e-5)
    np.testing.assert_allclose(small.mean(1), 0, atol=1e-6)


def test_keep_distinct():
    """Near-duplicates and the same drawing in other ink or negative go; the first one stays."""
    noisy = drawing(0)
    noisy[..., 3] = (0.9 * noisy[..., 3] + np.random.default_rng(0).integers(0, 20, (64, 64))).astype(np.uint8)
    negative = drawing(0)
    negative[..., :3] = np.where(negative[..., 3:] > 0, 255, 0)
    negative[..., 3] = 255
    sprites = [drawing(0), drawing(1), noisy, drawing(0, (200, 30, 30)), negative, drawing(2)]
    assert keep_distinct(np.stack(sprites)).tolist() == [0, 1, 5]


def test_variants_and_look_alikes_are_one_cluster():
    alike = drawing(0)
    alike[:8, :8, 3] ^= 255  # one block of 64 differs: no duplicate, but a look-alike
    sprites = np.stack([drawing(0), drawing(1), drawing(2), alike, drawing(3)])
    assert keep_distinct(sprites).tolist() == [0, 1, 2, 3, 4]
    names = [("a", "cat"), ("b", "cat"), ("a", "cat"), ("c", "cat"), ("c", "kitten")]
    assert clusters(sprites, names).tolist() == [0, 1, 0, 0, 2]  # 0 and 2 by name, 0 and 3 by looks
    assert clusters(sprites[:1], names[:1]).tolist() == [0]
    assert clusters(sprites[[1, 2]], [("x", "a"), ("y", "b")]).tolist() == [0, 1]


# ---- cuts ------------------------------------------------------------------------------------------------------------


def test_held_out_clusters():
    found = [held_out_clusters(n) for n in range(6, 100)]
    assert found == sorted(found) and set(found) == {2, 3, 4, 5, 6, 7, 8, 26}
    assert all(n - held_out_clusters(n) >= 4 for n in range(6, 100))  # something to train on


@pytest.mark.parametrize("sizes", [[1] * 6, [2] * 12, [3, 1, 1, 9, 2, 2, 2], [4] * 40, [60] + [2] * 50, [1] * 120])
def test_cut_clusters(sizes):
    cluster = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    cut = cut_clusters(cluster, np.random.default_rng(1))
    assert set(cut) <= {"train", "held_out", ""}
    train, held = set(cluster[cut == "train"].tolist()), set(cluster[cut == "held_out"].tolist())
    assert not train & held
    assert len(held) == held_out_clusters(len(sizes))
    assert max(np.bincount(cluster[cut == "held_out"])) <= 2
    assert all(sizes[c] <= 6 for c in held)  # large families of look-alikes train
    assert (cut == "train").sum() == min(TRAIN_CAP, sum(n for c, n in enumerate(sizes) if c not in held))
    assert len(train) == min(TRAIN_CAP, len(sizes) - len(held))  # look-alikes go before drawings do
    assert (cut == cut_clusters(cluster, np.random.default_rng(1))).all()
    assert (cut != cut_clusters(cluster, np.random.default_rng(2))).any()


def test_choose_novel():
    groups = {f"{g}{i}": g for g in ("animals", "food", "objects", "symbols") for i in range(60)}
    sizes = (3, 6), (4, 7), (4, 12), (8, 9), (6, 10), (15, 20), (30, 40), (50, 80)
    counts = {name: sizes[i % len(sizes)] for i, name in enumerate(groups)}
    cut = choose_novel(groups, counts, seed=1)
    assert cut == choose_novel(groups, counts, seed=1) != choose_novel(groups, counts, seed=2)
    novel = {c for c, which in cut.items() if which == "novel"}
    for name, which in cut.items():
        n, m = counts[name]
        assert (n, m) != (3, 6)  # too thin for anything
        if n < 6 or m < 10:  # thin concepts are kept as novel ones, of nature only
            assert which == "novel" and groups[name] in ("animals", "food")
        if n >= 36:
            assert which == "seen"  # the richest hold out enough for 16 shots themselves
        if groups[name] in ("animals", "food") and 6 <= n < 26 and m >= 10:
            assert which == "seen"
    assert {groups[c] for c in novel if counts[c] == (30, 40)} == {"animals", "food", "objects", "symbols"}


def test_choose_novel_of_few():
    assert choose_novel({}, {}, 0) == {}
    assert choose_novel({"cat": "animals"}, {"cat": (8, 12)}, 0) == {"cat": "seen"}
    assert choose_novel({"cat": "animals", "key": "objects"}, {"cat": (8, 12), "key": (7, 11)}, 0) == {
        "cat": "seen",
        "key": "novel",
    }


# ---- rendering and atlases -------------------------------------------------------------------------------------------


def svg(body: str, size: int = 24) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}">{body}</svg>'


def test_render():
    pytest.importorskip("resvg_py", reason="drawings are rendered with resvg-py (pip install 'vlmcourse[pretrain]')")
    cell = render(Icon("mdi", "x", "x", svg('<rect x="4" y="6" width="8" height="4" fill="red"/>', 16), mono=False))
    assert cell.shape == (64, 64, 4) and cell.dtype == np.uint8
    rows, columns = (np.flatnonzero((cell[..., 3] > 128).any(axis)) for axis in (1, 0))
    assert (columns[0], columns[-1]) == (2, 61)  # longest side 60, centred
    assert (rows[0], rows[-1]) == (17, 46)
    assert cell[32, 32].tolist() == [255, 0, 0, 255]


@pytest.mark.parametrize(
    "body",
    ["", '<rect width="24" height="24"/>', '<path d="M0 12h24" stroke="red" stroke-width=".1"/>', "<<not svg", "<g>"],
)
def test_drawings_that_show_nothing_are_left_out(body):
    pytest.importorskip("resvg_py")
    assert render(Icon("mdi", "x", "x", svg(body), mono=True)) is None


def test_render_photograph(tmp_path):
    image = Image.new("RGBA", (40, 20))
    image.paste((0, 128, 0, 255), (10, 5, 30, 15))
    image.save(tmp_path / "a.png")
    cell = render(Icon("tuxpaint-stamps", "a", "a", str(tmp_path / "a.png"), mono=False, raster=True))
    assert cell[32, 32].tolist() == [0, 128, 0, 255]
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:30])
    assert render(Icon("tuxpaint-stamps", "b", "b", str(tmp_path / "b.png"), mono=False, raster=True)) is None


@pytest.mark.parametrize("mono", [True, False])
def test_atlas_round_trip(tmp_path, mono):
    """40 sprites, more than one row, come back through the library as they were, within the loss of WebP."""
    sprites = np.stack([drawing(i, (0, 0, 0) if mono else (40, 90, 200)) for i in range(40)])
    size = write_atlas(tmp_path / "ink.webp", sprites, mono)
    assert size == (tmp_path / "ink.webp").stat().st_size
    with (tmp_path / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow("sprite,source,cell,concept,icon_name,mono,cluster,cut".split(","))
        writer.writerows([i, "ink", i, 0, f"n{i}", int(mono), i, "train"] for i in range(40))
    (tmp_path / "sources.json").write_text(json.dumps({"ink": {"mono": mono, "share_alike": False}}))
    back = load_sprites(tmp_path).rgba(range(40)).numpy()
    assert back.shape == sprites.shape
    gap = np.abs(back[..., 3].astype(int) - sprites[..., 3])
    assert gap.mean() < 3
    solid = (sprites[..., 3] == 255) & (back[..., 3] > 250)
    assert np.abs(back[solid][:, :3].astype(int) - sprites[solid][:, :3]).mean() < 4
    assert (back[sprites[..., 3] == 0][:, 3] < 40).mean() > 0.99


def test_attribution(tmp_path):
    common = {"title": "Set", "author": "Ada", "url": "https://example.org", "package": "p", "version": "1"}
    sources = {
        "a": common | {"licence": "MIT", "share_alike": False},
        "b": common | {"licence": "CC-BY-SA-4.0", "share_alike": True},
    }
    write_attribution(tmp_path, sources)
    assert "Licence: MIT (SPDX)" in (tmp_path / "licences/a.txt").read_text()
    assert "CC-BY-SA-4.0" in (tmp_path / "share-alike/licences/b.txt").read_text()


# ---- fetching --------------------------------------------------------------------------------------------------------


def test_a_missing_client_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(fetch.shutil, "which", lambda name: None)
    with pytest.raises(DataError, match="'npm', which is not installed"):
        fetch.fetch_packages(tmp_path)


def test_a_failing_client_is_quoted(tmp_path):
    with pytest.raises(DataError, match="(?s)failed:.*no such thing"):
        fetch._run(["sh", "-c", "echo no such thing >&2; exit 3"], tmp_path)


def test_what_is_there_is_not_fetched_again(monkeypatch, tmp_path):
    monkeypatch.setattr(fetch, "_run", lambda *_: pytest.fail("fetched"))
    monkeypatch.setattr(fetch, "EMOJI", ["noto"])
    monkeypatch.setattr(fetch, "ICONS", [])
    for folder in ("iconify/noto", "emojibase", "debian/openclipart", "debian/tuxpaint-stamps"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "package.json").write_text("{}")
    assert fetch.fetch_packages(tmp_path) == tmp_path


# ---- the whole -------------------------------------------------------------------------------------------------------

TABLE = """animals; cat; cat, cat face; cat, kitten, cat-head
animals; dog; dog; dog, puppy, dog-head
objects; key; key; key, car-key, old-key
objects; rare thing; rare; rare-thing
"""
EMOJI, ICONS = ["noto", "openmoji"], ["mdi", "tabler", "fa-solid", "fa-regular", "pixel"]


def blocks(seed: int, fill: str = "") -> str:
    on = np.random.default_rng(seed).random((6, 6)) < 0.5
    on[0, :3] = on[5, 3:] = True
    return "".join(f'<rect x="{4 * x}" y="{4 * y}" width="4" height="4" {fill}/>' for y, x in np.argwhere(on).tolist())


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A folder of fabricated packages: 3 concepts x 3 names x 5 sets of random drawings, a photograph, a rare thing."""
    folder = tmp_path / "packages"
    names = ["cat", "kitten", "cat-head", "dog", "puppy", "dog-head", "key", "car-key", "old-key"]
    for s, source in enumerate(EMOJI + ICONS):
        colour = source in EMOJI
        bodies = {n: blocks(100 * s + i, 'fill="#c33"' if colour else "") for i, n in enumerate(names)}
        if source == "fa-regular":  # outline and solid of one family: variants of one drawing, whatever they look like
            bodies = {"cat": blocks(900), "dog": blocks(901), "key": blocks(902)}
        if source == "tabler":
            bodies["cat"] = blocks(200)  # the same drawing as mdi's
            bodies |= {"rare-thing": blocks(700), "cat-filled": blocks(701)}
        write_set(folder / "iconify" / source, bodies, colour, "CC-BY-SA-4.0" if source == "openmoji" else "MIT")
    (folder / "emojibase/en").mkdir(parents=True)
    emoji = [
        {"label": "cat", "emoji": "🐈", "tags": ["pet", "cat"]},
        {"label": "Cat face", "emoji": "🐱", "tags": ["face", "pet"]},
        {"label": "key", "emoji": "🔑"},
    ]
    (folder / "emojibase/en/data.json").write_text(json.dumps(emoji))
    stamps = folder / "debian/tuxpaint-stamps/usr/share/tuxpaint/stamps/animals"
    stamps.mkdir(parents=True)
    photo = np.random.default_rng(3).integers(0, 255, (40, 40, 4), dtype=np.uint8)
    photo[..., 3] = 255 * (np.hypot(*(np.indices((40, 40)) - 20)) < 18)
    Image.fromarray(photo).save(stamps / "dog.png")
    table = tmp_path / "concepts.txt"
    table.write_text(TABLE)
    for name, value in (("TABLE", table), ("EMOJI", EMOJI), ("ICONS", ICONS)):
        monkeypatch.setattr(builder, name, value)
    monkeypatch.setattr(builder, "render_all", lambda icons, workers: [render(i) for i in icons])
    monkeypatch.setattr(builder, "fetch_packages", lambda given: given)
    return folder


TEXT = {
    "name": "cat", "subgroup": "pets", "aliases": ["kitty"], "descriptors": [f"trait {i}" for i in range(6)],
    "sentences": ["A.", "B.", "C."],
}  # fmt: skip


def test_a_whole_build(packages, tmp_path, monkeypatch, capsys):
    pytest.importorskip("resvg_py")
    target = tmp_path / "data"
    target.mkdir()
    (target / "descriptions.jsonl").write_text(json.dumps(TEXT) + "\n")
    builder.main(["--packages", str(packages), "--target", str(target)])
    assert "3 concepts" in capsys.readouterr().out

    monkeypatch.setenv("VLMCOURSE_DATA", str(target))
    concepts, library = load_concepts(), load_sprites()
    assert [(c.name, c.cut) for c in concepts] == [("cat", "seen"), ("dog", "seen"), ("key", "novel")]
    assert concepts[0].emoji == ("🐈", "🐱") and concepts[0].keywords == ("pet", "face")
    assert concepts[0].sentences == ("A.", "B.", "C.") and concepts[0].subgroup == "pets"
    assert concepts[1].descriptors == () and concepts[1].subgroup == "animals"

    assert set(library.sources) == {*EMOJI, *ICONS, "tuxpaint-stamps"}
    assert set(library.cut[library.source == "openmoji"]) == {"style"} == set(library.cut[library.source == "pixel"])
    assert set(library.cut[library.concept == 2]) == {"novel", "style"}
    own = ~np.isin(library.source, ["openmoji", "pixel", "tuxpaint-stamps"])
    assert set(library.cut[own & (library.concept < 2)]) == {"train", "held_out"}
    assert library.sources["openmoji"] | {"author": ""} == {
        "title": "Openmoji", "licence": "CC-BY-SA-4.0", "author": "", "url": "https://example.org", "kind": "emoji",
        "package": "@iconify-json/openmoji", "version": "1.2.3", "mono": False, "share_alike": True,
        "held_out_style": "openmoji",
    }  # fmt: skip
    assert (target / "sprites/share-alike/openmoji.webp").is_file()
    assert (target / "sprites/share-alike/licences/tuxpaint-stamps.txt").is_file()
    assert len(library.select(source="tuxpaint-stamps")) == 1

    rows = {(s, n): i for i, (s, n) in enumerate(zip(library.source.tolist(), library.icon_name.tolist(), strict=True))}
    assert ("tabler", "cat") not in rows  # a duplicate of mdi's
    assert ("tabler", "rare-thing") not in rows
    solid, regular = rows["fa-solid", "dog"], rows["fa-regular", "dog"]
    assert library.cluster[solid] == library.cluster[regular] and library.cut[solid] == library.cut[regular]
    for number, seed in ((rows["mdi", "dog"], 203), (rows["noto", "puppy"], 4)):
        wanted = render(Icon("x", "x", "x", svg(blocks(seed)), mono=True))
        assert np.abs(library.rgba(number)[..., 3].numpy().astype(int) - wanted[..., 3]).mean() < 6

    before = {p: p.read_bytes() for p in target.rglob("*") if p.is_file()}
    builder.main(["--packages", str(packages), "--target", str(target)])
    assert {p: p.read_bytes() for p in target.rglob("*") if p.is_file()} == before  # same packages, same files


def test_texts_only(tmp_path):
    record = {"id": 0, "key": "cat", "name": "cat", "keywords": [], "emoji": [], "group": "animals", "cut": "seen"}
    (tmp_path / "concepts.json").write_text(json.dumps([record | {"subgroup": "old", "sentences": ["old"]}]))
    builder.main(["--texts-only", "--target", str(tmp_path)])
    (empty,) = json.loads((tmp_path / "concepts.json").read_text())
    assert empty == record | {"subgroup": "animals", "aliases": [], "descriptors": [], "sentences": []}
    (tmp_path / "descriptions.jsonl").write_text(json.dumps(TEXT) + "\n" + json.dumps({"name": "unknown"}) + "\n")
    builder.main(["--texts-only", "--target", str(tmp_path)])
    (told,) = json.loads((tmp_path / "concepts.json").read_text())
    assert told == record | {k: v for k, v in TEXT.items() if k != "name"}
    assert re.match(r"\[\n\{.*\}\n\]\n$", (tmp_path / "concepts.json").read_text(), re.S)  # one line per concept
