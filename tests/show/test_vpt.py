"""Figures and explorer of 07_vpt: numbers against the metrics, and a new sample for every setting."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vlmcourse.evaluation.metrics import ece
from vlmcourse.methods.text_prompts.vpt import log_mean_exp
from vlmcourse.show import vpt

LABELS = torch.arange(30) % 4
EACH = (2 * torch.randn(8, 30, 4, generator=torch.Generator().manual_seed(0))).log_softmax(-1)  # (S, B, C)
NAMES = ["cat", "dog", "fox", "owl"]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_accuracy_and_ece_are_the_metrics():
    accuracy, error = vpt.accuracy_and_ece(EACH[0], LABELS)
    assert accuracy == pytest.approx(100 * (EACH[0].argmax(1) == LABELS).double().mean().item())
    assert error == pytest.approx(100 * ece(EACH[0].exp(), LABELS), abs=1e-4)


def test_the_idea_has_one_row_of_vectors_for_coop_and_one_per_sample():
    texts = [t.get_text() for t in vpt.idea_figure(n_ctx=3, name="bed").axes[0].texts]
    assert texts.count("bed .") == 4 and "$v_3$" in texts and "$v_3+r_S$" in texts


def test_trade_has_a_panel_per_number_and_a_bar_per_method():
    results = {
        "a": {"base": [80, 90], "new": [20, 30], "new_ece": [10, 10]},
        "b": {"base": [50], "new": [40], "new_ece": [5]},
    }
    figure = vpt.trade_figure(results)
    assert [[bar.get_width() for bar in axis.patches] for axis in figure.axes] == [[85, 50], [25, 40], [10, 5]]


def test_samples_are_cut_into_groups():
    figure = vpt.samples_figure(EACH, LABELS, counts=(1, 4, 8))
    lines = figure.axes[0].get_lines()
    assert [len(line.get_ydata()) for line in lines] == [8, 2, 1, 3]
    together = vpt.accuracy_and_ece(log_mean_exp(EACH), LABELS)
    assert lines[2].get_ydata()[0] == pytest.approx(together[0])
    assert lines[3].get_ydata()[0] == pytest.approx(np.mean(lines[0].get_ydata()))


def test_reliability_and_image_and_spread_draw_what_they_get():
    figure = vpt.reliability_figure({"one": (EACH[0], LABELS), "vote": (log_mean_exp(EACH), LABELS)})
    assert [a.get_title().split("\n")[0] for a in figure.axes] == ["one", "vote"] and "ECE" in figure.axes[
        0
    ].get_title()
    picture = vpt.image_figure(torch.zeros(3, 8, 8, dtype=torch.uint8), EACH[:, 0], NAMES, label=2)
    assert picture.axes[0].get_title() == "fox"
    widths = [bar.get_width() for bar in picture.axes[1].patches]
    assert widths == pytest.approx(EACH[:, 0].exp().mean(0).tolist(), abs=1e-6)
    text = F.normalize(torch.randn(6, 4, 10), dim=-1)
    spread = vpt.spread_figure(text, NAMES, text.mean(0))
    assert len(spread.axes[0].patches) == 4 and [t.get_text() for t in spread.axes[0].texts] == NAMES


def test_the_explorer_samples_what_it_shows():
    asked = []

    def sampled(width, count):
        asked.append((width, count))
        return EACH[:count]

    box = vpt.explorer(sampled, LABELS, widths=(0.0, 1.0), counts=(1, 8))
    assert asked == [(1.0, 8)] and bytes(box.picture.value[:4]) == b"\x89PNG"
    accuracy, error = vpt.accuracy_and_ece(log_mean_exp(EACH), LABELS)
    assert box.message.value == f"top-1 {accuracy:.1f} %, calibration error {error:.1f} %"
    box.controls["samples"].value = 1
    box.controls["width"].value = 0.0
    assert asked[1:] == [(1.0, 1), (0.0, 1)]
    with pytest.raises(ValueError, match="must not be empty"):
        vpt.explorer(sampled, LABELS, widths=())
