"""Figures and explorer of 14_protect: the tree's layout, wrong turns in red, and the widget without a browser."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch

from vlmcourse.show import protect
from vlmcourse.tasks.taxonomy import ROOT, Taxonomy

TREE = Taxonomy.from_paths([("A", "a1"), ("A", "a2"), ("B", "b1"), ("B", "b2")])  # A a1 a2 B b1 b2


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_places_go_down_by_depth_and_centre_parents():
    where = protect.places(TREE)
    assert where[ROOT] == (0, -1.5) and where[0] == (1, -0.5) and where[5] == (2, -3.0)


def coloured(figure):
    return [line.get_color() for line in figure.axes[0].get_lines() if line.get_color() != protect.QUIET]


def test_a_right_path_is_green_and_a_wrong_turn_is_red():
    right = protect.tree_figure(TREE, 0, torch.tensor([2.0, 2, 0, 1, 0, 0]))
    assert coloured(right) == [protect.RIGHT] * 2 and "best of all classes: a1" in right.axes[0].get_title()
    wrong = protect.tree_figure(
        TREE, 0, torch.tensor([1.0, 3, 0, 2, 0, 0]), torch.zeros(3, 4, 4, dtype=torch.uint8), "CoOp"
    )
    assert sorted(coloured(wrong)) == sorted([protect.RIGHT, protect.RIGHT, protect.WRONG])
    red = {t.get_text() for t in wrong.axes[0].texts if t.get_color() == protect.WRONG}
    assert red == {"B"} and wrong.axes[0].get_title().startswith("CoOp")


def test_the_nodes_of_a_cut_are_bold():
    figure = protect.cut_figure(TREE, torch.tensor([0, 4, 5]))
    assert {t.get_text() for t in figure.axes[0].texts if t.get_fontweight() == "bold"} == {"A", "b1", "b2"}
    assert figure.axes[0].get_title() == "3 labels"


def test_granularity_has_points_per_method():
    axis = protect.granularity_figure({"zero-shot": [50, 60], "ProTeCt": [70, 80]}, [2, 4], leaves=4).axes[0]
    assert axis.get_lines()[1].get_ydata().tolist() == [70, 80] and axis.get_lines()[2].get_xdata()[0] == 4


def test_explorer_follows_image_and_method():
    images, labels = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 3])
    good = TREE.under.T[labels].float()
    box = protect.explorer(TREE, images, labels, {"good": good, "bad": -good})
    assert bytes(box.picture.value[:4]) == b"\x89PNG" and box.message.value == "no wrong turn"
    box.controls["method"].value = "bad"
    assert box.message.value == "wrong turns at: root, A"
    box.controls["image"].value = 1
    assert box.message.value == "wrong turns at: root, B"
    with pytest.raises(ValueError, match="must have a row"):
        protect.explorer(TREE, images, labels, {"short": good[:1]})
