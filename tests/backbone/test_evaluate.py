"""`vlmcourse backbone evaluate`: the arithmetic of its figures, all of them on a small library, and the command."""

import copy
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vlmcourse.backbone import evaluate as module
from vlmcourse.paths import data_dir
from vlmcourse.tasks.emoji import artwork
from vlmcourse.world.styles import STYLES

KEYS = {
    "top1", "top5", "top1_by_similarity", "twenty_way", "styles", "novel_twenty_way", "fashion_mnist", "dense_ab",
    "pointing", "images_per_second", "size_mb", "classes", "threads",
}  # fmt: skip
HELD_OUT = {"openmoji", "fxemoji", "freehand", "pixel-art", "clipart", "photo"}
SOURCES = ["noto", "streamline-freehand", "pixel", "openclipart", "tuxpaint-stamps", "fxemoji", "openmoji"]


@pytest.fixture(scope="module")
def small_library():
    """The sprites of a few sources only."""
    library = copy.copy(artwork())
    rows = np.isin(library.source, SOURCES)
    for column in ("source", "cell", "concept", "icon_name", "mono", "cluster", "cut"):
        setattr(library, column, getattr(library, column)[rows])
    return library


def rng():
    return np.random.default_rng(0)


def test_n_way_perfect_and_chance(monkeypatch):
    monkeypatch.setattr(module, "DRAWS", 40)
    labels = torch.arange(30).repeat(20)
    perfect = torch.nn.functional.one_hot(labels, 50).float()
    assert module.n_way(perfect, labels, 20, rng()) == 1
    assert module.n_way(-perfect, labels, 20, rng()) == 0
    noise = torch.rand(600, 50, generator=torch.Generator().manual_seed(0))
    assert module.n_way(noise, labels, 20, rng()) == pytest.approx(1 / 20, abs=0.02)
    assert module.n_way(noise, labels, 2, rng()) == pytest.approx(1 / 2, abs=0.06)


def test_n_way_by_hand(monkeypatch):
    """Three classes in columns 4, 1, 2; column 0 is no class here, so its high scores must not count."""
    monkeypatch.setattr(module, "DRAWS", 5)
    labels = torch.tensor([4, 1, 2, 2])
    logits = torch.tensor([[9, 0, 1, 0, 2], [9, 3, 1, 0, 2], [9, 3, 1, 0, 2], [9, 0, 5, 0, 2]]).float()
    assert module.n_way(logits, labels, 3, rng()) == 0.75
    assert np.isnan(module.n_way(logits, labels, 4, rng()))  # too few classes to choose from


def test_pick():
    concept = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2])
    ids = np.array([0, 1, 2, 3, 4, 6, 7, 8])
    chosen = module.pick(ids, concept, 2, rng())
    assert chosen.tolist() == sorted(chosen) and set(chosen) <= set(ids)
    assert np.bincount(concept[chosen]).tolist() == [2, 1, 2]
    assert module.pick(ids, concept, 10, rng()).tolist() == ids.tolist()
    draws = {tuple(module.pick(ids, concept, 1, np.random.default_rng(s))) for s in range(30)}
    assert len(draws) > 5


def test_name_features(vit_backbone):
    text = module.name_features(vit_backbone, ["cat", "owl"])
    torch.testing.assert_close(text.norm(dim=1), torch.ones(2))
    each = vit_backbone.encode_text([f.format("owl").replace("a owl", "an owl") for f in module.FRAMES])
    torch.testing.assert_close(text[1], torch.nn.functional.normalize(each.mean(0), dim=0))


def test_scenes_in_style(small_library, monkeypatch):
    monkeypatch.setattr(module, "artwork", lambda: small_library)
    ids = small_library.select(cut="held_out")[:4]
    plain, grey = module.scenes(ids, 3), module.scenes(ids, 3, "grey")
    assert plain.shape == grey.shape == (4, 3, 64, 64) and plain.dtype == torch.uint8
    assert not torch.equal(plain, grey) and grey.float().std(1).max() < plain.float().std(1).max()


def test_similarity_to_training(small_library, monkeypatch):
    monkeypatch.setattr(module, "artwork", lambda: small_library)
    train = small_library.select(cut="train")[:3]
    np.testing.assert_allclose(module.similarity_to_training(train), 1, atol=1e-4)
    held = module.similarity_to_training(small_library.select(cut="held_out")[:20])
    assert held.shape == (20,) and (held < 0.99).all() and (held > 0).all()


def test_all_figures(small_library, vit_backbone, monkeypatch, tmp_path, capsys):
    """A backbone that knows nothing, on a few sprites: every figure is there, finite, and at chance."""
    from vlmcourse.tasks.registry import get_task

    fashion = get_task("fashion_mnist")
    few = SimpleNamespace(
        class_names=fashion.class_names, templates=fashion.templates, test=fashion.test.subset(range(30))
    )
    monkeypatch.setattr("vlmcourse.tasks.registry.get_task", lambda name: few)
    monkeypatch.setattr("vlmcourse.backbone.load.load_backbone", lambda: vit_backbone)
    monkeypatch.setattr(module, "artwork", lambda: small_library)
    for name, value in {"PER_CONCEPT": 1, "PER_STYLE": 12, "PAIRS": 12, "DRAWS": 4}.items():
        monkeypatch.setattr(module, name, value)
    module.main(["--json", "--out", str(tmp_path / "figures.json")])
    printed = capsys.readouterr().out
    result = json.loads(printed, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert json.loads((tmp_path / "figures.json").read_text()) == result
    assert set(result) == KEYS
    assert set(result["twenty_way"]) == {*module.GROUPS, "mean"}
    assert set(result["top1_by_similarity"]) == {name for _, _, name in module.BINS}
    assert set(result["styles"]) == {*STYLES, *HELD_OUT}
    shares = [result[k] for k in ("top1", "top5", "novel_twenty_way", "fashion_mnist", "dense_ab", "pointing")]
    shares += [*result["twenty_way"].values(), *result["top1_by_similarity"].values(), *result["styles"].values()]
    assert all(share is None or 0 <= share <= 1 for share in shares)
    assert result["top1"] < 0.05 and result["top5"] < 0.1 and 0.2 < result["dense_ab"] < 0.8
    assert result["classes"] > 600 and result["images_per_second"] > 0


def test_figures_that_cannot_be_computed_are_null():
    assert module._rounded({"a": float("nan"), "b": {"c": 0.123456}, "d": 3, "e": None}) == {
        "a": None, "b": {"c": 0.1235}, "d": 3, "e": None,
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(
    not (data_dir() / "emojiclip" / "weights.safetensors").is_file(),
    reason="data/emojiclip/weights.safetensors has not been trained yet",
)
def test_the_shipped_backbone(capsys):
    module.main(["--json"])
    result = json.loads(capsys.readouterr().out)
    assert set(result) == KEYS
    assert result["top1"] > 0.4 and result["top5"] > result["top1"]
    assert result["twenty_way"]["mean"] > 0.6 and result["novel_twenty_way"] > 0.08
    assert result["dense_ab"] > 0.55 and result["fashion_mnist"] > 0.15
    by = result["top1_by_similarity"]
    assert by["below 0.5"] < by["above 0.7"]  # the less a drawing resembles training, the harder
    assert result["size_mb"] <= 16
