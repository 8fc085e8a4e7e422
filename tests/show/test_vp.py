"""Figures and explorer of 17_vp: they draw what they are given."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch

from vlmcourse.show import vp


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def picture(seed=0):
    return torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_the_sum_has_three_pictures_in_each_row():
    figure = vp.sum_figure({"padding": (picture(), picture(1), 2 * picture(2)), "patch": (picture(),) * 3})
    assert len(figure.axes) == 6 and figure.axes[1].get_title() == "+ prompt (padding)"


def test_zero_is_grey_and_pictures_are_clipped():
    shown = vp.as_picture(torch.tensor([0.0, 4.0, -4.0]).reshape(3, 1, 1), torch.full((3, 1, 1), 0.5))
    assert shown.flatten().tolist() == [0.5, 1.0, 0.0]


def test_borders_share_one_scale():
    figure = vp.borders_figure({"a": picture() * 2, "b": picture(1) * 0}, torch.ones(3, 1, 1))
    a, b = (figure.axes[i].get_images()[0] for i in (2, 3))
    assert a.get_clim() == b.get_clim() and b.get_array().max() == 0


def test_size_figure_draws_runs_mean_and_cover():
    figure = vp.size_figure([8, 32], {8: [40, 50], 32: [60, 62]}, 35.0, side=64)
    left, right = figure.axes
    assert left.get_lines()[2].get_ydata() == pytest.approx([45, 61])
    assert right.get_lines()[0].get_ydata() == pytest.approx([43.75, 100])


def test_predictions_are_bars_with_the_true_number():
    axis = vp.predictions_figure({"zero-shot": [3, 1], "VP": [2, 2]}, ["a", "b"], 2).axes[0]
    assert [bar.get_height() for bar in axis.patches] == [3, 1, 2, 2]


def test_explorer_compares_with_and_without():
    asked = []

    def look(i, strength):
        asked.append((i, strength))
        return picture(i), torch.tensor([1 - strength / 4, strength / 4])

    box = vp.explorer(torch.tensor([1, 0, 1]), ["bag", "boot"], look, strengths=(0, 1, 3))
    assert asked == [(0, 0.0), (0, 3)] and bytes(box.picture.value[:4]) == b"\x89PNG"
    assert box.message.value == "right: boot; without: bag; with: boot"
    box.controls["image"].value = 1
    box.controls["strength"].value = 1
    assert asked[-1] == (1, 1) and box.message.value == "right: bag; without: bag; with: bag"
    with pytest.raises(ValueError, match="must not be empty"):
        vp.explorer(torch.tensor([1]), ["bag"], look, strengths=())
