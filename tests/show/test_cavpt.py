"""Figures and explorer of 22_cavpt: they draw what they are given, and the explorer follows its controls."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch

from vlmcourse.methods.text_visual_prompts.cavpt import CAVPT, ClassAware
from vlmcourse.show import cavpt
from vlmcourse.tasks.base import Split


@pytest.fixture(autouse=True)
def close_figures(tmp_path, monkeypatch):
    monkeypatch.setenv("VLMCOURSE_CACHE", str(tmp_path))
    yield
    plt.close("all")


def test_the_scheme_has_every_block_and_the_class_texts_above_the_last():
    texts = [t.get_text() for t in cavpt.scheme_figure(layers=3).axes[0].texts]
    assert {"block 1", "block 2", "block 3"} <= set(texts) and texts.count("M learned") == 2
    assert any("class-aware prompts" in text for text in texts)


def test_attention_is_drawn_for_the_likeliest_candidates():
    shares = torch.full((1, 2, 3, 1 + 9 + 2), 1 / 12)
    shares[0, 1, 0, 1 + 4] = 0.5  # second image, first candidate, the middle
    look = ClassAware(torch.tensor([[0, 1, 2], [2, 0, 1]]), shares, torch.zeros(1, 2, 3, 8), torch.zeros(1, 2, 3, 3), 2)
    figure = cavpt.attention_figure(torch.zeros(2, 3, 6, 6, dtype=torch.uint8), look, ["a", "b", "c"], [1, 2], shown=2)
    titles = [axis.get_title() for axis in figure.axes[:6]]
    assert titles == ["image", "a", "→ b", "", "→ c", "a"]
    heat = figure.axes[4].images[1].get_array()
    assert heat[1, 1] == pytest.approx(6.0) and heat[0, 0] == pytest.approx(1.0)


def test_explorer_follows_its_controls(vit_backbone, images):
    split = Split(images, [0, 1, 0, 1, 0], ("cat", "dog"))
    method = CAVPT(vit_backbone, n_ctx=2, n_ctx_vision=2, epochs=2, warmup_epochs=0, lr=0.2).fit(split)
    box = cavpt.explorer(method, split)
    seen = {box.picture.value}
    for name, value in (("image", 1), ("candidates", 1)):
        box.controls[name].value = value
        seen.add(box.picture.value)
    assert len(seen) == 3 and "attention on CLS" in box.message.value and "right: dog" in box.message.value
