"""Figures and the explorer of "TaskRes": the residual beside its base, its scale, its length and the task's difficulty.

    idea_figure()                                      the method as a picture
    twins_figure(accuracies)                           what each method can do when class features are equal
    scale_figure(measured, scales, zero_shot)          accuracy and residual length over alpha
    difficulty_figure(points)                          residual length over zero-shot accuracy, one point per task
    class_figure(norms, gains, names)                  per class: length of the residual, change of accuracy
    explorer(measure, scales)                          a slider for the scale at use
Shapes: C classes. Accuracies are fractions in the arguments, % in the figures.
"""

from collections.abc import Callable, Mapping, Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from vlmcourse.show.figures import bars
from vlmcourse.show.panel import once, panel
from vlmcourse.show.style import COLOURS, MARKERS


def idea_figure() -> Figure:
    """Unit circle: base features, residuals as arrows, and the class features behind them."""
    figure, axis = plt.subplots(figsize=(6.4, 3.9))
    angle = np.linspace(0.0, np.pi, 100)
    axis.plot(np.cos(angle), np.sin(angle), color="#BBBBBB", linewidth=1)
    base, moves = np.array([0.75, 1.35, 2.4]), ((0.34, -0.22), (-0.36, 0.02), (-0.05, 0.06))
    for c, (a, move) in enumerate(zip(base, moves, strict=True), start=1):
        t = np.array([np.cos(a), np.sin(a)])
        end = t + move
        unit = end / np.linalg.norm(end)
        axis.annotate("", end, t, arrowprops={"arrowstyle": "->", "color": COLOURS[1], "linewidth": 2})
        axis.plot(*t, "s", color="#555555", markersize=9)
        axis.plot(*unit, "o", color=COLOURS[0], markersize=9, markeredgecolor="black")
        axis.annotate(f"$t_{c}$", 0.84 * t, ha="center", va="center", fontsize=12)
    handles = [
        plt.Line2D([], [], marker="s", linestyle="", color="#555555", label="base $t_c$, frozen"),
        plt.Line2D([], [], color=COLOURS[1], label="residual $\\alpha x_c$, learned, one for each class"),
        plt.Line2D(
            [], [], marker="o", linestyle="", color=COLOURS[0], markeredgecolor="black", label="$n(t_c + αx_c)$"
        ),
    ]
    axis.legend(handles=handles, loc="lower center", fontsize=9)
    axis.set(xlim=(-1.3, 1.3), ylim=(-0.12, 1.12), aspect="equal")
    axis.axis("off")
    return figure


def twins_figure(accuracies: Mapping[str, Sequence[float]], chance: float) -> Figure:
    """accuracies: {method: one per seed}; chance: as a dashed line."""
    values = {"accuracy": [100 * float(np.mean(v)) for v in accuracies.values()]}
    errors = {"accuracy": [100 * float(np.std(v)) for v in accuracies.values()]}
    figure, axis = plt.subplots(figsize=(7, 3.0))
    bars(values, list(accuracies), "top-1 in %", errors, axis, 100 * chance, "chance")
    return figure


def scale_figure(
    measured: Mapping[str, Mapping[str, np.ndarray]], scales: Sequence[float], zero_shot: Mapping[str, float]
) -> Figure:
    """measured: {task: {"validation", "test", "length": (scales, seeds)}}. Above accuracy, below residual length."""
    figure, axes = plt.subplots(2, len(measured), figsize=(4.4 * len(measured), 5.2), sharex=True, squeeze=False)
    for column, (task, parts) in zip(axes.T, measured.items(), strict=True):
        for i, part in enumerate(("validation", "test", "length")):
            axis, factor = column[int(part == "length")], 1 if part == "length" else 100
            mean, std = factor * np.mean(parts[part], axis=1), factor * np.std(parts[part], axis=1)
            axis.plot(scales, mean, ("--", "-", "-")[i], marker=MARKERS[i], color=COLOURS[i], label=part)
            axis.fill_between(scales, mean - std, mean + std, alpha=0.15, color=COLOURS[i])
        column[0].axhline(100 * zero_shot[task], color="#555555", linestyle=":", label="zero-shot, test")
        column[0].set(title=task, xscale="log")
        column[1].set(xlabel="scale α", xscale="log")
        column[1].set_xticks(scales, [f"{s:g}" for s in scales])
        column[1].minorticks_off()
    axes[0, 0].set_ylabel("accuracy (%)")
    axes[1, 0].set_ylabel("residual length |αx| / |t|")
    axes[0, 0].legend(fontsize=8)
    return figure


def difficulty_figure(points: Mapping[str, tuple[float, float, float]]) -> Figure:
    """points: {task: (zero-shot accuracy, mean residual length, accuracy with it)}. Right: the gain."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.6), sharex=True)
    for i, (task, (before, length, after)) in enumerate(points.items()):
        style = {"marker": MARKERS[i % len(MARKERS)], "color": COLOURS[i % len(COLOURS)], "markersize": 7}
        for axis, y in ((left, length), (right, 100 * (after - before))):
            axis.plot(100 * before, y, **style)
            axis.annotate(task, (100 * before, y), textcoords="offset points", xytext=(6, 4), fontsize=8)
    left.set(xlabel="zero-shot accuracy (%)", ylabel="mean residual length |αx| / |t|", xlim=(0, 110))
    right.set(xlabel="zero-shot accuracy (%)", ylabel="points above zero-shot")
    right.axhline(0, color="#555555", linestyle="--", linewidth=1)
    return figure


def class_figure(norms: Sequence[float], before: Sequence[float], after: Sequence[float], names) -> Figure:
    """Per class: residual length, and test accuracy of zero-shot and with the residual."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.6), width_ratios=(1, 1.4))
    order = np.argsort(norms)
    left.barh(range(len(names)), np.asarray(norms)[order], color=COLOURS[0])
    left.set_yticks(range(len(names)), [names[i] for i in order], fontsize=8)
    left.set(xlabel="residual length |αx| / |t|")
    accuracies = {"zero-shot": [100 * before[i] for i in order], "TaskRes": [100 * after[i] for i in order]}
    bars(accuracies, [names[i] for i in order], "accuracy in %", axis=right)
    return figure


def use_figure(curves: Mapping[str, Sequence[float]], scales: Sequence[float], scale: float, trained: float) -> Figure:
    """Accuracy by split over the scale at use; dotted: the scale of training, solid line: the one in use."""
    figure, axis = plt.subplots(figsize=(6.2, 3.2))
    for i, (split, values) in enumerate(curves.items()):
        axis.plot(scales, 100 * np.asarray(values), marker=MARKERS[i], markersize=4, color=COLOURS[i], label=split)
    axis.axvline(trained, color="#555555", linestyle=":", label="scale of training")
    axis.axvline(scale, color="black", linewidth=1, label="scale in use")
    axis.set(xlabel="scale α at use", ylabel="accuracy (%)")
    axis.legend(fontsize=8)
    return figure


def explorer(
    measure: Callable[[str, float], Mapping[str, float]], bases: Sequence[str], scales: Sequence[float], trained: float
) -> widgets.VBox:
    """Choice of the base, slider for the scale at use; `trained` is the scale of training.

    measure: (base, scale) -> {split: accuracy}. ValueError for no bases or scales. Attributes: controls, picture,
    message.
    """
    if not bases or not scales:
        raise ValueError(f"bases={list(bases)} and scales={list(scales)} must not be empty")
    wide, measured = {"style": {"description_width": "110px"}}, once(measure, {})
    c = {
        "base": widgets.Dropdown(options=list(bases), value=bases[0], description="base", **wide),
        "scale": widgets.SelectionSlider(
            options=list(scales), value=scales[0], description="scale α", continuous_update=False, **wide
        ),
    }

    def look(base: str, scale: float) -> tuple[Figure, str]:
        rows = {s: measured(base, s) for s in scales}
        curves = {split: [rows[s][split] for s in scales] for split in rows[scale]}
        sentence = ", ".join(f"{split} {value:.1%}" for split, value in rows[scale].items())
        return use_figure(curves, scales, scale, trained), f"{base} base, α = {scale:g}: {sentence}"

    return panel(c, look)
