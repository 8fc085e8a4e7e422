"""Figures and explorer of 31_cupl: they draw what they are given, and the best images come first."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch

from vlmcourse.show import cupl
from vlmcourse.show.style import COLOURS


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


IMAGES = torch.zeros(10, 3, 8, 8, dtype=torch.uint8)
LABELS = [0, 1] * 5


def test_the_idea_names_templates_and_sentences():
    texts = [t.get_text() for t in cupl.idea_figure("lion", ["a {}", "the {}"], ["It roars.", "x" * 90]).axes[0].texts]
    assert texts.count("lion") == 2 and "“a lion”" in texts and "“It roars.”" in texts
    assert max(map(len, texts)) < 80


def test_changes_are_sorted_by_the_first_series():
    figure = cupl.change_figure(["a", "b", "c"], {"x": [3, -1, 2], "y": [0, 1, 2]})
    axis = figure.axes[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["b", "c", "a"]
    assert axis.get_lines()[1].get_xdata().tolist() == [1, 2, 0]


def test_counts_show_means_and_levels():
    axis = cupl.count_figure([1, 3], {"sentences": [[10, 20], [30, 30]]}, {"templates": 25}).axes[0]
    assert axis.get_lines()[0].get_ydata().tolist() == [15, 30] and axis.get_lines()[1].get_ydata()[0] == 25


def test_the_nearest_images_come_first_with_a_border_for_the_right_class():
    scores = torch.arange(10) / 10
    figure = cupl.sentence_figure(IMAGES, LABELS, scores, ["dog", "cat"], 1, "a text", top=3)
    titles = [a.get_title() for a in figure.axes if a.get_visible()]
    assert titles == ["cat\n0.90", "dog\n0.80", "cat\n0.70"] and figure._suptitle.get_text() == "a text"
    first, second = (a.spines["top"].get_edgecolor() for a in figure.axes[:2])
    assert first == matplotlib.colors.to_rgba(COLOURS[2]) and second == matplotlib.colors.to_rgba(COLOURS[1])


def test_the_explorer_follows_class_and_sentence():
    asked = []

    def similarity(text):
        asked.append(text)
        return torch.tensor(LABELS).float()

    box = cupl.explorer(IMAGES, LABELS, ["dog", "cat"], {"dog": ["d1", "d2"], "cat": ["c1"]}, similarity)
    assert asked == ["d1"] and box.message.value.startswith("3 of the 8")
    before = box.picture.value
    box.controls["name"].value = "cat"
    assert asked[-1] == "c1" and box.message.value.startswith("5 of the 8") and box.picture.value != before
    box.controls["number"].value = 2
    assert asked[-1] == "c1", "a class with fewer sentences shows its last one"
    with pytest.raises(ValueError, match="at least one sentence"):
        cupl.explorer(IMAGES, LABELS, ["dog"], {"dog": []}, similarity)
