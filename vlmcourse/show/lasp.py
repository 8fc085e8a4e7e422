"""Figures and the explorer of "LASP": the two losses, text matched with text, base against new, what the norms did.

    losses_figure()                     the method as a picture
    match_figure(before, after, …)      learned against hand-written prompts, as probabilities
    halves_figure(results, …)           base and new accuracy per method, with error bars
    drift_figure(cosines, …)            how far class features are from their hand-written ones, base and new names
    norms_figure(changes)               how much each block's LayerNorms moved
    explorer(fit, …)                    weight alpha and the names that take part; one fit behind each setting
Shapes: K templates, C classes, E joint width.
"""

from collections.abc import Callable, Mapping, Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from vlmcourse.show.panel import once, panel
from vlmcourse.show.style import COLOURS, HATCHES, MARKERS

FROZEN, LEARNED = "#E6E6E6", COLOURS[4]


def losses_figure() -> Figure:
    """Three rows: hand-written prompts, learned prompts, images; the two losses between them."""
    figure, axis = plt.subplots(figsize=(8.8, 3.9))
    axis.set(xlim=(0, 12.2), ylim=(-0.4, 4.6))
    axis.axis("off")

    def box(x, y, width, text, colour=FROZEN, height=0.8, size=9):
        shape = "round,pad=0.02,rounding_size=0.1"
        axis.add_patch(FancyBboxPatch((x, y), width, height, shape, facecolor=colour, edgecolor="black", linewidth=0.8))
        axis.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=size)

    def arrow(x0, y0, x1, y1, colour="black", style="->"):
        axis.annotate("", (x1, y1), (x0, y0), arrowprops={"arrowstyle": style, "color": colour, "linewidth": 1.4})

    rows = (
        (3.5, "“an icon of a {name}.”\n“a blurry photo of a {name}.”  …", FROZEN, "text tower\n(frozen)", "$h_{k,c}$"),
        (1.9, "$v_1\\; v_2\\; v_3\\; v_4$  {name} .", LEARNED, "text tower\n(frozen)", "$t_c$"),
        (0.3, "labelled images", FROZEN, "image tower\nLayerNorms learned", "$f$"),
    )
    for y, text, colour, tower, feature in rows:
        box(0.1, y, 3.9, text, colour)
        arrow(4.08, y + 0.4, 4.6, y + 0.4)
        box(4.7, y, 2.2, tower, LEARNED if "learned" in tower else FROZEN)
        if feature == "$t_c$":
            box(7.45, y + 0.15, 0.6, "+ b", LEARNED, height=0.5, size=10)
            arrow(6.98, y + 0.4, 7.4, y + 0.4), arrow(8.12, y + 0.4, 8.5, y + 0.4)
        else:
            arrow(6.98, y + 0.4, 8.5, y + 0.4)
        box(8.6, y, 0.9, feature, size=12)
    for low, high, text in (
        (2.75, 3.45, "$L_{TT}$: text to text\nall names, no images"),
        (1.15, 1.85, "$L_{VL}$: image to text\nnames with images"),
    ):
        arrow(9.05, low, 9.05, high, COLOURS[1], "<->")
        axis.text(9.4, (low + high) / 2, text, color=COLOURS[1], va="center", fontsize=10)
    axis.text(6.7, -0.3, "orange: learned    grey: frozen", ha="center", fontsize=9)
    return figure


def match_figure(before, after, names: Sequence[str], titles: Sequence[str], n_base: int) -> Figure:
    """Two matrices (C, C) of probabilities: row a hand-written prompt's class, column the learned class that it picks.

    The line separates the first `n_base` names, which have images, from the others.
    """
    figure, axes = plt.subplots(1, 2, figsize=(9.2, 4.4), sharey=True)
    for axis, matrix, title in zip(axes, (before, after), titles, strict=True):
        shown = axis.imshow(np.asarray(matrix), vmin=0, vmax=1, cmap="viridis")
        axis.grid(False)
        axis.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axis.set_yticks(range(len(names)), names, fontsize=7)
        (
            axis.axhline(n_base - 0.5, color="white", linewidth=1.2),
            axis.axvline(n_base - 0.5, color="white", linewidth=1.2),
        )
        axis.set(title=title, xlabel="learned prompt")
    axes[0].set_ylabel("hand-written prompt")
    figure.colorbar(shown, ax=axes, label="probability", shrink=0.8)
    return figure


def halves_figure(results: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]]) -> Figure:
    """results: {task: {method: (base, new)}}, fractions per seed. A panel per task, mean and standard deviation."""
    figure, axes = plt.subplots(1, len(results), figsize=(4.6 * len(results), 3.3), squeeze=False)
    for axis, (task, methods) in zip(axes[0], results.items()):
        width = 0.84 / len(methods)
        for i, (name, parts) in enumerate(methods.items()):
            at = np.arange(2) + (i - (len(methods) - 1) / 2) * width
            mean, std = ([100 * f(p) for p in parts] for f in (np.mean, np.std))
            axis.bar(
                at, mean, width, yerr=std, capsize=2, label=name, color=COLOURS[i], hatch=HATCHES[i], edgecolor="white"
            )
        axis.set_xticks([0, 1], ["base classes", "new classes"])
        axis.set(title=task, ylim=(0, 108))
    axes[0, 0].set_ylabel("top-1 in %")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=9)
    return figure


def drift_figure(cosines: Mapping[str, Sequence[float]], names: Sequence[str], n_base: int) -> Figure:
    """For each name the mean cosine of its learned feature with its hand-written ones; a marker per method."""
    figure, axis = plt.subplots(figsize=(8.6, 3.2))
    at = np.arange(len(names))
    for i, (name, values) in enumerate(cosines.items()):
        axis.plot(at, values, MARKERS[i], color=COLOURS[i], label=name, markersize=6)
    axis.axvline(n_base - 0.5, color="#555555", linestyle="--", linewidth=1)
    axis.set_xticks(at, names, rotation=40, ha="right", fontsize=8)
    axis.set(ylabel="cosine with the hand-written\nprompts of the class", ylim=(None, 1.01))
    axis.legend(fontsize=8, loc="lower left")
    return figure


def norms_figure(changes: Mapping[str, Sequence[float]]) -> Figure:
    """changes: {kind of parameter: change per block in %}; grouped bars over the blocks."""
    figure, axis = plt.subplots(figsize=(6.4, 2.9))
    width = 0.8 / len(changes)
    for i, (name, values) in enumerate(changes.items()):
        at = np.arange(len(values)) + (i - (len(changes) - 1) / 2) * width
        axis.bar(at, values, width, label=name, color=COLOURS[i], hatch=HATCHES[i], edgecolor="white")
    axis.set_xticks(range(len(values)), [f"block {i + 1}" for i in range(len(values))])
    axis.set_ylabel("change of the norm's\nparameters in %")
    axis.legend(fontsize=8, ncols=2)
    return figure


def setting_figure(outcome: Mapping, zero_shot: tuple[float, float], title: str) -> Figure:
    """One fit: both losses over the epochs; base and new accuracy beside zero-shot."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.9))
    for i, (name, key) in enumerate((("image to text", "ce"), ("text to text", "text_to_text"))):
        at = np.arange(1, len(outcome[key]) + 1)
        left.plot(at, outcome[key], color=COLOURS[i], linestyle=("-", "--")[i], label=name)
    left.set(xlabel="epoch", ylabel="loss in nats", yscale="log", title=title)
    left.legend(fontsize=8)
    for i, (name, values) in enumerate((("zero-shot", zero_shot), ("LASP", (outcome["base"], outcome["new"])))):
        at, heights = np.arange(2) + 0.4 * i - 0.2, [100 * v for v in values]
        drawn = right.bar(
            at, heights, 0.38, label=name, color=("#999999", COLOURS[0])[i], hatch=HATCHES[i], edgecolor="white"
        )
        right.bar_label(drawn, fmt="%.0f", fontsize=8)
    right.set_xticks([0, 1], ["base classes", "new classes"])
    right.set(ylabel="top-1 in %", ylim=(0, 112))
    right.legend(fontsize=8)
    return figure


def explorer(
    fit: Callable[[float, str], Mapping], zero_shot: tuple[float, float], alphas: Sequence[float], names: Sequence[str],
    known: Mapping[tuple[float, str], Mapping] | None = None,
) -> widgets.VBox:  # fmt: skip
    """Slider for alpha, choice of the names; each setting is fitted once. fit: (alpha, names) -> outcome, see above.

    The box has the attributes `controls` (by name), `picture`, `message` and `known`. ValueError for no choices.
    """
    if not alphas or not names:
        raise ValueError(f"alphas={list(alphas)} and names={list(names)} must not be empty")
    known, wide = dict(known or {}), {"style": {"description_width": "120px"}}
    c = {
        "alpha": widgets.SelectionSlider(
            options=list(alphas), value=alphas[0], description="weight α", continuous_update=False, **wide
        ),
        "names": widgets.Dropdown(options=list(names), value=names[0], description="names in L_TT", **wide),
    }
    fitted = once(fit, known)

    def look(alpha: float, which: str) -> tuple[Figure, str]:
        outcome = fitted(alpha, which)
        figure = setting_figure(outcome, zero_shot, f"α = {alpha:g}, {which}")
        return figure, f"text-to-text loss at the end: {outcome['text_to_text'][-1]:.3f} nats"

    box = panel(c, look)
    box.known = known
    return box
