"""The embedded tasks: what they promise about classes, shots, drawings and cuts, and that their images never change."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from vlmcourse.errors import DataError
from vlmcourse.tasks import get_task, list_tasks
from vlmcourse.tasks.emoji import (
    FAMILIES,
    HONEST,
    STYLE_SHIFTS,
    TEMPLATES,
    VENDOR_STYLES,
    allot,
    artwork,
    build_task,
    classes_of,
    drawings,
    paint,
    scene_split,
)
from vlmcourse.tasks.split import digest
from vlmcourse.world.concepts import load_concepts
from vlmcourse.world.styles import STYLES

SIXTEEN = [name for name, family in FAMILIES.items() if family.clusters == HONEST]
FEW = [name for name in FAMILIES if name not in SIXTEEN]
SMALL = "novel_signs"  # ten classes, 40 validation images


def sprites_of(split) -> np.ndarray:
    """The sprite of each image: the first argument of the function that paints the split."""
    return np.array(split._load.args[0])


def test_allot():
    for n in range(2, 80):
        train, val, test = allot(n)
        assert train + val + test == n and train >= 1 and test >= 1 and val >= (n > 2)
        assert (train, val) == (16, 4) if n >= HONEST else train < 16
    assert allot(26) == (16, 4, 6)
    assert allot(2) == (1, 0, 1)


def test_all_families_are_registered():
    assert set(FAMILIES) <= set(list_tasks())
    assert len(SIXTEEN) >= 10 and len(FEW) >= 3


def test_style_names():
    assert set(STYLE_SHIFTS) <= set(STYLES)
    assert set(VENDOR_STYLES) == {"openmoji", "fxemoji", "freehand", "pixel-art", "clipart", "photo"}


@pytest.mark.parametrize("name", FAMILIES)
def test_classes(name):
    task, family = get_task(name), FAMILIES[name]
    assert task.name == name and task.title == family.title and task.what == family.what
    assert task.templates == TEMPLATES and task.kind == "single-label"
    concepts = [load_concepts().by_name(c) for c in task.class_names]
    assert {c.cut for c in concepts} == {family.cut}
    if family.classes:
        assert task.class_names == family.classes and 10 <= task.num_classes <= 20
    else:
        assert [c.id for c in concepts] == sorted(c.id for c in concepts)
        assert not family.groups or {c.group for c in concepts} == set(family.groups)
        assert task.num_classes >= 35


@pytest.mark.parametrize("name", FAMILIES)
def test_cuts_and_clusters(name):
    """Only artwork that pretraining never saw, of the right concept, and no look-alikes across splits."""
    task, library = get_task(name), artwork()
    ids = [load_concepts().by_name(c).id for c in task.class_names]
    wanted = "novel" if FAMILIES[name].cut == "novel" else "held_out"
    seen: set[int] = set()
    for split in task.splits.values():
        sprites = sprites_of(split)
        assert set(library.cut[sprites].tolist()) == {wanted}
        assert (library.concept[sprites] == np.array(ids)[split.labels.numpy()]).all()
        clusters = set(library.cluster[sprites].tolist())
        assert not clusters & seen
        seen |= clusters


@pytest.mark.parametrize("name", FAMILIES)
def test_train_and_val_show_every_drawing_once(name):
    task, library = get_task(name), artwork()
    for split in (task.train, task.val):
        clusters = library.cluster[sprites_of(split)]
        assert len(set(clusters.tolist())) == len(clusters)
    sprites, times = np.unique(sprites_of(task.test), return_counts=True)
    assert set(times.tolist()) == {2}
    assert np.unique(library.cluster[sprites], return_counts=True)[1].max() <= 2
    assert (task.test.counts >= 2).all()


@pytest.mark.parametrize("name", SIXTEEN)
def test_sixteen_honest_shots(name):
    task, library = get_task(name), artwork()
    assert task.train.counts.tolist() == [16] * task.num_classes
    assert task.val.counts.tolist() == [4] * task.num_classes
    assert (task.test.counts >= 12).all()  # six drawings, twice
    draw = task.few_shot(16, seed=1)
    origin, rows = draw.train.origin
    assert origin is task.train
    clusters = library.cluster[sprites_of(task.train)[rows.numpy()]]
    assert len(set(clusters.tolist())) == 16 * task.num_classes  # distinct drawings
    assert draw.val.counts.tolist() == [4] * task.num_classes
    with pytest.raises(ValueError, match="shots must be at most 16"):
        task.few_shot(17, seed=1)


@pytest.mark.parametrize("name", FEW)
def test_one_shot_tasks_say_so(name):
    task = get_task(name)
    assert "one shot at most" in task.what.lower()
    assert task.few_shot(1, seed=1).train.counts.tolist() == [1] * task.num_classes
    with pytest.raises(ValueError, match="shots must be at most 1 "):
        task.few_shot(2, seed=1)


@pytest.mark.parametrize("name", FAMILIES)
def test_domains(name):
    task, library = get_task(name), artwork()
    assert set(STYLE_SHIFTS) <= set(task.domains) <= {*STYLE_SHIFTS, *VENDOR_STYLES}
    assert "openmoji" in task.domains
    for domain, split in task.domains.items():
        assert set(split.class_names) <= set(task.class_names)
        if domain in STYLE_SHIFTS:  # the test images, changed
            assert (sprites_of(split) == sprites_of(task.test)).all() and split.class_names == task.class_names
            assert torch.equal(split.labels, task.test.labels)
        else:
            sprites = sprites_of(split)
            assert set(library.cut[sprites].tolist()) == {"style"}
            assert {library.sources[s]["held_out_style"] for s in set(library.source[sprites].tolist())} == {domain}
            names = [load_concepts()[c].name for c in library.concept[sprites].tolist()]
            assert names == [split.class_names[label] for label in split.labels.tolist()]
            assert split.num_classes >= max(4, task.num_classes // 2)
            assert (split.counts >= 2).all()


def test_fingerprints_differ_between_splits_and_tasks():
    prints = [s.fingerprint for name in FAMILIES for s in (*get_task(name).splits.values(),)]
    domains = [s.fingerprint for s in get_task(SMALL).domains.values()]
    assert len(set(prints)) == len(prints) and len(set(domains)) == len(domains) == len(set(domains) - set(prints))
    assert build_task(SMALL).fingerprint == get_task(SMALL).fingerprint


def test_a_split_is_shared_by_tasks_with_the_same_class():
    """`world_16` holds the classes of `office`: the same drawings train there, so results do not leak either way."""
    office, world = get_task("office"), get_task("world_16")
    both = set(office.class_names) & set(world.class_names)
    assert both
    for part, split in office.splits.items():
        for name in sorted(both)[:4]:
            mine, theirs = (
                set(sprites_of(s)[s.labels.numpy() == s.class_names.index(name)].tolist())
                for s in (split, world.splits[part])
            )
            assert mine == theirs


def test_drawings_do_not_depend_on_who_asks():
    library = artwork()
    for concept in classes_of(FAMILIES[SMALL])[:2]:
        first = drawings(library, concept, "shared")
        assert first == drawings(library, concept, "shared")
        assert first != drawings(library, concept, "other")


def test_images():
    task = get_task(SMALL)
    images = task.val.images
    assert images.shape == (40, 3, 64, 64) and images.dtype == torch.uint8
    assert (images.flatten(1).float().std(1) > 5).all()  # nothing is blank
    again = build_task(SMALL)
    assert torch.equal(again.val.images, images)
    assert again.val.fingerprint == task.val.fingerprint
    ids, seed = tuple(sprites_of(task.val).tolist()), 2
    assert torch.equal(paint(ids, seed), images)
    assert not torch.equal(paint(ids, seed + 1), images)
    assert (paint(ids[:8], seed, "grey").float().std(1) < 2).all()  # the channels agree
    assert task.few_shot(2, seed=3).train.images.shape == (20, 3, 64, 64)


def test_images_are_equal_in_another_process():
    """In a fresh interpreter, with another hash seed and number of threads."""
    ids = tuple(sprites_of(get_task(SMALL).val)[:6].tolist())
    code = (
        "import torch; torch.set_num_threads(2)\n"
        "from vlmcourse.tasks.emoji import build_task, paint\n"
        "from vlmcourse.tasks.split import digest\n"
        f"images = paint({ids}, 2), paint({ids}, 3, 'sketch')\n"
        f"print(build_task({SMALL!r}).fingerprint, *(digest(x.numpy().tobytes()) for x in images))"
    )
    expected = [digest(x.numpy().tobytes()) for x in (paint(ids, 2), paint(ids, 3, "sketch"))]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [get_task(SMALL).fingerprint, *expected]


@pytest.mark.parametrize("name", ["office", "novel_things"])
def test_base_to_new(name):
    task = get_task(name)
    base, new = task.base_to_new()
    half = -(-task.num_classes // 2)
    assert base.class_names == task.class_names[:half] and new.class_names == task.class_names[half:]
    whole = task.few_shot(4, seed=2).train
    rows = whole.origin[1][whole.labels < half]
    assert torch.equal(base.few_shot(4, seed=2).train.origin[1], rows)  # the same drawings as in the full draw
    assert set(base.domains) == set(task.domains)
    assert base.test.num_classes == half and int(new.test.labels.max()) == new.num_classes - 1
    for domain, split in new.domains.items():
        assert set(split.class_names) <= set(new.class_names), domain


@pytest.mark.parametrize("name", FAMILIES)
def test_cards(name):
    task = get_task(name)
    card = task.card
    assert f"(`{name}`)" in card and task.what in card and "data/sprites/licences" in card
    assert f"| train | {len(task.train)} |" in card and "| domain: openmoji |" in card
    used = {artwork().sources[s]["licence"] for s in set(artwork().source.tolist())}
    for licence in used:  # every kind of licence is named
        assert licence.rsplit("-", 1)[0] in task.licence, licence


def test_wrong_names():
    with pytest.raises(ValueError, match="did you mean 'office'"):
        get_task("offce")
    with pytest.raises(KeyError):
        build_task("offce")
    with pytest.raises(ValueError, match="style"):
        paint((0,), 1, "cubist")


def test_missing_artwork(tmp_path, monkeypatch):
    monkeypatch.setenv("VLMCOURSE_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"sources\.json cannot be read"):
        build_task(SMALL)


def test_a_missing_atlas_names_itself(tmp_path, monkeypatch):
    library = artwork()
    (tmp_path / "sprites").mkdir()
    for name in ("index.csv", "sources.json"):
        (tmp_path / "sprites" / name).write_bytes((library.folder / name).read_bytes())
    monkeypatch.setenv("VLMCOURSE_DATA", str(tmp_path))
    split = scene_split([0, 1], [0, 1], ["cake", "coffee"], "x", 1)
    with pytest.raises(DataError, match=rf"{library.source[0]}\.webp is missing"):
        _ = split.images
