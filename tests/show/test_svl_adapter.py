"""Figures and explorer of SVL-Adapter: what is drawn, and what the controls do."""

import numpy as np
import pytest
import torch

from vlmcourse.show import svl_adapter as draw


def pictures(n):
    return torch.randint(0, 256, (n, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def test_crops_and_training():
    figure = draw.crops_figure(pictures(4), torch.rand(4, 3, 6, 6), torch.rand(4, 3, 6, 6))
    assert len(figure.axes) == 12
    figure = draw.training_figure({"digits": {"loss": [3.0, 2.0], "found": [0.1, 0.4]}})
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), [3, 2])
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), [10, 40])


def test_neighbours_have_green_frames_for_the_same_class():
    figure = draw.neighbours_figure(
        pictures(5), {"CLIP": (0, [1, 2, 3]), "own": (0, [4])}, torch.tensor([0, 0, 1, 0, 1])
    )
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert len(shown) == 6
    frames = [axis.spines["left"].get_edgecolor() for axis in shown if axis.spines["left"].get_visible()]
    assert len(frames) == 4 and frames[0] == frames[2] and frames[1] == frames[3] != frames[0]


def test_fusion_and_overlap():
    curves = {"digits": {"validation": np.zeros((2, 21)), "test": np.linspace(0, 1, 21)[None].repeat(2, 0)}}
    figure = draw.fusion_figure(curves, {"digits": {"SVL-Adapter*": 0.4}})
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    np.testing.assert_allclose(lines["test"].get_ydata(), np.linspace(0, 100, 21))
    assert set(lines["SVL-Adapter*"].get_xdata()) == {0.4}
    figure = draw.overlap_figure({"digits": {"both right": 0.25, "nobody": 0.75}})
    assert [bar.get_width() for bar in figure.axes[0].patches] == [25, 75]


def test_explorer_blends_and_counts():
    eye = torch.eye(3)
    parts = {"test": (4 * eye, 2 * eye.roll(1, 0), torch.arange(3))}
    box = draw.explorer({"digits": parts, "clothes": {"test": (eye.roll(1, 0), eye, torch.arange(3))}})
    assert box.message.value == "digits, λ = 0.50: test 100.0%"
    first = bytes(box.picture.value)
    box.controls["lambda"].value = 1.0
    assert box.message.value == "digits, λ = 1.00: test 0.0%" and bytes(box.picture.value) != first
    box.controls["task"].value = "clothes"
    assert box.message.value == "clothes, λ = 1.00: test 100.0%"
    with pytest.raises(ValueError, match="at least one task"):
        draw.explorer({})
