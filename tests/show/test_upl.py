"""Figures and explorer of 15_upl: they count what is chosen, and every rule can be drawn."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch

from vlmcourse.show import upl

P = torch.tensor([[0.9, 0.05, 0.05], [0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.4, 0.35, 0.25]])
LABELS, NAMES = torch.tensor([0, 1, 0, 1, 2]), ["cat", "dog", "fox"]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def widths(axis):
    return [[bar.get_width() for bar in container] for container in axis.containers]


def test_each_rule_chooses_what_it_says():
    chosen = {rule: sorted(upl.by_rule(P, rule, 1, 0.75).indices.tolist()) for rule in upl.RULES}
    assert chosen == {"K per class": [0, 3], "K C of all": [0, 1, 3], "threshold": [0, 1]}
    assert upl.by_rule(P, "threshold", 1, 0.95) is None
    assert upl.purity(upl.by_rule(P, "K C of all", 1), LABELS) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="rule='best' must be one of"):
        upl.by_rule(P, "best", 1)


def test_balance_counts_right_and_wrong_labels_per_class():
    figure = upl.balance_figure(P, LABELS, NAMES, k=2, threshold=0.75)
    assert [axis.get_title() for axis in figure.axes] == [
        "the 2 surest per class",
        "the 2·3 surest of all",
        "all above 0.75",
    ]
    assert widths(figure.axes[0]) == [[1, 1, 0], [1, 0, 0]]  # right: images 0 and 3, wrong: image 1
    assert widths(figure.axes[2]) == [[1, 0, 0], [1, 0, 0]]
    nothing = upl.balance_figure(P, LABELS, NAMES, k=1, threshold=0.99, rules=["threshold"])
    assert sum(sum(w) for w in widths(nothing.axes[0])) == 0


def test_purity_has_a_panel_per_task_and_a_line_per_rule():
    figure = upl.purity_figure({"a": {"x": [90, 80], "y": [70, 60]}, "b": {"x": [50, 40], "y": [5, 4]}}, [1, 2])
    assert [axis.get_title() for axis in figure.axes] == ["a", "b"]
    assert figure.axes[1].get_lines()[1].get_ydata().tolist() == [5, 4]


def test_confidence_has_a_point_per_predicted_class():
    figure = upl.confidence_figure(P, LABELS, NAMES)
    at = [tuple(c.get_offsets()[0]) for c in figure.axes[0].collections]
    assert at == [pytest.approx((0.675, 0.5)), pytest.approx((0.7, 1.0))]  # no image is predicted to be a fox
    assert [t.get_text() for t in figure.axes[0].texts] == ["cat", "dog"]


def test_steps_and_ensemble_draw():
    assert any("K most confident" in t.get_text() for t in upl.steps_figure().axes[0].texts)
    lines = upl.ensemble_figure([30, 40, 35], [30, 38, 39], 33).axes[0].get_lines()
    assert lines[0].get_ydata().tolist() == [30, 40, 35] and lines[1].get_ydata().tolist() == [30, 38, 39]


def test_the_explorer_follows_its_controls():
    box = upl.explorer(P, LABELS, NAMES)
    assert bytes(box.picture.value[:4]) == b"\x89PNG"
    assert box.message.value == "5 images, 60 % right pseudo-labels, 1 classes without any"
    box.controls["k"].value = 1
    assert box.message.value == "2 images, 100 % right pseudo-labels, 1 classes without any"
    before = bytes(box.picture.value)
    box.controls["rule"].value = "threshold"
    assert box.message.value == "no image is that confident" and bytes(box.picture.value) != before
    box.controls["threshold"].value = 0.65
    assert box.message.value == "3 images, 67 % right pseudo-labels, 1 classes without any"
