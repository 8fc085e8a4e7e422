"""Figures and explorer of 26_wise_ft: paths, changes and the point that alpha chooses."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

from vlmcourse.show import wise_ft

ALPHAS = [0, 0.5, 1]
TABLE = np.array([[50, 40, 30], [60, 45, 35], [62, 38, 30]], float)  # (alphas, source and two domains)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_the_idea_shows_both_ends():
    texts = {t.get_text() for t in wise_ft.idea_figure().axes[0].texts}
    assert {"zero-shot θ₀", "fine-tuned θ₁", "α = 0.5"} <= texts


def test_the_path_is_source_against_the_mean_under_shift():
    axis = wise_ft.path_figure([TABLE, TABLE + 2], [TABLE - 1], ALPHAS).axes[0]
    lines = {line.get_label(): line for line in axis.get_lines()}
    weights = lines["averaged weights, one model"]
    assert weights.get_xdata().tolist() == [51, 61, 63] and weights.get_ydata().tolist() == [36, 41, 35]
    assert lines["averaged outputs, two models"].get_xdata().tolist() == [49, 59, 61]
    star = next(line for line in axis.get_lines() if line.get_marker() == "*")
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (61, 41)


def test_accuracies_over_alpha():
    source, shift = wise_ft.alpha_figure({"weights": [TABLE, TABLE + 2]}, ALPHAS).axes
    assert source.get_lines()[0].get_ydata().tolist() == [51, 61, 63]
    assert shift.get_lines()[0].get_ydata().tolist() == [36, 41, 35]


def test_domains_and_depth():
    axis = wise_ft.domain_figure({"a": [[1, 2], [3, 4]]}, ["grey", "blur"]).axes[0]
    assert [bar.get_height() for bar in axis.patches] == [2, 3]
    axis = wise_ft.depth_figure({"block 0": 0.1, "head": 0.02}).axes[0]
    assert [bar.get_height() for bar in axis.patches] == pytest.approx([10, 2])


def test_the_explorer_follows_alpha_and_seed():
    box = wise_ft.explorer({1: TABLE, 2: TABLE + 5}, {1: TABLE, 2: TABLE}, ALPHAS, ["grey", "blur"])
    assert box.controls["alpha"].value == 0.5
    assert box.message.value == "against zero-shot: source +10.0, mean under shift +5.0 points"
    before = box.picture.value
    box.controls["alpha"].value = 1
    assert "source +12.0, mean under shift -1.0" in box.message.value and box.picture.value != before
    box.controls["seed"].value = 2
    assert box.picture.value
    with pytest.raises(ValueError, match="table of seed 1"):
        wise_ft.explorer({1: TABLE}, {}, ALPHAS, ["grey"])
