"""Figures and explorer of TaskRes: what is drawn, and what the controls do."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from vlmcourse.show import taskres as draw


def test_figures_show_what_they_are_given():
    assert isinstance(draw.idea_figure(), Figure)
    figure = draw.twins_figure({"text adapter": [0.1, 0.1], "TaskRes": [0.5, 0.7]}, 0.1)
    assert [round(bar.get_height()) for bar in figure.axes[0].patches] == [10, 60]
    figure = draw.difficulty_figure({"far": (0.3, 0.8, 0.6), "easy": (0.9, 0.1, 0.92)})
    left, right = figure.axes
    assert left.lines[0].get_ydata()[0] == 0.8 and right.lines[0].get_ydata()[0] == pytest.approx(30)
    figure = draw.class_figure([0.5, 0.2], [0.1, 0.9], [0.8, 0.9], ["shirt", "bag"])
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0.2, 0.5], "sorted by length"


def test_scale_figure_has_accuracy_above_and_length_below():
    scales = [0.5, 2, 8]
    parts = {"validation": np.full((3, 2), 0.5), "test": np.array([[0.1, 0.3], [0.4, 0.4], [0.6, 0.8]])}
    parts["length"] = np.array([[0.1], [0.2], [0.4]])
    figure = draw.scale_figure({"far": parts}, scales, {"far": 0.25})
    above = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    np.testing.assert_allclose(above["test"], [20, 40, 70])
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), [0.1, 0.2, 0.4])


def test_explorer_measures_each_setting_once_and_follows_its_controls():
    calls = []

    def measure(base, scale):
        calls.append((base, scale))
        return {"validation": scale / 10, "test": 0.5 if base == "regular" else 0.6}

    box = draw.explorer(measure, ["regular", "enhanced"], [0.0, 1.0, 4.0], 1.0)
    assert box.message.value == "regular base, α = 0: validation 0.0%, test 50.0%" and len(calls) == 3
    first = bytes(box.picture.value)
    box.controls["scale"].value = 4.0
    assert "validation 40.0%" in box.message.value and len(calls) == 3 and bytes(box.picture.value) != first
    box.controls["base"].value = "enhanced"
    assert "test 60.0%" in box.message.value and len(calls) == 6
    with pytest.raises(ValueError, match="must not be empty"):
        draw.explorer(measure, [], [1.0], 1.0)
