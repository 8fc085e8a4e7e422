"""Figures and explorer of 10_plot: they draw what they are given, and the explorer follows its controls."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch

from vlmcourse.methods.text_prompts.plot import PLOT
from vlmcourse.show import plot
from vlmcourse.tasks.base import Split


@pytest.fixture(autouse=True)
def close_figures(tmp_path, monkeypatch):
    monkeypatch.setenv("VLMCOURSE_CACHE", str(tmp_path))
    yield
    plt.close("all")


def test_the_method_has_a_box_per_prompt():
    texts = [t.get_text() for t in plot.method_figure(n_prompts=3).axes[0].texts]
    assert {"$G_1$", "$G_3$"} <= set(texts) and "$G_4$" not in texts


def test_small_plans_stand_beside_their_cost():
    figure = plot.small_plans_figure({"eps 1": torch.full((3, 2), 1 / 6)}, torch.rand(3, 2))
    assert [axis.get_title() for axis in figure.axes] == ["cost C", "eps 1"]
    assert [t.get_text() for t in figure.axes[1].texts] == ["0.17"] * 6


def test_shares_of_an_even_plan_are_one():
    assert torch.allclose(plot.shares(torch.full((2, 9, 4), 1 / 36)), torch.ones(2, 9, 4))


def test_plans_lie_on_their_images_in_rows_and_columns():
    plans = torch.zeros(2, 9, 3)
    plans[1, 5, 2] = 1 / 3  # second image, third prompt: all on row 1, column 2
    images = torch.zeros(2, 3, 12, 12, dtype=torch.uint8)
    figure = plot.plans_figure(images, plans, ["cat", "dog"])
    axes = figure.axes
    assert [axis.get_title() for axis in axes[:4]] == ["image", "prompt 1", "prompt 2", "prompt 3"]
    assert axes[4].get_ylabel() == "dog"
    heat = axes[7].images[1]
    assert heat.get_array()[1, 2] == 9 and heat.get_array().sum() == 9 and heat.get_clim() == (0, 9)
    with pytest.raises(ValueError, match="square grid"):
        plot.plans_figure(images, torch.rand(2, 8, 3), ["cat", "dog"])


def test_explorer_follows_its_controls(vit_backbone, images):
    split = Split(images, [0, 1, 0, 1, 0], ("cat", "dog"))
    method = PLOT(vit_backbone, n_prompts=2, n_ctx=2, epochs=2, lr=0.3).fit(split)
    box = plot.explorer(method, split)
    seen, before = {box.picture.value}, method.eps
    assert "image of 'cat'; score of 'cat'" in box.message.value
    for name, value in (("image", 1), ("class", "cat"), ("eps", 0.01)):
        box.controls[name].value = value
        seen.add(box.picture.value)
    assert len(seen) == 4 and method.eps == before
    assert "image of 'dog'; score of 'cat'" in box.message.value
