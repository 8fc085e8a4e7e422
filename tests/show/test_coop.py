"""Figures and explorer of 03_coop: they draw what they are given, and a setting is fitted once."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F

from vlmcourse.show import coop


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_the_prompt_has_a_slot_per_vector_and_class():
    figure = coop.prompt_figure(n_ctx=4, names=("crown", "bed"))
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert texts.count("$v_3$") == 2 and {"crown", "bed", "$w_2$"} <= set(texts)
    assert "$v_{16}$" in [t.get_text() for t in coop.prompt_figure(n_ctx=16).axes[0].texts]


def test_wordings_are_sorted_and_the_choice_is_marked():
    figure = coop.wording_figure(["a {}", "the {}", "{}"], [30.0, 50.0, 40.0], [35.0, 20.0, 45.0], chosen=1)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["→ the {}", "a {}", "{}"]


def test_vocabulary_and_similarity_take_tensors_with_gradient():
    table, start = torch.randn(30, 8), torch.randn(4, 8)
    figure = coop.vocabulary_figure(table, start, (start + 1).requires_grad_())
    assert len(figure.axes) == 2 and figure.axes[0].get_legend() is not None
    before, after = F.normalize(torch.randn(3, 5), dim=-1), F.normalize(torch.randn(3, 5), dim=-1).requires_grad_()
    assert coop.similarity_figure(before, after, ["a", "b", "c"], ["x", "y"]).axes[1].get_title() == "y"


def outcome(base=0.8, new=0.3):
    return {"loss": [1.0, 0.5], "base": base, "new": new, "words": ["a", "photo"]}


def test_forgetting_draws_each_start_over_the_lengths():
    results = {(start, m): outcome(new=0.1 * m) for start in ("random", "words") for m in (4, 1)}
    figure = coop.forgetting_figure(results, (0.5, 0.6))
    line = figure.axes[1].get_lines()[0]
    assert line.get_xdata().tolist() == [1, 4] and line.get_ydata()[1] == pytest.approx(40)


def test_explorer_fits_each_setting_once_and_shows_it():
    asked = []

    def fit(start, length):
        asked.append((start, length))
        return outcome()

    box = coop.explorer(fit, (0.5, 0.6), starts=("random", "words"), lengths=(1, 4), known={("words", 4): outcome()})
    assert asked == [("random", 1)] and bytes(box.picture.value[:4]) == b"\x89PNG" and "a · photo" in box.message.value
    box.controls["length"].value = 4
    box.controls["start"].value = "words"  # known from the beginning
    first = bytes(box.picture.value)
    box.controls["length"].value = 1
    box.controls["start"].value = "random"
    assert asked == [("random", 1), ("random", 4), ("words", 1)] and bytes(box.picture.value) != first
    with pytest.raises(ValueError, match="starts"):
        coop.explorer(fit, (0.5, 0.6), starts=())
