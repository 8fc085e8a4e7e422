"""Figures of the chapters that compare methods: base against new classes, accuracy against cost, a weighted ranking.

All take plain numbers by method, so that the notebook shows where they come from.
"""

from collections.abc import Mapping, Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from vlmcourse.show.figures import bars
from vlmcourse.show.panel import panel
from vlmcourse.show.style import COLOURS, MARKERS

BASE_NEW = ("base classes", "new classes")


def base_new_figure(
    points: Mapping[str, Mapping[str, tuple[float, float]]], reference: str, axes_are: tuple[str, str] = BASE_NEW
) -> Figure:
    """New-class over base-class accuracy, a panel per task; grey lines join points of equal H.

    points: {task: {method: (base, new)}}, fractions. reference: the method whose two values are drawn as dashed lines.
    axes_are: what the two values are, where they are something else.
    """
    figure, axes = plt.subplots(1, len(points), figsize=(4.9 * len(points), 4.4), squeeze=False)
    names = list(dict.fromkeys(name for by_method in points.values() for name in by_method))
    for axis, (task, by_method) in zip(axes[0], points.items(), strict=True):
        values = 100 * np.array(list(by_method.values()))
        low, high = np.maximum(values.min(0) - 4, 1), np.minimum(values.max(0) + 4, 100)
        base, new = np.meshgrid(np.linspace(low[0], high[0], 60), np.linspace(low[1], high[1], 60))
        lines = axis.contour(base, new, 2 * base * new / (base + new), 6, colors="#bbbbbb", linewidths=0.7)
        axis.clabel(lines, fmt="H = %.0f", fontsize=7)
        for name, (b, n) in by_method.items():
            i = names.index(name)
            style = {"marker": MARKERS[i % len(MARKERS)], "color": COLOURS[(i + i // len(MARKERS)) % len(COLOURS)]}
            axis.plot(100 * b, 100 * n, linestyle="", markersize=8, label=name, **style)
        b, n = by_method[reference]
        axis.axvline(100 * b, color="#555555", linestyle="--", linewidth=0.8)
        axis.axhline(100 * n, color="#555555", linestyle="--", linewidth=0.8)
        axis.set(title=task, xlabel=f"{axes_are[0]}, top-1 in %", xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        axis.grid(False)
    axes[0, 0].set_ylabel(f"{axes_are[1]}, top-1 in %")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return figure


def cost_figure(cost: Mapping[str, float], gain: Mapping[str, float], xlabel: str, ylabel: str) -> Figure:
    """gain over cost (logarithmic) by method, with the names; methods that none beats in both are joined by a line."""
    figure, axis = plt.subplots(figsize=(7.4, 4))
    names = list(cost)
    best = frontier({name: (cost[name], gain[name]) for name in names})
    axis.plot([cost[n] for n in best], [gain[n] for n in best], color="#999999", linewidth=1, zorder=0)
    for i, name in enumerate(names):
        kept = name in best
        axis.plot(cost[name], gain[name], MARKERS[i % len(MARKERS)], markersize=8 if kept else 6,
                  color=COLOURS[2] if kept else COLOURS[6])  # fmt: skip
        axis.annotate(name, (cost[name], gain[name]), textcoords="offset points", xytext=(6, 4), fontsize=8)
    axis.axhline(0, color="#555555", linestyle="--", linewidth=0.8)
    axis.set(xscale="log", xlabel=xlabel, ylabel=ylabel)
    return figure


def frontier(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names whose (cost, gain) no other point beats: none has at most this cost and at least this gain, one of the two
    strictly. Ordered by cost."""
    beaten = {
        name
        for name, (cost, gain) in points.items()
        for c, g in points.values()
        if c <= cost and g >= gain and (c, g) != (cost, gain)
    }
    return sorted((name for name in points if name not in beaten), key=lambda name: points[name])


def ranking(known: Mapping[str, float], new: Mapping[str, float], seconds: Mapping[str, float], weight: float,
            limit: float) -> dict[str, float]:  # fmt: skip
    """{method: score}, best first: the weighted harmonic mean of accuracy on known and on new classes, among methods
    that fit within `limit` seconds and are right at all. weight in 0..1 is that of the new classes; 0.5 gives H."""
    if not 0 <= weight <= 1:
        raise ValueError(f"weight={weight!r} must lie in 0..1")
    score = {}
    for name in known:
        if seconds[name] <= limit and min(known[name], new[name]) > 0:
            score[name] = 1 / ((1 - weight) / known[name] + weight / new[name])
    return dict(sorted(score.items(), key=lambda item: -item[1]))


def ranking_figure(
    known: Mapping, new: Mapping, seconds: Mapping, weight: float, limit: float, second: str = BASE_NEW[1]
) -> Figure:
    """`ranking` as bars. second: what `new` holds."""
    score = ranking(known, new, seconds, weight, limit)
    figure, axis = plt.subplots(figsize=(7.4, 3))
    if score:
        bars({"score": [100 * v for v in score.values()]}, list(score), "weighted accuracy in %", axis=axis)
    axis.set_title(f"weight of {second} {weight:.2f}, at most {limit:g} s for fitting")
    return figure


def explorer(
    known: Mapping, new: Mapping, seconds: Mapping, limits: Sequence[float] = (0.1, 1, 10, 100),
    second: str = BASE_NEW[1],
) -> widgets.VBox:  # fmt: skip
    """A `panel` with sliders for the weight of what `new` holds (second: its name) and the seconds one is ready to
    wait; the ranking follows."""
    style = {"style": {"description_width": "110px"}}
    c = {
        "weight": widgets.FloatSlider(value=0.5, min=0, max=1, step=0.05, description=second, **style),
        "limit": widgets.SelectionSlider(options=list(limits), value=limits[-1], description="seconds", **style),
    }

    def look(weight: float, limit: float) -> tuple[Figure, str]:
        first = next(iter(ranking(known, new, seconds, weight, limit)), "none is fast enough")
        return ranking_figure(known, new, seconds, weight, limit, second), f"first: {first}"

    return panel(c, look)
