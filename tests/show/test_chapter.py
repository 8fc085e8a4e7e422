"""Figures of the chapters: the frontier and the ranking are right, the figures show every method, sliders redraw."""

import pytest

from vlmcourse.show.chapter import base_new_figure, cost_figure, explorer, frontier, ranking, ranking_figure

KNOWN, NEW, SECONDS = {"a": 0.9, "b": 0.6, "c": 0.8}, {"a": 0.3, "b": 0.6, "c": 0.0}, {"a": 5.0, "b": 0.5, "c": 0.1}


def test_frontier_keeps_what_nobody_beats():
    assert frontier({"a": (1, 5), "b": (2, 7), "c": (3, 6), "d": (0.5, -1)}) == ["d", "a", "b"]
    assert set(frontier({"a": (1, 5), "b": (1, 5)})) == {"a", "b"}


def test_ranking_weighs_and_limits():
    assert list(ranking(KNOWN, NEW, SECONDS, 0.0, 100)) == ["a", "b"], "what is never right has no score"
    assert list(ranking(KNOWN, NEW, SECONDS, 1.0, 100)) == ["b", "a"]
    assert ranking(KNOWN, NEW, SECONDS, 0.5, 100)["a"] == pytest.approx(2 * 0.9 * 0.3 / 1.2)
    assert list(ranking(KNOWN, NEW, SECONDS, 0.0, 1)) == ["b"]
    with pytest.raises(ValueError, match="weight=2"):
        ranking(KNOWN, NEW, SECONDS, 2, 1)


def test_figures_name_all_methods():
    points = {"easy": {n: (KNOWN[n], NEW[n]) for n in KNOWN}, "hard": {n: (NEW[n], KNOWN[n]) for n in KNOWN}}
    figure = base_new_figure(points, "b")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(KNOWN)
    assert [axis.get_title() for axis in figure.axes] == ["easy", "hard"]
    figure = cost_figure(SECONDS, KNOWN, "s", "points")
    assert {text.get_text() for text in figure.axes[0].texts} == set(KNOWN) and figure.axes[0].get_xscale() == "log"


def test_ranking_figure_may_be_empty():
    assert not ranking_figure(KNOWN, NEW, SECONDS, 0.5, 0.01).axes[0].patches
    assert len(ranking_figure(KNOWN, NEW, SECONDS, 0.5, 100).axes[0].patches) == 2


def test_sliders_redraw():
    box = explorer(KNOWN, NEW, SECONDS)
    first = box.picture.value
    assert box.message.value == "first: b"
    box.controls["weight"].value = 0.0
    second = box.picture.value
    assert box.message.value == "first: a"
    box.controls["limit"].value = 0.1
    assert first != second != box.picture.value and box.message.value == "first: none is fast enough"


def test_other_axes_and_weights_have_their_names():
    points = {"easy": {n: (KNOWN[n], NEW[n]) for n in KNOWN}}
    axis = base_new_figure(points, "b", ("drawn as known", "under shift")).axes[0]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("drawn as known, top-1 in %", "under shift, top-1 in %")
    assert "weight of shifts" in ranking_figure(KNOWN, NEW, SECONDS, 0.5, 100, "shifts").axes[0].get_title()
