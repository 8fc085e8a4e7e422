"""Figures and explorer of 09_softcpt: they draw what they are given, and a name is tried once."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch

from vlmcourse.show import softcpt


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_the_picture_has_a_row_per_task():
    texts = [t.get_text() for t in softcpt.sharing_figure(("pets", "signs"), ("dog", "stop")).axes[0].texts]
    assert {"pets", "signs", "dog .", "$F_2$", "$V_1$"} <= set(texts) and texts.count("$u$") == 2


def test_relations_show_the_cosines():
    features, contexts = torch.eye(3).requires_grad_(), torch.ones(3, 2, 4)
    left, right = softcpt.relation_figure(features, contexts, ["a", "b", "c"]).axes[:2]
    assert [t.get_text() for t in left.texts][:3] == ["1.00", "0.00", "0.00"]
    assert {t.get_text() for t in right.texts} == {"1.00"}


def test_joining_draws_means_over_the_number_of_tasks():
    figure = softcpt.joining_figure({"A": {1: [50, 60], 3: [70, 70]}, "B": {3: [40, 44]}}, {"zero-shot": 20}, "title")
    lines = figure.axes[0].get_lines()
    assert lines[0].get_ydata().tolist() == [55, 70] and lines[1].get_xdata().tolist() == [3]
    assert lines[0].get_color() != lines[1].get_color() and lines[2].get_ydata()[0] == 20
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == ["A", "B", "zero-shot"]


def test_explorer_tries_each_name_once():
    asked = []

    def score(task, name):
        asked.append((task, name))
        return 50.0

    box = softcpt.explorer(
        score, ["pets", "signs"], {"pets": 20, "signs": 30}, ["pets", "food"], {("pets", "pets"): 60}
    )
    assert asked == [] and bytes(box.picture.value[:4]) == b"\x89PNG"
    first = bytes(box.picture.value)
    box.controls["name"].value = "food"
    assert asked == [("pets", "food")] and bytes(box.picture.value) != first
    box.controls["name"].value = " "
    box.controls["name"].value = "food"
    box.controls["task"].value = "signs"
    assert asked == [("pets", "food"), ("signs", "signs"), ("signs", "food")]
    with pytest.raises(ValueError, match="tasks"):
        softcpt.explorer(score, [], {}, ["a"])
