"""Figures and explorer of CLIP-Adapter: what is drawn, and what the controls do."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from vlmcourse.show import clip_adapter as draw


def test_figures_show_what_they_are_given():
    assert isinstance(draw.idea_figure(), Figure)
    ratios = [0.2, 0.5, 1.0]
    measured = {"far": {"validation": np.full((3, 2), 0.5), "test": np.array([[0.1, 0.3], [0.4, 0.4], [0.6, 0.8]])}}
    figure = draw.ratio_figure(measured, ratios, {"far": 0.25})
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    np.testing.assert_allclose(lines["test"], [20, 40, 70])
    np.testing.assert_allclose(lines["zero-shot, test"], 25)


def test_clouds_share_one_plane_and_units_are_sorted():
    generator = torch.Generator().manual_seed(0)
    before = F.normalize(torch.randn(12, 6, generator=generator), dim=-1)
    labels = torch.arange(12) % 3
    text = F.normalize(torch.randn(3, 6, generator=generator), dim=-1)
    figure = draw.clouds_figure(before, before, labels, text, ["a", "b", "c"])
    left, right = (np.concatenate([line.get_xydata() for line in axis.lines]) for axis in figure.axes[:2])
    np.testing.assert_allclose(left, right)
    activity = torch.tensor([[0.0, 2.0], [1.0, 0.0], [0.0, 3.0]])
    shown = draw.units_figure(activity, ["a", "b"]).axes[0].images[0].get_array()
    np.testing.assert_allclose(shown, [[1, 0, 0], [0, 3, 2]])


def test_explorer_measures_each_setting_once_and_follows_its_controls():
    calls = []

    def measure(trained, used):
        calls.append((trained, used))
        return {"validation": used, "test": trained}

    box = draw.explorer(measure, [0.2, 0.8])
    assert "trained at 0.2, used at 0.5: validation 50.0%, test 20.0%" == box.message.value and len(calls) == 11
    first = bytes(box.picture.value)
    box.controls["used"].value = 0.9
    assert "validation 90.0%" in box.message.value and len(calls) == 11 and bytes(box.picture.value) != first
    box.controls["trained"].value = 0.8
    assert "test 80.0%" in box.message.value and len(calls) == 22
    with pytest.raises(ValueError, match="at least one ratio"):
        draw.explorer(measure, [])
