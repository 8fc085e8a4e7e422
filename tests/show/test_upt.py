"""Figures and explorer of 19_upt: they draw what they are given."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch

from vlmcourse.show import upt


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_the_picture_has_a_token_for_each_prompt():
    texts = [t.get_text() for t in upt.unified_figure(3).axes[0].texts]
    assert {"$u_{6}$", "$t_{3}$", "$v_{3}$", "CE"} <= set(texts) and "$u_{7}$" not in texts


def test_variances_are_sorted_bars():
    figure = upt.variance_figure({"a": 0.6, "b": 0.2}, {"a": 0.1, "b": 0.3})
    left, right = ([p.get_width() for p in axis.patches] for axis in figure.axes)
    assert left == [0.2, 0.6] and right == [0.1, 0.3]


def test_gains_stand_at_the_tasks_variance():
    panels = {"x": ("variance", {"a": 0.5, "b": 0.7}, {"a": [1, 3], "b": [4, 4]})}
    axis = upt.gain_figure(panels).axes[0]
    assert [c.lines[0].get_xydata().tolist() for c in axis.containers] == [[[0.5, 2.0]], [[0.7, 4.0]]]


def test_influence_has_a_panel_for_each_matrix():
    figure = upt.influence_figure({"one": torch.eye(4).requires_grad_(), "two": torch.ones(4, 4)}, 2)
    assert [axis.get_title() for axis in figure.axes[:2]] == ["one", "two"]
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["t1", "t2", "v1", "v2"]
    first = figure.axes[0].images[0].get_array()
    assert first.mask.sum() == 12 and not first.mask.diagonal().any(), "what does not follow is left grey"
    with pytest.raises(ValueError, match="no entry above 0"):
        upt.influence_figure({"one": torch.zeros(4, 4)}, 2)


def test_explorer_asks_for_what_was_chosen():
    asked = []

    def score(*choice):
        asked.append(choice)
        return [50.0, 70.0] if choice[1] == "learned" else [20.0, 30.0]

    box = upt.explorer(score, {"pets": ["cat", "dog"], "signs": ["stop", "go"]})
    assert bytes(box.picture.value[:4]) == b"\x89PNG" and "25.0 % before, 60.0 %" in box.message.value
    box.controls["text"].value = "hand-written"
    assert asked[-1] == ("pets", "hand-written", "learned") and "25.0 % with" in box.message.value
    box.controls["image"].value = "none"
    box.controls["task"].value = "signs"
    assert asked[-1] == ("signs", "hand-written", "none")
    with pytest.raises(ValueError, match="tasks"):
        upt.explorer(score, {})
