"""Figures and the explorer of "KgCoOp": class features on a spring, the price of the distance to the hand prompt.

    spring_figure()                        the method as a picture
    drift_figure(watched)                  distance and accuracy over the epochs, for several weights
    tradeoff_figure(results, zero_shot)    base and new accuracy over the distance, the weight beside each point
    class_figure(distances, names)         how far each class went, for several weights
    explorer(fit, zero_shot, …)            a slider for the weight and a choice of the hand prompt
Shapes: C classes. Accuracies are in %, lists are over the splits of the classes.
"""

from collections.abc import Callable, Mapping, Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from vlmcourse.show.figures import bars, curves
from vlmcourse.show.panel import once, panel
from vlmcourse.show.style import COLOURS, HATCHES, MARKERS

HAND, LEARNED = "#555555", COLOURS[4]


def spring_figure() -> Figure:
    """Unit circle with three hand features, three learned ones, images that pull and springs that hold."""
    figure, axis = plt.subplots(figsize=(7.2, 4.0))
    angle = np.linspace(0.05, np.pi - 0.05, 100)
    axis.plot(np.cos(angle), np.sin(angle), color="#BBBBBB", linewidth=1)
    draw = np.random.default_rng(0)
    for c, (hand, learned, images) in enumerate(((0.9, 0.55, 0.35), (1.55, 1.75, 1.9), (2.15, 2.5, 2.7)), start=1):
        cloud = images + draw.normal(0, 0.05, 9)
        radius = 1 + draw.normal(0, 0.012, 9)
        axis.plot(radius * np.cos(cloud), radius * np.sin(cloud), ".", color=COLOURS[0], markersize=5)
        t = np.linspace(0, 1, 60)
        way = hand + (learned - hand) * t
        zigzag = 1.09 + 0.025 * np.sin(14 * np.pi * t) * (t > 0.1) * (t < 0.9)
        axis.plot(zigzag * np.cos(way), zigzag * np.sin(way), color=COLOURS[1], linewidth=1.3)
        axis.plot(np.cos(hand), np.sin(hand), "s", color=HAND, markersize=10)
        axis.plot(np.cos(learned), np.sin(learned), "o", color=LEARNED, markeredgecolor="black", markersize=10)
        axis.annotate(f"$g_{c}$", (0.86 * np.cos(hand), 0.86 * np.sin(hand)), ha="center", va="center", fontsize=12)
        axis.annotate(
            f"$w_{c}$", (0.86 * np.cos(learned), 0.86 * np.sin(learned)), ha="center", va="center", fontsize=12
        )
    handles = [
        plt.Line2D([], [], marker="s", linestyle="", color=HAND, label="hand prompt $g_c$, fixed"),
        plt.Line2D([], [], marker="o", linestyle="", color=LEARNED, markeredgecolor="black", label="learned $w_c$"),
        plt.Line2D([], [], marker=".", linestyle="", color=COLOURS[0], label="images: cross-entropy pulls"),
        plt.Line2D([], [], color=COLOURS[1], label="spring of strength λ: the distance term holds"),
    ]
    axis.legend(handles=handles, loc="lower center", fontsize=9)
    axis.set(xlim=(-1.25, 1.25), ylim=(-0.12, 1.2), aspect="equal")
    axis.axis("off")
    return figure


def drift_figure(watched: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """watched: {name: {"epoch", "distance", "base", "new"}}, one list each: distance, base and new over the epochs."""
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2))
    labels = {"distance": "distance to the hand prompt", "base": "top-1 on base classes in %",
              "new": "top-1 on new classes in %"}  # fmt: skip
    for axis, (key, label) in zip(axes, labels.items(), strict=True):
        for i, (name, rows) in enumerate(watched.items()):
            style = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "markersize": 4}
            axis.plot(rows["epoch"], rows[key], label=name, **style)
        axis.set(xlabel="epoch", title=label)
    axes[0].legend(fontsize=8)
    return figure


def tradeoff_figure(
    results: Mapping[float, Mapping[str, Sequence[float]]], zero_shot: Mapping[str, Sequence[float]]
) -> Figure:
    """results: {weight: {"distance", "base", "new"}}, zero_shot: {"base", "new"}; lists over the splits.

    Left: mean accuracy over mean distance on the new classes. Right: the change on new classes, split by split.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.9))
    x = [np.mean(rows["distance"]) for rows in results.values()]
    for i, part in enumerate(("base", "new")):
        mean = np.array([np.mean(rows[part]) for rows in results.values()])
        left.plot(x, mean, marker=MARKERS[i], color=COLOURS[i], label=f"{part} classes")
        left.axhline(
            np.mean(zero_shot[part]), color=COLOURS[i], linestyle="--", linewidth=1, label=f"zero-shot, {part}"
        )
    for weight, at, rows in zip(results, x, results.values(), strict=True):
        left.annotate(
            f"λ={weight:g}", (at, np.mean(rows["base"])), textcoords="offset points", xytext=(3, 7), fontsize=8
        )
    left.set(xlabel="distance to the hand prompts of the new classes", ylabel="top-1 in %", ylim=(0, 100))
    left.set_xscale("log")
    left.legend(fontsize=8)
    for i, (weight, rows) in enumerate(results.items()):
        change = np.asarray(rows["new"]) - np.asarray(zero_shot["new"])
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        right.plot(rows["distance"], change, marker, color=colour, label=f"λ={weight:g}")
    right.axhline(0, color="#555555", linestyle="--", linewidth=1)
    right.set(xlabel="distance to the hand prompts of the new classes", ylabel="new classes: points above zero-shot")
    right.set_xscale("log")
    right.legend(fontsize=8)
    return figure


def class_figure(distances: Mapping[str, Tensor], names: Sequence[str], new_from: int) -> Figure:
    """Distance of each class to its hand prompt, bars by name of the run; a line before class `new_from`."""
    figure, axis = plt.subplots(figsize=(9, 3.4))
    bars({name: d.tolist() for name, d in distances.items()}, list(names), "1 − cosine to the hand prompt", axis=axis)
    axis.axvline(new_from - 0.5, color="black", linestyle=":", linewidth=1)
    top = axis.get_ylim()[1]
    axis.text(new_from - 0.6, top, "base classes", ha="right", va="top", fontsize=9)
    axis.text(new_from - 0.4, top, "new classes", ha="left", va="top", fontsize=9)
    return figure


Outcome = Mapping[str, object]  # {"cross_entropy", "distance": per epoch, "base", "new": in %}


def outcome_figure(outcome: Outcome, zero_shot: tuple[float, float], title: str) -> Figure:
    """One fit: the two parts of its loss over the epochs, and base and new accuracy beside zero-shot."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10, 2.9))
    for axis, key, label in ((left, "cross_entropy", "cross-entropy in nats"), (middle, "distance", "distance")):
        curves({key: outcome[key]}, ylabel=label, axis=axis, markers=False)
        axis.set_ylim(0, None)
    left.set_title(title, fontsize=9)
    for i, (name, values) in enumerate((("zero-shot", zero_shot), ("KgCoOp", (outcome["base"], outcome["new"])))):
        colour = ("#999999", COLOURS[0])[i]
        at = np.arange(2) + 0.4 * i - 0.2
        drawn = right.bar(at, values, 0.38, label=name, color=colour, hatch=HATCHES[i], edgecolor="white")
        right.bar_label(drawn, fmt="%.0f", fontsize=8)
    right.set_xticks([0, 1], ["base classes", "new classes"])
    right.set(ylabel="top-1 in %", ylim=(0, 112))
    right.legend(fontsize=8, loc="upper right")
    return figure


def explorer(
    fit: Callable[[float, str], Outcome], zero_shot: tuple[float, float], weights: Sequence[float],
    prompts: Sequence[str], known: Mapping[tuple[float, str], Outcome] | None = None,
) -> widgets.VBox:  # fmt: skip
    """Slider for the weight, choice of the hand prompt; each setting is fitted once, when it is first asked for.

    fit: (weight, prompt) -> outcome. zero_shot: (base, new) in %. Attributes: controls, picture, message, known.
    ValueError for no weights or no prompts.
    """
    if not weights or not prompts:
        raise ValueError(f"weights={list(weights)} and prompts={list(prompts)} must not be empty")
    known, wide = dict(known or {}), {"style": {"description_width": "110px"}}
    c = {
        "weight": widgets.SelectionSlider(
            options=list(weights), value=weights[0], description="weight λ", continuous_update=False, **wide
        ),
        "prompt": widgets.Dropdown(options=list(prompts), value=prompts[0], description="hand prompt", **wide),
    }
    fitted = once(fit, known)

    def look(weight: float, prompt: str) -> tuple[Figure, str]:
        outcome = fitted(weight, prompt)
        figure = outcome_figure(outcome, zero_shot, f"λ = {weight:g}, {prompt}")
        return figure, f"distance to the hand prompt after the last epoch: {outcome['distance'][-1]:.3f}"

    box = panel(c, look)
    box.known = known
    return box
