"""Figures and explorer of 05_subpt: they draw what they are given, and a setting is fitted once."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from vlmcourse.show import subpt


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_the_picture_has_two_stages():
    assert [a.get_title()[:7] for a in subpt.stages_figure().axes] == ["stage 1", "stage 2"]


def test_spectra_are_cumulative_percent_with_one_label_per_name():
    figure = subpt.spectrum_figure({"a": [[0.6, 0.3, 0.1], [0.5, 0.5, 0.0]], "b": [[0.4, 0.4, 0.2]]}, most=2)
    lines = figure.axes[0].get_lines()
    assert lines[0].get_ydata() == pytest.approx([60, 90]) and len(lines) == 3
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == ["a", "b"]


def test_shares_start_at_the_second_epoch():
    figure = subpt.leaving_figure([[1.0, 0.5], [0.9, 0.2]], [[0.1, 0.2], [0.3, 0.1]], t_early=2)
    line = figure.axes[0].get_lines()[1]
    assert line.get_xdata().tolist() == [2, 3] and line.get_ydata() == pytest.approx([90, 20])


def curves(shift=0.0):
    return {panel: np.array([[0.2, 0.4], [0.4, 0.6]]) + shift for panel in subpt.PANELS}


def test_curves_show_means_over_the_seeds_and_zero_shot():
    zero = dict.fromkeys(subpt.PANELS, 0.5)
    figure = subpt.epoch_curves({"CoOp": curves(), "NFL": curves(0.1)}, [1, 10], zero)
    accuracy, loss = figure.axes[1], figure.axes[3]
    assert accuracy.get_lines()[0].get_ydata() == pytest.approx([30, 50])
    assert loss.get_lines()[1].get_ydata() == pytest.approx([0.4, 0.6])
    assert accuracy.get_lines()[2].get_ydata()[0] == pytest.approx(50) and "new" in loss.get_title()


@pytest.mark.parametrize("r", [1, 3])
def test_paths_start_at_the_star_and_know_their_way_out(r):
    basis, start = torch.eye(5)[:r], torch.ones(5)
    inside, outside = start + torch.eye(5)[:1] * 2, start + torch.eye(5)[4:] * 3
    figure = subpt.path_figure({"in": inside, "out": outside}, basis, start)
    assert figure.axes[0].get_lines()[0].get_xdata() == pytest.approx([0, 2])
    assert figure.axes[1].get_lines()[0].get_ydata() == pytest.approx([0], abs=1e-6)
    assert figure.axes[1].get_lines()[1].get_ydata() == pytest.approx([3])


def outcome():
    parts = dict.fromkeys(subpt.PANELS, 0.5)
    return {"train": [1.0, 0.1], "kept": 0.99, **parts}


def test_explorer_fits_once_and_refuses_too_many_directions():
    asked = []

    def fit(early, rank):
        asked.append((early, rank))
        return outcome()

    box = subpt.explorer(fit, outcome(), early=(3, 10), ranks=(1, 5), known={(10, 5): outcome()})
    assert asked == [] and bytes(box.picture.value[:4]) == b"\x89PNG" and "99.00 %" in box.message.value
    box.controls["early"].value = 3
    assert asked == [] and "choose a smaller r" in box.message.value
    box.controls["rank"].value = 1
    box.controls["rank"].value = 5
    box.controls["rank"].value = 1
    assert asked == [(3, 1)] and (3, 1) in box.known
    with pytest.raises(ValueError, match="must not be empty"):
        subpt.explorer(fit, outcome(), early=(), ranks=(1,))
