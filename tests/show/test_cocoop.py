"""Figures and explorer of 04_cocoop: they draw what they are given; the parts of the shift add up."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch

from vlmcourse.show import cocoop

NAMES = ["cat", "dog", "yak"]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def shifts():
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 2])
    draw = torch.Generator().manual_seed(0)
    return 5 + torch.randn(3, 6, generator=draw)[labels] + 0.1 * torch.randn(8, 6, generator=draw), labels


def test_the_prompt_has_a_row_per_image(images):
    figure = cocoop.prompt_figure(images[:3])
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert texts.count("for c = 1…C") == 3 and {r"$v_2 + \pi_3$", "$W_1$ (C, E)", "meta-net"} <= set(texts)
    assert len(figure.axes[0].child_axes) == 3, "each row shows its image"


def test_the_parts_add_up_to_the_mean_square(shifts):
    pi, labels = shifts
    parts = cocoop.shift_parts(pi.requires_grad_(), labels)
    assert list(parts) == list(cocoop.PARTS)
    assert sum(parts.values()) == pytest.approx(pi.square().sum(1).mean().item(), rel=1e-5)
    common, of_class, of_image = parts.values()
    assert common > of_class > of_image > 0
    constant = cocoop.shift_parts(torch.ones(4, 2), [0, 0, 1, 1])
    assert list(constant.values()) == pytest.approx([2, 0, 0])
    with pytest.raises(ValueError, match="one label each, got 3 labels"):
        cocoop.shift_parts(pi, labels[:3])


def test_shift_figure_names_the_classes_that_occur(shifts):
    pi, labels = shifts
    parts = cocoop.shift_parts(pi, labels)
    figure = cocoop.shift_figure(pi, labels, [*NAMES, "absent"], {"a": parts, "b": parts})
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == NAMES
    heights = [bar.get_height() for bar in figure.axes[1].patches]
    assert heights[0] == pytest.approx(parts[cocoop.PARTS[0]] ** 0.5) and len(heights) == 6


def test_cost_and_path():
    figure = cocoop.cost_figure([1, 2, 4], {"CoOp": [1, 1, 1], "CoCoOp": [1, 2, 4]})
    assert figure.axes[0].get_yscale() == "log" and figure.axes[0].get_lines()[1].get_ydata()[2] == 4
    figure = cocoop.path_figure({"CoOp": [(10, 20), (30, 15)]}, (9, 21))
    big = figure.axes[0].get_lines()[1]
    assert big.get_xdata()[0] == 30 and big.get_ydata()[0] == 15 and big.get_markersize() > 8


def test_explorer_shows_the_image_and_says_whether_the_shifts_agree(images):
    own = torch.eye(3)[[0, 1, 2, 0, 1]]
    box = cocoop.explorer(
        images, torch.tensor([0, 1, 2, 0, 1]), NAMES, {"own": own, "none": torch.eye(3)[[0, 0, 2, 0, 1]]}
    )
    assert bytes(box.picture.value[:4]) == b"\x89PNG" and box.message.value == "all shifts agree on: cat"
    first = bytes(box.picture.value)
    box.controls["image"].value = 1
    assert box.message.value == "the shifts disagree: cat, dog" and bytes(box.picture.value) != first
    with pytest.raises(ValueError, match="each of the 5 images"):
        cocoop.explorer(images, torch.zeros(5), NAMES, {"own": own[:2]})
