"""Figures and explorer of 16_tpt: they draw what they are given."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch

from vlmcourse.show import tpt


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_the_episode_names_its_steps():
    texts = " ".join(t.get_text() for t in tpt.episode_figure().axes[0].texts)
    assert "confident" in texts and "put back" in texts


def test_views_are_sorted_and_kept_ones_marked():
    entropies, pixels = torch.tensor([0.9, 0.1, 0.5, 0.3]), torch.rand(4, 3, 8, 8)
    figure = tpt.views_figure(pixels, entropies, torch.tensor([1, 3]), ["a", "b", "c", "d"], columns=2)
    assert [a.get_title() for a in figure.axes] == [
        "★ b\nH = 0.10", "★ d\nH = 0.30", "c\nH = 0.50", "test view: a\nH = 0.90",
    ]  # fmt: skip
    assert len(tpt.views_figure(pixels, entropies, torch.tensor([1]), list("abcd"), shown=3, columns=3).axes) == 3


def test_histogram_counts_right_and_wrong_views():
    figure = tpt.kept_figure(torch.tensor([[0.1, 0.2], [1.0, 0.9]]), torch.tensor([[True, True], [False, True]]))
    heights = [sum(p.get_height() for p in container) for container in figure.axes[0].containers]
    assert heights == [3, 1]


def test_answers_mark_the_right_class():
    before, after = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.7, 0.1])
    figure = tpt.answer_figure(before, after, ["cat", "dog", "cow"], "dog", top=2)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["→ dog", "cat"]
    figure = tpt.answer_figure(before, after, ["cat", "dog", "cow"], "cow", top=2)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["dog", "cat", "→ cow"]


def test_domains_have_a_bar_per_method():
    results = {"zero-shot": {"grey": [50.0], "sketch": [40.0]}, "TPT": {"grey": [60, 70], "sketch": [45, 45]}}
    axis = tpt.domains_figure(results).axes[0]
    heights = sorted(round(p.get_height()) for p in axis.patches)
    assert heights == [40, 45, 50, 65]


def test_explorer_looks_again_when_a_control_moves():
    asked = []

    def look(image, share, rate):
        asked.append((image, share, rate))
        p = torch.tensor([0.6, 0.4]) if rate < 0.01 else torch.tensor([0.1, 0.9])
        return {
            "pixels": torch.rand(3, 3, 8, 8), "entropies": torch.tensor([0.3, 0.2, 0.1]), "kept": torch.tensor([2]),
            "predicted": ["a", "b", "a"], "before": torch.tensor([0.6, 0.4]), "after": p,
            "names": ["a", "b"], "right": "b",
        }  # fmt: skip

    box = tpt.explorer(look, 4, [0.1, 0.5], [0.005, 0.05])
    assert asked == [(0, 0.1, 0.005)] and box.message.value == "right: b; before: a; after: a"
    assert all(bytes(p.value[:4]) == b"\x89PNG" for p in box.pictures)
    box.controls["image"].value = 3
    box.controls["rate"].value = 0.05
    assert asked[1:] == [(3, 0.1, 0.005), (3, 0.1, 0.05)] and box.message.value.endswith("after: b")
    with pytest.raises(ValueError, match="shares"):
        tpt.explorer(look, 4, [], [0.1])
