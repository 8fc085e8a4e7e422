"""Figures and the explorer of "UPT": one set of tokens for two towers, what it mixes, and what each tower gains.

    unified_figure()                          the method as a picture
    variance_figure(intra, inter)             spread of images within a class and of texts between classes, by task
    gain_figure(spread, gains, xlabels)       gain of a method over zero-shot, against these spreads
    influence_figure(matrices, count)         how far moving one unified token moves each prompt
    explorer(score)                           learned or original prompts in either tower: accuracy by class
Shapes: M prompts for each tower, C classes. Accuracies and gains are in %.
"""

from collections.abc import Callable, Mapping, Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import Tensor

from vlmcourse.show.figures import bars
from vlmcourse.show.panel import panel
from vlmcourse.show.style import COLOURS, MARKERS

TEXT, IMAGE, FROZEN = COLOURS[0], COLOURS[1], "#E6E6E6"
TEXT_CHOICES, IMAGE_CHOICES = ("learned", "hand-written"), ("learned", "none")


def unified_figure(count: int = 4) -> Figure:
    """Unified tokens, tiny transformer, the two halves, and where each of them joins a frozen tower."""
    figure, axis = plt.subplots(figsize=(9.2, 3.6))
    axis.set(xlim=(0, 13.2), ylim=(-0.3, 5.2))
    axis.axis("off")

    def box(x, y, width, height, text, colour, size=9, alpha=1.0):
        style = {"facecolor": colour, "edgecolor": "black", "alpha": alpha}
        axis.add_patch(FancyBboxPatch((x, y), width, height, "round,pad=0.02,rounding_size=0.08", **style))
        axis.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=size)

    def arrow(x0, y0, x1, y1):
        axis.annotate("", (x1, y1), (x0, y0), arrowprops={"arrowstyle": "->", "color": "black"})

    for i in range(2 * count):
        y = 4.3 - 0.55 * i
        box(0.2, y, 1.0, 0.42, f"$u_{{{i + 1}}}$", TEXT if i < count else IMAGE, alpha=0.35)
        arrow(1.3, y + 0.21, 2.0, y + 0.21)
        box(4.5, y, 1.0, 0.42, f"$t_{{{i + 1}}}$" if i < count else f"$v_{{{i + 1 - count}}}$",
            TEXT if i < count else IMAGE, alpha=0.35)  # fmt: skip
        arrow(3.75, y + 0.21, 4.4, y + 0.21)
    bottom = 4.3 - 0.55 * (2 * count - 1)
    box(2.05, bottom, 1.65, 4.72 - bottom, "tiny\ntransformer\n(learned)", COLOURS[4])
    upper, lower = 4.3 - 0.55 * (count - 1) / 2, 4.3 - 0.55 * (3 * count - 1) / 2
    arrow(5.6, upper + 0.21, 6.3, upper + 0.21)
    arrow(5.6, lower + 0.21, 6.3, lower + 0.21)
    for y, first, prompts, rest, colour, tower in (
        (upper, "start", "$T$", "name . end", TEXT, "text tower"),
        (lower, "class token", "$V W_v$", "patches", IMAGE, "image tower"),
    ):
        box(6.4, y - 0.1, 1.25, 0.62, first, FROZEN, 8)
        box(7.7, y - 0.1, 0.9, 0.62, prompts, colour, alpha=0.35)
        box(8.65, y - 0.1, 1.25, 0.62, rest, FROZEN, 8)
        arrow(10.0, y + 0.21, 10.5, y + 0.21)
        box(10.55, y - 0.35, 1.35, 1.1, f"{tower}\n(frozen)", FROZEN, 8)
        arrow(12.0, y + 0.21, 12.5, (upper + lower) / 2 + (0.45 if y == upper else 0.0))
    axis.text(12.85, (upper + lower) / 2 + 0.22, "CE", ha="center", va="center", fontsize=10)
    return figure


def variance_figure(intra: Mapping[str, float], inter: Mapping[str, float]) -> Figure:
    """Two panels of bars, {task: variance}: images within a class, text features between classes."""
    figure, axes = plt.subplots(1, 2, figsize=(9.2, 3.2))
    for axis, values, label, colour in (
        (axes[0], intra, "images: variance within a class", IMAGE),
        (axes[1], inter, "texts: variance between classes", TEXT),
    ):
        order = sorted(values, key=values.__getitem__)
        drawn = axis.barh(order, [values[name] for name in order], color=colour, edgecolor="white")
        axis.bar_label(drawn, fmt="%.2f", fontsize=8, padding=2)
        axis.set(xlabel=label, xlim=(0, 1.15 * max(values.values())))
    return figure


def gain_figure(panels: Mapping[str, tuple[str, Mapping[str, float], Mapping[str, Sequence[float]]]]) -> Figure:
    """panels: {title: (x label, {task: variance}, {task: gains over zero-shot in points, one per seed})}."""
    figure, axes = plt.subplots(1, len(panels), figsize=(4.6 * len(panels), 3.4), squeeze=False)
    for axis, (title, (label, spread, gains)) in zip(axes[0], panels.items(), strict=True):
        for i, (task, values) in enumerate(gains.items()):
            style = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
            axis.errorbar(spread[task], np.mean(values), np.std(values), label=task, capsize=2, linestyle="", **style)
        axis.axhline(0, color="#555555", linestyle="--", linewidth=1)
        axis.set(xlabel=label, ylabel="points above zero-shot", title=title)
    axes[0, 0].legend(fontsize=8)
    return figure


def influence_figure(matrices: Mapping[str, Tensor], count: int) -> Figure:
    """matrices: {name: (2 M, 2 M)}, row i column k: how far prompt i moves when token k does; count: M. The scale is
    logarithmic, grey is exactly zero. ValueError where all of them are zero."""
    labels = [f"u{k + 1}" for k in range(2 * count)]
    rows = [f"t{i + 1}" for i in range(count)] + [f"v{i + 1}" for i in range(count)]
    values = {name: np.ma.masked_equal(matrix.detach().cpu().numpy(), 0) for name, matrix in matrices.items()}
    if all(v.count() == 0 for v in values.values()):  # nothing to scale by
        raise ValueError(f"matrices={list(matrices)} have no entry above 0")
    found = np.ma.concatenate([v.ravel() for v in values.values()])
    colours = plt.get_cmap("viridis").with_extremes(bad="#DDDDDD")
    figure, axes = plt.subplots(1, len(matrices), figsize=(4.4 * len(matrices), 3.7), squeeze=False)
    for axis, (name, matrix) in zip(axes[0], values.items(), strict=True):
        shown = axis.imshow(matrix, cmap=colours, norm=LogNorm(found.min(), found.max()))
        axis.grid(False)
        for line in (axis.axhline, axis.axvline):
            line(count - 0.5, color="white", linewidth=1)
        axis.set_xticks(range(2 * count), labels)
        axis.set_yticks(range(2 * count), rows)
        axis.set(xlabel="unified token that is moved", ylabel="prompt that follows", title=name)
    figure.colorbar(shown, ax=list(axes[0]), label="movement of the prompt / of the token")
    return figure


def class_figure(accuracies: Mapping[str, Sequence[float]], names: Sequence[str]) -> Figure:
    """Accuracy of each class in %, bars by name of the setting."""
    figure, axis = plt.subplots(figsize=(9, 3.2))
    bars(accuracies, list(names), "test top-1 in %", axis=axis)
    axis.set_ylim(0, 105)
    return figure


def explorer(score: Callable[[str, str, str], Sequence[float]], tasks: Mapping[str, Sequence[str]]) -> widgets.VBox:
    """Choose a task, the text prompts and the visual prompts: accuracy by class beside that of the unadapted model.

    score: (task, one of TEXT_CHOICES, one of IMAGE_CHOICES) -> accuracy of each class in %. tasks: {name: class names}.
    ValueError for no tasks.
    """
    if not tasks:
        raise ValueError("tasks={} must have at least one task")
    wide = {"style": {"description_width": "100px"}}
    controls = {
        "task": widgets.Dropdown(options=list(tasks), description="task", **wide),
        "text": widgets.Dropdown(options=TEXT_CHOICES, description="text prompts", **wide),
        "image": widgets.Dropdown(options=IMAGE_CHOICES, description="visual prompts", **wide),
    }

    def look(task: str, text: str, image: str) -> tuple[Figure, str]:
        before, now = score(task, "hand-written", "none"), score(task, text, image)
        figure = class_figure({"hand-written, none": before, f"{text}, {image}": now}, tasks[task])
        return figure, f"mean over the classes: {np.mean(before):.1f} % before, {np.mean(now):.1f} % with this choice"

    return panel(controls, look)
