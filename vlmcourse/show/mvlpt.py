"""Figures and the explorer of "MVLPT": one prompt from many tasks, where it helps, which tasks belong together.

stages_figure(sources, target)          the two stages as a picture
start_figure(curves)                    training loss and validation accuracy from two starts
transfer_figure(matrix, names)          source x target: points above or below the target's own prompt
grouping_figure(change, names)          pairs of tasks tuned together: points against tuning alone
explorer(outcome, targets, shots)       a target and a number of shots: the curves from both starts
"""

from collections.abc import Callable, Mapping, Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from vlmcourse.show.panel import once, panel
from vlmcourse.show.style import COLOURS, MARKERS

Outcome = Mapping[str, Mapping[str, object]]  # {start: {"loss": per epoch, "accuracy": on the test images in %}}


def stages_figure(sources: Sequence[str] = ("A", "B", "C"), target: str = "target") -> Figure:
    """Left: the images of several tasks in one pool, one prompt, one softmax; right: the prompt moves to a new task."""
    figure, axis = plt.subplots(figsize=(9.4, 3.2))
    axis.set(xlim=(0, 14), ylim=(0, 4.3))
    axis.axis("off")

    def box(x, y, width, height, text, colour, size=9):
        shape = "round,pad=0.02,rounding_size=0.08"
        axis.add_patch(FancyBboxPatch((x, y), width, height, shape, facecolor=colour, edgecolor="black"))
        axis.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=size)

    def arrow(x0, y0, x1, y1):
        axis.annotate("", (x1, y1), (x0, y0), arrowprops={"arrowstyle": "->", "color": "black"})

    for i, name in enumerate(sources):
        y = 3.0 - i * 2.6 / max(1, len(sources) - 1)
        box(0.1, y, 2.6, 0.7, name, "#E6E6E6", 8)
        arrow(2.8, y + 0.35, 3.5, 2.05)
    box(3.6, 1.5, 1.6, 1.1, "one prompt\n(learned)", COLOURS[4])
    arrow(5.3, 2.05, 5.9, 2.05)
    box(6.0, 1.5, 1.9, 1.1, "softmax over\nall their classes", "#FFFFFF", 8)
    axis.text(4.4, 3.9, "1. source stage", ha="center", fontsize=10)
    axis.axvline(8.5, color="#999999", linestyle=":")
    box(9.0, 3.0, 2.0, 0.7, target, "#E6E6E6", 8)
    box(9.0, 0.9, 2.0, 1.1, "a copy of\nthe prompt", COLOURS[4])
    arrow(10.0, 2.9, 10.0, 2.1)
    arrow(11.1, 1.45, 11.8, 1.45)
    box(11.9, 0.9, 1.9, 1.1, "softmax over\nits own classes", "#FFFFFF", 8)
    axis.annotate("", (8.95, 1.2), (4.4, 1.4), arrowprops={"arrowstyle": "->", "color": COLOURS[1],
                  "connectionstyle": "arc3,rad=0.25", "linewidth": 1.6})  # fmt: skip
    axis.text(11.4, 3.9, "2. adaptation", ha="center", fontsize=10)
    return figure


def start_figure(starts: Outcome, title: str = "") -> Figure:
    """starts: {name: {"loss": one per epoch, "accuracy": in %}}: loss curves, and accuracies as bars."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.1), width_ratios=(3, 2))
    for i, (name, values) in enumerate(starts.items()):
        loss = list(values["loss"])
        style = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "markersize": 4}
        left.plot(np.arange(1, len(loss) + 1), loss, label=name, **style)
        drawn = right.bar(i, values["accuracy"], 0.6, color=COLOURS[i % len(COLOURS)], edgecolor="white")
        right.bar_label(drawn, fmt="%.1f", fontsize=9)
    left.set(xlabel="epoch", ylabel="training loss in nats", title=title, ylim=(0, None))
    left.legend(fontsize=8)
    right.set_xticks(range(len(starts)), list(starts))
    right.set(ylabel="test top-1 in %", ylim=(0, 105))
    return figure


def _signed(axis, matrix, rows, columns, label):
    matrix = np.asarray(matrix, dtype=float)
    top = max(1.0, float(np.nanmax(np.abs(matrix))))
    shown = axis.imshow(matrix, cmap="RdBu", vmin=-top, vmax=top, aspect="auto")
    axis.grid(False)
    axis.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
    axis.set_yticks(range(len(rows)), rows)
    for r, c in np.ndindex(matrix.shape):
        if np.isfinite(matrix[r, c]):
            colour = "white" if abs(matrix[r, c]) > 0.6 * top else "black"
            axis.text(c, r, f"{matrix[r, c]:+.1f}", ha="center", va="center", color=colour, fontsize=9)
    axis.figure.colorbar(shown, ax=axis, label=label)


def transfer_figure(matrix, sources: Sequence[str], targets: Sequence[str]) -> Figure:
    """matrix (S, T): accuracy of the source's prompt on the target, points above zero-shot; blank where it is nan."""
    figure, axis = plt.subplots(figsize=(2.6 + 1.1 * len(targets), 1.6 + 0.5 * len(sources)))
    _signed(axis, matrix, sources, targets, "points above zero-shot")
    axis.set(xlabel="target: whose test images", ylabel="source: who trained the prompt")
    return figure


def grouping_figure(change, names: Sequence[str]) -> Figure:
    """change (T, T): row t, column u: accuracy on t when tuned together with u, minus alone; diagonal nan."""
    figure, axis = plt.subplots(figsize=(2.6 + 1.1 * len(names), 1.6 + 0.5 * len(names)))
    _signed(axis, change, names, names, "points against tuning alone")
    axis.set(xlabel="partner", ylabel="task that is tested")
    return figure


def explorer(
    outcome: Callable[[str, int], Outcome], targets: Sequence[str], shots: Sequence[int],
    known: Mapping[tuple[str, int], Outcome] | None = None,
) -> widgets.VBox:  # fmt: skip
    """Choose a target task and the shots: both starts, fitted when first asked for.

    outcome: (target, shots) -> {start: {"loss", "accuracy"}}. Attribute known: what has been fitted. ValueError for no
    targets or no shots.
    """
    if not targets or not shots:
        raise ValueError(f"targets={list(targets)} and shots={list(shots)} must not be empty")
    known, wide = dict(known or {}), {"style": {"description_width": "100px"}}
    fitted = once(outcome, known)
    controls = {
        "target": widgets.Dropdown(options=list(targets), description="target task", **wide),
        "shots": widgets.SelectionSlider(options=list(shots), description="shots", continuous_update=False, **wide),
    }

    def look(target: str, count: int) -> tuple[Figure, str]:
        starts = fitted(target, count)
        words = ", ".join(f"{name}: {values['accuracy']:.1f} %" for name, values in starts.items())
        return start_figure(starts, f"{target}, {count} per class"), f"test top-1, {words}"

    box = panel(controls, look)
    box.known = known
    return box
