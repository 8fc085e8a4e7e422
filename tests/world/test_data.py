"""The shipped artwork and texts: the cuts are disjoint and honest, every source is attributed, every concept told."""

import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from vlmcourse.paths import data_dir
from vlmcourse.tasks.emoji import artwork
from vlmcourse.world.build import TABLE, read_descriptions, write_concepts
from vlmcourse.world.build.cluster import DUPLICATE, LOOK_ALIKE, thumbnails
from vlmcourse.world.build.cuts import TRAIN_CAP, held_out_clusters
from vlmcourse.world.build.match import base_name, read_entries
from vlmcourse.world.build.sources import DEBIAN, EMOJI, FAMILIES, FAMILY_OF, HELD_OUT_STYLES, ICONS, SHARE_ALIKE
from vlmcourse.world.concepts import load_concepts
from vlmcourse.world.sprites import CELL, PER_ROW

GROUPS = {
    "animals", "plants", "food", "transport", "buildings", "sky", "clothing", "objects", "symbols", "faces", "people",
    "hands and body",
}  # fmt: skip
FREE = {"MIT", "ISC", "Apache-2.0", "CC-BY-3.0", "CC-BY-4.0", "CC0-1.0", "OFL-1.1", "Unlicense"}  # SPDX identifiers
COPYLEFT = {"CC-BY-SA-4.0", "GPL-2.0-only"}


@pytest.fixture(scope="module")
def library():
    return artwork()


@pytest.fixture(scope="module")
def concepts():
    return load_concepts()


def count(library, cut: str) -> Counter:
    return Counter(library.concept[library.cut == cut].tolist())


# ---- the cuts --------------------------------------------------------------------------------------------------------


def test_no_cluster_spans_two_cuts(library):
    cuts = defaultdict(set)
    for cluster, cut in zip(library.cluster.tolist(), library.cut.tolist(), strict=True):
        cuts[cluster].add(cut)
    assert {c: found for c, found in cuts.items() if len(found) > 1} == {}


def test_clusters_belong_to_one_concept(library):
    assert (library.cluster // 1000 == library.concept).all()
    own = library.cut != "style"
    assert (library.cluster[own] % 1000 < 500).all()
    assert (library.cluster[~own] % 1000 >= 500).all()


def test_variants_of_one_drawing_are_on_one_side(library):
    """Same concept, same design family, same name without size and fill: never in train and held_out."""
    cuts = defaultdict(set)
    columns = (library.source, library.icon_name, library.concept, library.cut)
    for source, name, concept, cut in zip(*(c.tolist() for c in columns), strict=True):
        if cut in ("train", "held_out"):
            cuts[concept, FAMILY_OF.get(source, source), base_name(name)].add(cut)
    assert {key: found for key, found in cuts.items() if len(found) > 1} == {}


def test_held_out_drawings_look_unlike_training_drawings(library, concepts):
    """Measured again on the shipped pixels, every eighth concept; compression moves correlations by about 0.005."""
    for concept in concepts.where(cut="seen")[::8]:
        sides = [library.select(cut=cut, concept=concept.id) for cut in ("train", "held_out")]
        train, held = (thumbnails(library.rgba(ids).numpy()) for ids in sides)
        assert np.abs(train @ held.T).max() < LOOK_ALIKE + 0.01, concept.name


def test_a_concept_has_no_near_duplicates(library, concepts):
    for concept in concepts[::30]:
        small = thumbnails(library.rgba(library.select(concept=concept.id)).numpy())
        assert np.abs(np.triu(small @ small.T, 1)).max() < DUPLICATE + 0.005, concept.name


def test_held_out_styles_are_in_no_other_cut(library):
    style = library.cut == "style"
    assert set(library.source[style].tolist()) <= set(HELD_OUT_STYLES)
    assert not set(library.source[~style].tolist()) & set(HELD_OUT_STYLES)


def test_no_design_family_is_half_held_out():
    """A style is unseen only if its sisters are unseen too."""
    for sources in map(str.split, FAMILIES.values()):
        assert set(sources) <= set(HELD_OUT_STYLES) or not set(sources) & set(HELD_OUT_STYLES)


def test_novel_concepts_are_never_in_pretraining(library, concepts):
    novel = {c.id for c in concepts.where(cut="novel")}
    assert set(count(library, "novel")) == novel
    for cut in ("train", "held_out"):
        assert not novel & set(count(library, cut))


def test_every_seen_concept_trains_and_holds_out(library, concepts):
    train, held = count(library, "train"), count(library, "held_out")
    for concept in concepts.where(cut="seen"):
        clusters = library.cluster[library.select(cut="held_out", concept=concept.id)]
        assert held[concept.id] >= 2 and len(set(clusters.tolist())) >= 2
        assert max(Counter(clusters.tolist()).values()) <= 2  # two drawings of one look-alike cluster are enough
        assert 4 <= train[concept.id] <= TRAIN_CAP
        assert len(set(clusters.tolist())) in {held_out_clusters(n) for n in range(6, 200)}


def test_about_an_eighth_of_the_concepts_is_novel(concepts):
    assert 0.10 <= len(concepts.where(cut="novel")) / len(concepts) <= 0.15
    groups = {c.group for c in concepts.where(cut="novel")}
    assert len(groups) >= 8  # not one corner of the world


def test_sprites_have_the_concepts_of_the_table(library, concepts):
    assert set(library.concept.tolist()) == set(range(len(concepts)))
    assert len(library) > 25_000


# ---- files and licences ----------------------------------------------------------------------------------------------


def test_atlases_and_sources_are_the_same_set(library):
    atlases = {p.stem for p in library.folder.rglob("*.webp")}
    assert atlases == set(library.sources) == set(library.source.tolist())
    assert all(library.path(source).is_file() for source in library.sources)


def test_every_cell_is_used_once(library):
    for source in library.sources:
        cells = library.cell[library.source == source]
        assert sorted(cells.tolist()) == list(range(len(cells)))


def test_no_sprite_is_empty(library):
    for source in ("noto", "mdi", "openmoji", "tuxpaint-stamps"):
        alpha = library.rgba(library.select(source=source))[..., 3]
        assert alpha.shape[1:] == (CELL, CELL)
        assert ((alpha > 40).flatten(1).sum(1) >= 40).all()
    assert PER_ROW == 32


def test_mono_is_a_property_of_the_source(library):
    for source, record in library.sources.items():
        assert set(library.mono[library.source == source].tolist()) == {record["mono"]}


def test_records_of_sources(library):
    for source, record in library.sources.items():
        assert record["licence"] in FREE | COPYLEFT, source
        assert record["share_alike"] == (record["licence"] in COPYLEFT) == (source in SHARE_ALIKE)
        assert record["held_out_style"] == HELD_OUT_STYLES.get(source)
        assert record["kind"] == ("emoji" if source in EMOJI else "clipart" if source in DEBIAN else "icon")
        assert all(record[field].strip() for field in ("title", "author", "url", "package", "version"))
        assert record["url"].startswith("http")
    assert {library.sources[s]["licence"] for s in SHARE_ALIKE} == set(SHARE_ALIKE.values())


def test_every_source_has_its_attribution(library):
    written = set()
    for source, record in library.sources.items():
        file = library.folder / ("share-alike" if record["share_alike"] else "") / "licences" / f"{source}.txt"
        text = file.read_text(encoding="utf-8")
        assert all(record[field] in text for field in ("title", "author", "licence", "url", "package", "version"))
        assert "Changes:" in text  # CC-BY asks for it
        written.add(file)
    assert set(library.folder.rglob("licences/*")) == written


def test_share_alike_art_is_apart_and_never_trains(library):
    share_alike = {s for s, record in library.sources.items() if record["share_alike"]}
    assert {p.stem for p in (library.folder / "share-alike").glob("*.webp")} == share_alike == set(SHARE_ALIKE)
    for source in share_alike:
        assert set(library.cut[library.source == source].tolist()) == {"style"}


def test_names_of_sources_in_the_builder(library):
    """The builder reads what the data was built from (a few sets gave no drawing)."""
    names = [*EMOJI, *ICONS, *DEBIAN]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in names)
    assert set(library.sources) <= set(names)
    assert len(set(names) - set(library.sources)) <= 5
    assert set(FAMILY_OF) | set(HELD_OUT_STYLES) <= set(names)


# ---- texts -----------------------------------------------------------------------------------------------------------


def test_names_and_keys_are_unique(concepts):
    for field in ("name", "key"):
        assert max(Counter(getattr(c, field) for c in concepts).values()) == 1
    assert all(c.key.isidentifier() and c.key == re.sub(r"[ -]", "_", c.name) for c in concepts)
    assert all(c.name == c.name.lower().strip() for c in concepts)


def test_groups_and_subgroups(concepts):
    assert {c.group for c in concepts} == GROUPS
    groups_of = defaultdict(set)
    for c in concepts:
        groups_of[c.subgroup].add(c.group)
    assert all(len(groups) == 1 for groups in groups_of.values())
    assert not set(groups_of) & GROUPS  # a subgroup says more than its group
    assert 50 <= len(groups_of) <= 120


def test_every_concept_is_described(concepts):
    for c in concepts:
        assert c.cut in ("seen", "novel")
        assert len(c.descriptors) >= 6 and len(c.sentences) == 3, c.name
        for texts in (c.descriptors, c.sentences, c.aliases, c.keywords, c.emoji):
            assert len(set(texts)) == len(texts), c.name
            assert all(text and text == text.strip() for text in texts), c.name
        assert all(s[0].isupper() and s.endswith(".") for s in c.sentences), c.name
        assert all(len(d) < 60 and not d.endswith(".") for d in c.descriptors), c.name


def test_the_concepts_follow_the_table(concepts):
    entries = read_entries(TABLE)
    place = {entry.name: i for i, entry in enumerate(entries)}
    assert len(place) == len(entries)
    order = [place[c.name] for c in concepts]
    assert order == sorted(order)
    assert all(entries[place[c.name]].group == c.group for c in concepts)


def test_the_table_is_unambiguous():
    entries = read_entries(TABLE)
    for words in ([x for e in entries for x in e.labels if x], [x for e in entries for x in e.icons if x]):
        assert [w for w, n in Counter(words).items() if n > 1] == []
    assert {e.group for e in entries} == GROUPS


def test_concepts_json_is_what_the_texts_give(tmp_path, concepts):
    """Joining descriptions.jsonl again changes not one byte."""
    shipped = data_dir() / "concepts.json"
    Path(tmp_path / "descriptions.jsonl").write_bytes((data_dir() / "descriptions.jsonl").read_bytes())
    write_concepts(json.loads(shipped.read_text(encoding="utf-8")), tmp_path)
    assert (tmp_path / "concepts.json").read_bytes() == shipped.read_bytes()
    assert set(read_descriptions(data_dir() / "descriptions.jsonl")) == {c.name for c in concepts}
