"""Figures and explorer of the Tip-Adapter notebook, on a cache of random numbers; sliders are moved from code."""

import matplotlib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from vlmcourse.methods.adapters.tip_adapter import TipAdapter, TipAdapterF
from vlmcourse.show import tip_adapter as show
from vlmcourse.tasks.base import Split

NAMES = ("dog", "red_fox", "car", "house")


@pytest.fixture(autouse=True)
def no_windows(tmp_path, monkeypatch):
    matplotlib.use("agg")
    monkeypatch.setenv("VLMCOURSE_CACHE", str(tmp_path))
    yield
    matplotlib.pyplot.close("all")


def split(per_class, seed):
    draw = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (4 * per_class, 3, 32, 32), generator=draw, dtype=torch.uint8)
    return Split(images, torch.arange(4).repeat_interleave(per_class), NAMES, ("a {}",), f"split {seed}")


@pytest.fixture
def cache():
    draw = torch.Generator().manual_seed(0)
    keys, f, text = (F.normalize(torch.randn(n, 8, generator=draw), dim=-1) for n in (12, 10, 4))
    values = F.one_hot(torch.arange(12) % 4, 4).float()
    images = torch.randint(0, 256, (22, 3, 16, 16), generator=draw, dtype=torch.uint8)
    labels = torch.arange(10) % 3  # one class has no query
    return show.Cache(20 * f @ text.T, f @ keys.T, values, labels, images[:10], images[10:], NAMES, 2.0, 5.0)


@pytest.mark.parametrize("cls", [TipAdapter, TipAdapterF])
def test_a_cache_has_the_logits_of_the_method(vit_backbone, cls):
    train, test = split(3, 1), split(2, 2)
    method = cls(vit_backbone, augment_epochs=0).fit(train)
    cache = show.Cache.of(method, train, test)
    torch.testing.assert_close(cache.logits(), method.logits(test), atol=1e-4, rtol=0)
    assert cache.accuracy() == method.score(test)
    assert cache.logits(alpha=0.0).equal(cache.zero_shot)
    assert not cache.affinity.requires_grad


def test_all_figures_have_labels(cache):
    betas, alphas = np.linspace(0.1, 5, 6), np.linspace(0, 3, 4)
    accuracy = np.random.default_rng(0).random((6, 4))
    after, keys = cache._replace(affinity=cache.affinity + 0.1), torch.ones(12, 8)
    for figure, axes in (
        (show.votes(cache, 0), 10),
        (show.votes(cache, 3, alpha=0.0, beta=1e4, classes=3), 10),
        (show.matrices(cache, [0, 4, 9]), 8),
        (show.weight_curves(cache, (0.5, 5, 50)), 2),
        (show.search_maps({"validation": accuracy, "test": 1 - accuracy}, betas, alphas, (0.1, 1.0)), 3),
        (show.affinity_matrix(cache), 4),
        (show.key_motion(cache, after, keys), 3),
        (show.key_motion(cache, cache, keys), 3),
    ):
        assert isinstance(figure, Figure) and len(figure.axes) == axes
        figure.canvas.draw()


def test_the_true_class_is_always_among_the_bars(cache):
    worst = cache.logits().argmin(1)
    i = int((worst == cache.labels).nonzero()[0]) if (worst == cache.labels).any() else 0
    figure = show.votes(cache, i, classes=2)
    assert NAMES[int(cache.labels[i])] in [t.get_text() for t in figure.axes[7].get_yticklabels()]


def test_key_motion_shows_the_change(cache):
    own = cache.values.argmax(1) == cache.labels[:, None]  # the nearer, the class's own keys; one class has no query
    moved, keys = cache._replace(affinity=cache.affinity + 0.5 * own), torch.eye(12)
    shown = show.key_motion(cache, moved, keys).axes[0].images[0].get_array()
    np.testing.assert_allclose(shown[:3], 0.5 * np.eye(4)[:3], atol=1e-6)
    alike, change = show.loudness(cache, moved, keys)
    torch.testing.assert_close(alike, torch.full((4,), 1 / 3))  # three orthogonal keys in each class
    torch.testing.assert_close(change, torch.tensor([0.125, 0.125, 0.125, 0.0]))


def test_the_explorer_follows_its_sliders(cache):
    box = show.explorer(cache, val=cache)
    (image, alpha, beta), text, picture = box.controls.values(), box.message, box.picture
    assert f"validation {100 * cache.accuracy(2.0, beta.value):.1f} %" in text.value
    before = picture.value
    alpha.value = 0.0
    assert f"test {100 * cache.accuracy(0.0):.1f} %" in text.value and picture.value != before
    before = picture.value
    image.value = 5
    assert picture.value != before and bytes(picture.value).startswith(b"\x89PNG")
    alpha.value, beta.value = 3.0, 50.0
    right = cache.logits(3.0, beta.value)[5].argmax() == cache.labels[5]
    assert ("right" if right else "wrong") in text.value
    assert not matplotlib.pyplot.get_fignums(), "the explorer closes its figures"
    assert show.explorer(cache._replace(alpha=99.0, beta=0.0)).picture.value, "starts inside its sliders"
