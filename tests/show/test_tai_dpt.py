"""The figures of 12_tai_dpt."""

import matplotlib.pyplot as plt
import pytest
import torch

from vlmcourse.show import tai_dpt as draw


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_history_has_a_panel_for_each_branch():
    figure = draw.history_figure({"a": {"global": [3, 2], "local": [4, 1]}, "b": {"global": [1, 1], "local": [2, 2]}})
    assert [axis.get_title() for axis in figure.axes] == ["global branch", "local branch"]
    assert [list(line.get_ydata()) for line in figure.axes[1].lines] == [[4, 1], [2, 2]]


def test_words_are_columns_and_classes_rows():
    figure = draw.words_figure(
        ["start", "cat", "end"], {"cat": torch.tensor([0.1, 0.7, 0.2]), "bus": torch.ones(3) / 3}
    )
    axis = figure.axes[0]
    assert [t.get_text() for t in axis.get_xticklabels()] == ["start", "cat", "end"]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["cat", "bus"]
    with pytest.raises(ValueError, match="2 tokens"):
        draw.words_figure(["a", "b"], {"cat": torch.ones(3)})
