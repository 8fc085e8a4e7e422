"""Figures and explorer of 28_vt_clip: they draw what they are given, and the explorer follows its controls."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest

from vlmcourse.methods.other_methods.vt_clip import VTCLIP
from vlmcourse.show import vt_clip
from vlmcourse.tasks.base import Split


@pytest.fixture(autouse=True)
def close_figures(tmp_path, monkeypatch):
    monkeypatch.setenv("VLMCOURSE_CACHE", str(tmp_path))
    yield
    plt.close("all")


def test_the_scheme_has_queries_keys_and_the_residual():
    texts = " ".join(t.get_text() for t in vt_clip.scheme_figure().axes[0].texts)
    assert "class texts" in texts and "positions" in texts and "residual" in texts


def test_explorer_follows_its_controls(vit_backbone, images):
    split = Split(images, [0, 1, 0, 1, 0], ("cat", "dog"))
    method = VTCLIP(vit_backbone, n_heads=2, epochs=3, lr=0.05).fit(split)
    box = vt_clip.explorer(method, split)
    seen = {box.picture.value}
    for name, value in (("image", 1), ("class", "cat"), ("head", 2)):
        box.controls[name].value = value
        seen.add(box.picture.value)
    assert len(seen) == 4 and "the text has moved by" in box.message.value
