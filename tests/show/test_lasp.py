"""Figures and explorer of 06_lasp: they draw what they are given, and a setting is fitted once."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

from vlmcourse.show import lasp


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_the_picture_names_both_losses():
    texts = " ".join(t.get_text() for t in lasp.losses_figure().axes[0].texts)
    assert "$L_{TT}$" in texts and "$L_{VL}$" in texts and "LayerNorms learned" in texts


def test_matches_stand_side_by_side_with_names():
    figure = lasp.match_figure(np.eye(3), np.full((3, 3), 1 / 3), ["a", "b", "c"], ["before", "after"], n_base=2)
    assert [a.get_title() for a in figure.axes[:2]] == ["before", "after"]
    assert figure.axes[0].get_lines()[0].get_ydata()[0] == 1.5
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["a", "b", "c"]


def test_halves_are_means_in_percent_per_task_and_method():
    results = {
        "clothes": {"CoOp": ([0.5, 0.7], [0.3, 0.3]), "LASP": ([0.6, 0.6], [0.4, 0.4])},
        "machines": {"CoOp": ([1], [0])},
    }
    figure = lasp.halves_figure(results)
    heights = [p.get_height() for p in figure.axes[0].patches]
    assert heights == pytest.approx([60, 30, 60, 40]) and figure.axes[1].get_title() == "machines"


def test_drift_has_a_marker_per_name_and_a_line_between_base_and_new():
    figure = lasp.drift_figure({"x": [0.9, 0.8, 0.7], "y": [0.5, 0.4, 0.3]}, ["a", "b", "c"], n_base=1)
    lines = figure.axes[0].get_lines()
    assert lines[1].get_ydata() == pytest.approx([0.5, 0.4, 0.3]) and lines[2].get_xdata()[0] == 0.5


def test_norms_are_grouped_by_block():
    figure = lasp.norms_figure({"ln_1.weight": [1, 2, 3], "ln_2.bias": [3, 2, 1]})
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["block 1", "block 2", "block 3"]
    assert len(figure.axes[0].patches) == 6


def outcome():
    return {"ce": [1.0, 0.5], "text_to_text": [0.2, 0.1], "base": 0.8, "new": 0.5}


def test_explorer_fits_each_setting_once_and_shows_it():
    asked = []

    def fit(alpha, names):
        asked.append((alpha, names))
        return outcome()

    box = lasp.explorer(fit, (0.4, 0.5), alphas=(5.0, 0.0), names=("all", "base"), known={(5.0, "all"): outcome()})
    assert asked == [] and bytes(box.picture.value[:4]) == b"\x89PNG" and "0.100 nats" in box.message.value
    box.controls["alpha"].value = 0.0
    box.controls["names"].value = "base"
    box.controls["alpha"].value = 5.0
    box.controls["alpha"].value = 0.0
    assert asked == [(0.0, "all"), (0.0, "base"), (5.0, "base")]
    with pytest.raises(ValueError, match="must not be empty"):
        lasp.explorer(fit, (0, 0), alphas=(), names=("all",))
