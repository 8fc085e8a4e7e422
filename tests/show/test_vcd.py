"""Figures and explorer of 32_vcd: bars are the similarities that they are given, and the decision is told."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch

from vlmcourse.methods.other_methods.vcd import Reason
from vlmcourse.show import vcd

IMAGES = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
DOG = Reason("dog", 0.3, ("ears", "a tail"), ("dog, which has ears", "dog, which is a tail"), torch.tensor([0.4, 0.2]))
CAT = Reason("cat", 0.1, ("whiskers",), ("cat, which has whiskers",), torch.tensor([0.1]))


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_the_idea_ends_in_the_mean():
    texts = [t.get_text() for t in vcd.idea_figure("dog", ["ears", "a tail"], [0.4, 0.2], IMAGES[0]).axes[0].texts]
    assert "dog, ears" in texts and any("0.30" in t and "mean" in t for t in texts)


def test_reasons_have_a_bar_for_every_descriptor():
    figure = vcd.reason_figure(IMAGES[0], [DOG, CAT], "dog")
    picture, first, second = figure.axes
    assert picture.get_title() == "dog"
    assert [bar.get_width() for bar in first.patches] == pytest.approx([0.4, 0.2])
    assert [t.get_text() for t in first.texts] == ["ears", "a tail"] and "0.300" in first.get_title()
    assert first.get_xlim() == second.get_xlim() and len(second.patches) == 1
    empty = DOG._replace(descriptors=("", "x"), similarities=torch.tensor([-0.1, 0.2]))
    axis = vcd.reason_figure(IMAGES[0], [empty]).axes[1]
    assert axis.texts[0].get_text() == "(none)" and axis.get_xlim()[0] < 0


def test_controls_are_drawn_against_the_reference():
    results = {"t": {"name": [50.0], "descriptors": [60.0], "random": [40.0, 50.0]}}
    axis = vcd.control_figure(results, "name").axes[0]
    assert [bar.get_height() for bar in axis.patches] == [10, -5]
    assert [t.get_text() for t in axis.get_xticklabels()] == ["descriptors", "random"]


def test_lengths_and_shares():
    axis = vcd.length_figure([0.8, 0.9], {"VCD": [20, 80], "CuPL": [40, 60]}, ["a", "b"]).axes[0]
    assert axis.get_lines()[0].get_ydata().tolist() == [20, 80] and axis.get_lines()[2].get_ydata()[0] == 50


def test_the_explorer_tells_the_decision():
    asked = []

    def explain(image, classes):
        asked.append((image, classes))
        return [DOG, CAT][:classes]

    box = vcd.explorer(IMAGES, ["dog", "cat", "dog", "cat"], explain)
    assert asked == [(0, 2)] and box.message.value == "decision: 'dog', right"
    before = box.picture.value
    box.controls["image"].value = 1
    assert box.message.value == "decision: 'dog', wrong, it is 'cat'" and box.picture.value != before
    box.controls["classes"].value = 1
    assert asked[-1] == (1, 1)
    with pytest.raises(ValueError, match="as many"):
        vcd.explorer(IMAGES, ["dog"], explain)
