"""Figures and explorer of 08_kgcoop: they draw what they are given, and a setting is fitted once."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch

from vlmcourse.show import kgcoop


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_the_springs_join_hand_and_learned():
    texts = {t.get_text() for t in kgcoop.spring_figure().axes[0].texts}
    assert {"$g_1$", "$w_1$", "$g_3$", "$w_3$"} <= texts


def test_drift_has_a_panel_for_distance_base_and_new():
    rows = {"epoch": [1, 2], "distance": [0.0, 0.3], "base": [40, 80], "new": [50, 30]}
    figure = kgcoop.drift_figure({"λ = 0": rows, "λ = 8": rows})
    assert [len(axis.get_lines()) for axis in figure.axes] == [2, 2, 2]
    assert figure.axes[2].get_lines()[0].get_ydata()[1] == 30 and "new" in figure.axes[2].get_title()


def test_tradeoff_averages_left_and_compares_with_zero_shot_right():
    results = {0.0: {"distance": [0.2, 0.4], "base": [80, 90], "new": [30, 20]},
               8.0: {"distance": [0.0, 0.1], "base": [70, 80], "new": [41, 42]}}  # fmt: skip
    figure = kgcoop.tradeoff_figure(results, {"base": [40, 50], "new": [40, 40]})
    left, right = figure.axes
    assert left.get_lines()[0].get_ydata().tolist() == [85, 75]
    assert left.get_lines()[0].get_xdata().tolist() == pytest.approx([0.3, 0.05])
    assert right.get_lines()[0].get_ydata().tolist() == [-10, -20] and right.get_lines()[1].get_ydata().tolist() == [
        1,
        2,
    ]
    assert {t.get_text() for t in left.texts} == {"λ=0", "λ=8"}


def test_class_figure_separates_base_from_new():
    figure = kgcoop.class_figure({"λ = 0": torch.tensor([0.3, 0.2, 0.1])}, ["a", "b", "c"], new_from=2)
    axis = figure.axes[0]
    assert [bar.get_height() for bar in axis.patches] == pytest.approx([0.3, 0.2, 0.1])
    assert axis.get_lines()[0].get_xdata()[0] == 1.5


def outcome(new=30.0):
    return {"cross_entropy": [1.0, 0.5], "distance": [0.0, 0.2], "base": 80.0, "new": new}


def test_explorer_fits_each_setting_once_and_shows_it():
    asked = []

    def fit(weight, prompt):
        asked.append((weight, prompt))
        return outcome(10.0 * len(asked))

    box = kgcoop.explorer(fit, (40.0, 35.0), [0, 8], ["own", "bad"], known={(8, "bad"): outcome()})
    assert asked == [(0, "own")] and bytes(box.picture.value[:4]) == b"\x89PNG" and "0.200" in box.message.value
    first = bytes(box.picture.value)
    box.controls["weight"].value = 8
    box.controls["prompt"].value = "bad"  # known from the beginning
    box.controls["weight"].value = 0
    box.controls["prompt"].value = "own"
    assert asked == [(0, "own"), (8, "own"), (0, "bad")] and bytes(box.picture.value) == first
    with pytest.raises(ValueError, match="must not be empty"):
        kgcoop.explorer(fit, (40.0, 35.0), [], ["own"])
