"""Few-shot panels: one axis per task, means and spreads from the results, gaps where a method was not run."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

from vlmcourse.show.few_shot import few_shot_panels, seeds_figure


def test_panels_show_means_bands_and_the_zero_shot_line():
    matplotlib.use("agg")
    results = {
        ("zero-shot", "a", 0): [0.3], ("zero-shot", "b", 0): [0.4],
        ("tip", "a", 1): [0.4, 0.5], ("tip", "a", 4): [0.6, 0.7], ("coop", "a", 1): [0.2],
    }  # fmt: skip
    figure = few_shot_panels(results, ["a", "b"], [1, 4], {"a": "task A"})
    first, second = figure.axes
    assert first.get_title() == "task A" and second.get_title() == "b"
    lines = {line.get_label(): line for line in first.lines}
    np.testing.assert_allclose(lines["tip"].get_ydata(), [45, 65])
    assert list(lines["coop"].get_xdata()) == [1] and len(second.lines) == 1
    assert lines["zero-shot"].get_ydata()[0] == 30
    low = first.collections[0].get_paths()[0].vertices[:, 1].min()
    assert abs(low - 40) < 1e-6, "one standard deviation with ddof 0 below 45"
    figure.canvas.draw()
    plt.close("all")


def test_seeds_figure_shows_means_every_seed_and_zero_shot():
    axis = seeds_figure({"a": [70.0, 80.0], "b": [60.0]}, 25.0).axes[0]
    assert [bar.get_width() for bar in axis.patches] == [75.0, 60.0]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["a", "b"]
    lines = [list(line.get_xdata()) for line in axis.get_lines()]
    assert lines == [[70.0, 80.0], [60.0], [25.0, 25.0]]
