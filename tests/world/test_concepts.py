"""The concept table as an object: look-ups, the tree, and what it says about a missing or damaged file."""

import json

import pytest

from vlmcourse.errors import DataError
from vlmcourse.paths import data_dir
from vlmcourse.world.concepts import load_concepts


@pytest.fixture(scope="module")
def concepts():
    return load_concepts()


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A data folder of its own that holds the first three concepts; returns its concepts.json."""
    records = json.loads((data_dir() / "concepts.json").read_text(encoding="utf-8"))[:3]
    path = tmp_path / "concepts.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    monkeypatch.setenv("VLMCOURSE_DATA", str(tmp_path))
    return path


def test_behaves_like_a_list_in_the_order_of_ids(concepts):
    assert len(concepts) == len(list(concepts)) > 700
    assert [c.id for c in concepts] == list(range(len(concepts)))
    assert concepts[3].id == 3 and concepts[-1] is list(concepts)[-1]
    assert [c.id for c in concepts[2:5]] == [2, 3, 4]
    assert concepts[7] in concepts
    assert load_concepts() is concepts  # read once


def test_a_concept_cannot_be_changed(concepts):
    with pytest.raises(AttributeError):
        concepts[0].name = "other"
    assert isinstance(concepts[0].descriptors, tuple)
    assert concepts[0].path == (concepts[0].group, concepts[0].subgroup, concepts[0].name)


def test_by_name(concepts):
    assert concepts.by_name("coffee").name == "coffee"
    with pytest.raises(ValueError, match="'cofee' is not a concept.*coffee"):
        concepts.by_name("cofee")
    with pytest.raises(ValueError, match="'qqqq' is not a concept"):
        concepts.by_name("qqqq")


def test_where(concepts):
    assert concepts.where() == list(concepts)
    animals = concepts.where(group="animals")
    assert animals and {c.group for c in animals} == {"animals"}
    assert {c.cut for c in concepts.where(group="objects", cut="novel")} == {"novel"}
    subgroup = animals[0].subgroup
    assert concepts.where(subgroup=subgroup) == [c for c in animals if c.subgroup == subgroup]
    assert concepts.where(group="nowhere") == []


def test_the_tree_holds_every_concept_once(concepts):
    tree = concepts.tree()
    assert sorted(n for subgroups in tree.values() for names in subgroups.values() for n in names) == sorted(
        c.name for c in concepts
    )
    assert all(c.name in tree[c.group][c.subgroup] for c in concepts)


def test_another_folder(copy, concepts):
    assert list(load_concepts()) == list(concepts[:3])


def test_missing_file(copy):
    copy.unlink()
    with pytest.raises(DataError, match=r"concepts\.json cannot be read.*git checkout"):
        load_concepts()


def edit(records):
    del records[1]["descriptors"]


def renumber(records):
    records[2]["id"] = 7


def null(records):
    records[0]["aliases"] = None


@pytest.mark.parametrize("change", [edit, renumber, null, lambda records: records.pop(0)])
def test_records_that_do_not_fit(copy, change):
    records = json.loads(copy.read_text(encoding="utf-8"))
    change(records)
    copy.write_text(json.dumps(records), encoding="utf-8")
    with pytest.raises(DataError, match=r"concepts\.json is damaged.*git checkout"):
        load_concepts()


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b'{"a": 1}', b"\xff\xfe", None])
def test_truncated_or_foreign_content(copy, content):
    copy.write_bytes(copy.read_bytes()[:1000] if content is None else content)
    with pytest.raises(DataError, match=r"concepts\.json is damaged"):
        load_concepts()


@pytest.mark.parametrize("content", [b"[]", b"{}"])
def test_an_empty_table_is_damaged_too(copy, content):
    copy.write_bytes(content)
    with pytest.raises(DataError, match=r"concepts\.json is damaged"):
        load_concepts()
