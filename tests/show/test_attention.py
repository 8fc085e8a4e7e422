"""Attention maps lie on their images: row by row, one scale, titles for all rows or for each."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch

from vlmcourse.show.attention import answer_figure, even_shares, maps_figure


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_even_shares_are_one():
    assert torch.equal(even_shares(torch.full((2, 3, 4), 0.25)), torch.ones(2, 3, 4))


def test_maps_lie_on_their_images_in_rows_and_columns():
    maps, images = torch.zeros(2, 3, 9), torch.zeros(2, 3, 12, 12, dtype=torch.uint8)
    maps[1, 2, 5] = 4  # second image, third map: row 1, column 2
    axes = maps_figure(images, maps, ["cat", "dog"], ["a", "b", "c"], "share").axes
    assert [axis.get_title() for axis in axes[:4]] == ["image", "a", "b", "c"] and axes[4].get_ylabel() == "dog"
    heat = axes[7].images[1]
    assert heat.get_array()[1, 2] == 4 and heat.get_array().sum() == 4 and heat.get_clim() == (0, 4)
    assert axes[-1].get_ylabel() == "share"


def test_each_row_may_have_titles_of_its_own_and_the_scale_an_end():
    maps, images = torch.rand(2, 2, 16), torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    axes = maps_figure(images, maps, ["cat", "dog"], [["a", "b"], ["c", "d"]], "share", top=2.0).axes
    assert [axes[i].get_title() for i in (1, 2, 4, 5)] == ["a", "b", "c", "d"]
    assert axes[1].images[1].get_clim()[1] == 2.0


def test_positions_must_be_a_square():
    with pytest.raises(ValueError, match="square grid"):
        maps_figure(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.rand(1, 2, 8), ["a"], ["b", "c"], "share")


def test_the_answer_shows_the_logits_before_and_after_and_marks_the_right_class():
    names, before = ["a", "b", "c"], torch.tensor([3.0, 1.0, 2.0])
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    after = torch.tensor([0.0, 9.0, 0.0])
    figure = answer_figure(image, torch.full((16,), 1 / 16), before, after, names, "b", "a", "new")
    bars = figure.axes[2]
    assert [t.get_text() for t in bars.get_yticklabels()] == ["a", "c", "→ b"]
    assert [p.get_width() for p in bars.patches] == pytest.approx([1, 0, -1, -3, -3, 6])
    assert [t.get_text() for t in bars.get_legend().get_texts()] == ["zero-shot", "new"]
    assert figure.axes[1].images[1].get_array().min() == 1
