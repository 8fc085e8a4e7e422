"""Figures and explorer of 18_reprompt: they draw what they are given."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.colors import to_hex

from vlmcourse.show import reprompt


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def pictures(n, seed=0):
    return torch.randint(0, 256, (n, 3, 8, 8), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_the_stages_are_named():
    texts = {t.get_text() for t in reprompt.stages_figure().axes[0].texts}
    assert {"1: prompts", "2: loss weight", "answer $p$"} <= texts


def test_neighbours_have_frames_by_class():
    figure = reprompt.neighbours_figure(
        pictures(1)[0], 1, pictures(3, 1), torch.tensor([1, 0, 1]), torch.tensor([0.5, 0.3, 0.2]),
        torch.tensor([0.3, 0.7]), ["cat", "dog"],
    )  # fmt: skip
    frames = [to_hex(axis.spines["left"].get_edgecolor()).upper() for axis in figure.axes[1:4]]
    assert frames == [reprompt.RIGHT, reprompt.WRONG, reprompt.RIGHT]
    assert figure.axes[1].get_title() == "w = 0.50"
    assert [bar.get_height() for bar in figure.axes[-1].patches] == pytest.approx([0.3, 0.7])


def test_prompts_are_ordered_by_class():
    shifts, labels = torch.eye(3)[[0, 1, 0]], torch.tensor([0, 1, 0])
    image = reprompt.prompts_figure(shifts, labels, ["a", "b"]).axes[0].get_images()[0].get_array()
    assert image.tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]


def test_surprise_is_sorted_and_the_weight_clamped():
    figure = reprompt.surprise_figure({"a": torch.tensor([0.9, 0.1])}, beta=0.5, clamp=4.6)
    assert figure.axes[0].get_lines()[0].get_ydata() == pytest.approx([0.1, 0.9])
    weight = figure.axes[1].get_lines()[0].get_ydata()
    assert weight[0] == pytest.approx(1 + 0.5 * 4.6) and weight[-1] == pytest.approx(1)


def test_mix_figure_marks_the_choice():
    axis = reprompt.mix_figure([0, 0.5], {"val": [40, 60], "test": [41, 61]}, chosen=0.5).axes[0]
    assert len(axis.get_lines()) == 3 and axis.get_lines()[2].get_xdata()[0] == 0.5


def test_explorer_shows_what_is_asked():
    asked = []

    def look(i, k, tau):
        asked.append((i, k, tau))
        return torch.arange(k), torch.full((k,), 1 / k), torch.tensor([0.25, 0.75])

    box = reprompt.explorer(
        pictures(2), torch.tensor([0, 1]), ["cat", "dog"], pictures(9, 1), torch.arange(9) % 2, look, ks=(1, 9),
        taus=(5, 20),
    )  # fmt: skip
    assert asked == [(0, 9, 20)] and bytes(box.picture.value[:4]) == b"\x89PNG"
    assert box.message.value == "right: cat; the neighbours say: dog, with 75 %"
    box.controls["k"].value = 1
    box.controls["image"].value = 1
    assert asked[-1] == (1, 1, 20) and box.message.value.startswith("right: dog")
    with pytest.raises(ValueError, match="must not be empty"):
        reprompt.explorer(pictures(1), torch.tensor([0]), ["a"], pictures(1), torch.tensor([0]), look, ks=())
