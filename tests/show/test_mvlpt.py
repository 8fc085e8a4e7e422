"""Figures and explorer of 20_mvlpt: they draw what they are given, and a setting is fitted once."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest

from vlmcourse.show import mvlpt

STARTS = {"random": {"loss": [3.0, 2.0], "accuracy": 30.0}, "source": {"loss": [2.0, 1.0], "accuracy": 42.0}}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_the_picture_names_sources_and_target():
    texts = [t.get_text() for t in mvlpt.stages_figure(("pets", "cars"), "signs").axes[0].texts]
    assert {"pets", "cars", "signs", "1. source stage", "2. adaptation"} <= set(texts)


def test_starts_have_a_curve_and_a_bar():
    left, right = mvlpt.start_figure(STARTS).axes
    assert [line.get_ydata().tolist() for line in left.get_lines()] == [[3.0, 2.0], [2.0, 1.0]]
    assert [patch.get_height() for patch in right.patches] == [30.0, 42.0]


def test_matrices_show_signed_points_and_leave_nan_blank():
    axis = mvlpt.transfer_figure([[1.0, -2.0]], ["a"], ["b", "c"]).axes[0]
    assert [t.get_text() for t in axis.texts] == ["+1.0", "-2.0"]
    axis = mvlpt.grouping_figure([[float("nan"), 3.0], [0.0, float("nan")]], ["a", "b"]).axes[0]
    assert [t.get_text() for t in axis.texts] == ["+3.0", "+0.0"]


def test_explorer_fits_each_setting_once():
    asked = []

    def outcome(target, shots):
        asked.append((target, shots))
        return STARTS

    box = mvlpt.explorer(outcome, ["signs", "pets"], [1, 4], {("signs", 1): STARTS})
    assert asked == [] and "random: 30.0 %, source: 42.0 %" in box.message.value
    assert bytes(box.picture.value[:4]) == b"\x89PNG"
    box.controls["shots"].value = 4
    box.controls["shots"].value = 1
    box.controls["target"].value = "pets"
    assert asked == [("signs", 4), ("pets", 1)] and set(box.known) == {("signs", 1), ("signs", 4), ("pets", 1)}
    with pytest.raises(ValueError, match="targets"):
        mvlpt.explorer(outcome, [], [1])
