"""The figures of multi-label recognition and their explorer, without a browser."""

import matplotlib.pyplot as plt
import pytest
import torch

from vlmcourse.show import multi_label as draw
from vlmcourse.tasks.multi_label import MultiLabelSplit

NAMES = ("ant", "bee", "cat")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_class_bars_are_sorted_by_the_first_method():
    figure = draw.class_figure({"a": torch.tensor([0.2, 0.9, 0.5]), "b": torch.tensor([0.1, 0.2, 0.3])}, NAMES)
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["bee", "cat", "ant"]
    assert [round(bar.get_height()) for bar in axis.patches] == [90, 50, 20, 20, 30, 10]


def test_shares_with_reference_lines():
    results = {"a": {0.1: [10, 20], 1: [30, 50]}}
    axis = draw.share_figure(results, (0.1, 1), {"zero-shot": 44}).axes[0]
    assert axis.lines[0].get_xdata().tolist() == [10, 100] and list(axis.lines[0].get_ydata()) == [15, 40]
    assert list(axis.lines[1].get_ydata()) == [44, 44]


def test_looks_have_a_map_and_a_box():
    image, heat = torch.zeros(3, 8, 8, dtype=torch.uint8), torch.eye(2)
    box = torch.tensor([1.0, 2, 5, 6])
    figure = draw.look_figure(
        [(image, [("ant", heat, box), ("bee", heat, torch.zeros(4))]), (image, [("cat", heat, None)])]
    )
    with_box = [len(axis.patches) for axis in figure.axes]
    assert with_box == [0, 1, 0, 0, 0, 0] and figure.axes[1].get_title() == "ant"
    assert figure.axes[1].patches[0].get_bbox().bounds == (1, 2, 4, 4)


def test_the_explorer_follows_its_controls():
    labels = torch.tensor([[1, 0, 1], [0, 1, 0]])
    split = MultiLabelSplit(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), labels, NAMES)
    asked = []

    def maps(number):
        asked.append(number)
        return torch.rand(3, 2, 2)

    box = draw.explorer(split, torch.rand(2, 3), maps)
    assert box.message.value == "really there (blue): ant, cat" and bytes(box.picture.value[1:4]) == b"PNG"
    before = bytes(box.picture.value)
    box.controls["image"].value = 1
    assert box.message.value == "really there (blue): bee" and asked[-1] == 1 and bytes(box.picture.value) != before
    box.controls["class"].value = "cat"
    assert len(asked) == 3
