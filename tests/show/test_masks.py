"""Pictures of masks and score maps."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from vlmcourse.show.masks import iou_figure, masks_figure, paint_mask, palette, scores_figure


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


IMAGES = torch.randint(0, 256, (2, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def test_ignored_pixels_are_white_and_classes_have_their_colours():
    mask = torch.zeros(8, 8, dtype=torch.uint8)
    mask[0], mask[1] = 255, 2
    painted = paint_mask(IMAGES[0], mask, 3, share=1.0)
    assert (painted[0] == 1).all() and np.allclose(painted[1], palette(3)[2]) and painted.shape == (8, 8, 3)


def test_masks_figure_has_a_column_per_method_and_a_legend_of_what_is_shown():
    masks = torch.zeros(2, 8, 8, dtype=torch.long)
    figure = masks_figure(IMAGES, {"truth": masks, "mine": masks + 2}, ["a", "b", "c"])
    assert len(figure.axes) == 6 and [a.get_title() for a in figure.axes[:3]] == ["image", "truth", "mine"]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["a", "c"]


def test_scores_share_one_scale():
    maps = torch.arange(12.0).reshape(3, 2, 2)
    figure = scores_figure(IMAGES[0], maps, ["a", "b", "c"], columns=4, label="cosine")
    shown = [axis.get_images()[0] for axis in figure.axes[1:4]]
    assert {s.get_clim() for s in shown} == {(0.0, 11.0)} and figure.axes[-1].get_ylabel() == "cosine"


def test_iou_bars_are_percent():
    figure = iou_figure({"x": torch.tensor([0.5, float("nan")])}, ["a", "b"])
    assert [p.get_height() for p in figure.axes[0].patches] == [50, 0]
