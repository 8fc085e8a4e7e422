"""Figures and the explorer of "SoftCPT": the network that writes contexts, what the tasks share, what a name does.

    sharing_figure(names)                        the method as a picture
    relation_figure(features, contexts, names)   cosines between task features and between the contexts made of them
    joining_figure(results)                      accuracy over the number of tasks learned together
    explorer(score, tasks, known)                a task under another name: a choice of both, accuracy as bars
Shapes: T tasks, M context tokens, D text width, E joint width.
"""

from collections.abc import Callable, Mapping, Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import Tensor

from vlmcourse.show.figures import bars, curves
from vlmcourse.show.panel import once, panel
from vlmcourse.show.style import COLOURS

FROZEN, LEARNED, MADE = "#E6E6E6", COLOURS[4], "#FFFFFF"


def sharing_figure(names: Sequence[str] = ("things", "signs"), classes: Sequence[str] = ("crown", "funnel")) -> Figure:
    """One row per task: its name with the task context, text tower, shared linear map, context, class prompt."""
    figure, axis = plt.subplots(figsize=(9.6, 1.5 + 0.9 * len(names)))
    axis.set(xlim=(0, 14.2), ylim=(-0.9, len(names) * 1.2 + 0.5))
    axis.axis("off")

    def box(x, y, width, height, text, colour, size=9):
        shape = "round,pad=0.02,rounding_size=0.08"
        style = {"facecolor": colour, "edgecolor": "black", "linewidth": 1.6 if colour == LEARNED else 0.8}
        axis.add_patch(FancyBboxPatch((x, y), width, height, shape, **style))
        axis.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=size)

    def arrow(x0, y0, x1, y1):
        axis.annotate("", (x1, y1), (x0, y0), arrowprops={"arrowstyle": "->", "color": "black"})

    top = 1.2 * len(names)
    for row, (name, word) in enumerate(zip(names, classes, strict=True)):
        y = top - 1.2 * (row + 1) + 0.2
        box(0.1, y, 0.9, 0.7, "$u$", LEARNED)
        box(1.05, y, 1.75, 0.7, name, FROZEN)
        arrow(2.9, y + 0.35, 3.3, y + 0.35)
        arrow(4.75, y + 0.35, 5.5, y + 0.35)
        axis.text(5.12, y + 0.45, f"$F_{row + 1}$", ha="center", fontsize=10)
        arrow(6.55, y + 0.35, 7.05, y + 0.35)
        box(7.1, y, 1.35, 0.7, f"$V_{row + 1}$", MADE, 10)
        box(8.5, y, 1.5, 0.7, word + " .", FROZEN)
        arrow(10.1, y + 0.35, 10.6, y + 0.35)
        arrow(12.0, y + 0.35, 12.5, y + 0.35)
        box(12.55, y, 1.5, 0.7, f"CE, task {row + 1}", MADE, 8)
    height = top - 0.5
    box(3.35, 0.2, 1.35, height, "text tower\n(frozen)", FROZEN)
    box(5.55, 0.2, 0.95, height, "$P$\nlinear", LEARNED, 10)
    box(10.65, 0.2, 1.3, height, "text tower\n(frozen)", FROZEN)
    axis.text(1.45, top + 0.15, "task context and task name", ha="center", fontsize=8)
    axis.text(8.55, top + 0.15, "context made for the task, class name", ha="center", fontsize=8)
    axis.text(
        7.1, -0.6, "orange: learned, one copy for all tasks; grey: frozen; white: computed", ha="center", fontsize=9
    )
    return figure


def relation_figure(features: Tensor, contexts: Tensor, names: Sequence[str]) -> Figure:
    """Cosines between tasks: their features (T, E), and the contexts (T, M, D) that the network made of them."""
    both = [F.normalize(t.detach().float().cpu().flatten(1), dim=-1) for t in (features, contexts)]
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.6), sharey=True)
    low = min(float((t @ t.T).min()) for t in both)
    for axis, t, title in zip(axes, both, ("task features F", "contexts V")):
        matrix = (t @ t.T).numpy()
        shown = axis.imshow(matrix, vmin=low, vmax=1, cmap="viridis")
        axis.grid(False)
        axis.set_xticks(range(len(names)), names, rotation=30, ha="right")
        axis.set_yticks(range(len(names)), names)
        axis.set_title(title)
        for r, c in np.ndindex(matrix.shape):
            colour = "black" if matrix[r, c] > (1 + low) / 2 else "white"
            axis.text(c, r, f"{matrix[r, c]:.2f}", ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(shown, ax=axes, label="cosine", shrink=0.85)
    return figure


def joining_figure(
    results: Mapping[str, Mapping[int, Sequence[float]]], levels: Mapping[str, float], title=""
) -> Figure:
    """results: {method: {number of tasks: top-1 in % per seed}}; levels: {name: top-1 in %}, horizontal lines."""
    figure, axis = plt.subplots(figsize=(6.4, 3.4))
    counts = sorted({n for values in results.values() for n in values})
    for i, (name, values) in enumerate(results.items()):
        at = sorted(values)
        mean, std = ({name: [float(f(values[n])) for n in at]} for f in (np.mean, np.std))
        curves(mean, x=at, spread=std, axis=axis)
        for artist in (axis.get_lines()[-1], axis.collections[-1]):
            artist.set_color(COLOURS[i % len(COLOURS)])
        axis.get_lines()[-1].set_marker("os^D"[i % 4])
    for style, (name, level) in zip(("--", ":", "-."), levels.items()):
        axis.axhline(level, color="#555555", linestyle=style, linewidth=1.2, label=name)
    axis.set_xticks(counts, [str(n) for n in counts])
    axis.set(xlabel="tasks learned together", ylabel="test top-1 in %", title=title)
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def names_figure(accuracies: Mapping[str, float], own: str, zero_shot: float, title: str = "") -> Figure:
    """Test top-1 in % of one task under several names; `own` is the name it was learned with."""
    labels = [f"{name} (its own)" if name == own else name for name in accuracies]
    figure, axis = plt.subplots(figsize=(6.8, 3))
    bars(
        {"top-1": list(accuracies.values())},
        labels,
        "test top-1 in %",
        axis=axis,
        line=zero_shot,
        line_label="zero-shot",
    )
    axis.set_ylim(0, 1.3 * max([*accuracies.values(), zero_shot]))
    axis.legend(fontsize=8, ncols=2, loc="upper right")
    axis.set_title(title)
    return figure


def explorer(
    score: Callable[[str, str], float], tasks: Sequence[str], zero_shot: Mapping[str, float],
    names: Sequence[str], known: Mapping[tuple[str, str], float] | None = None,
) -> widgets.VBox:  # fmt: skip
    """Choose a task and type a name for it: its context is computed from that name.

    score: (task, name) -> top-1 in %. zero_shot: by task, in %. names: suggestions. known: scores that are there. The
    box is a `panel` with the attribute `known`. ValueError for no tasks.
    """
    if not tasks:
        raise ValueError(f"tasks={list(tasks)} must not be empty")
    known, wide = dict(known or {}), {"style": {"description_width": "90px"}}
    c = {
        "task": widgets.Dropdown(options=list(tasks), value=tasks[0], description="task", **wide),
        "name": widgets.Combobox(
            options=list(names), value=names[0], description="its name", continuous_update=False, **wide
        ),
    }
    score = once(score, known)

    def look(task: str, name: str) -> tuple[Figure | None, str]:
        name = name.strip()
        if not name:
            return None, "type a name"
        own, other = score(task, task), score(task, name)
        shown = {n: value for (t, n), value in known.items() if t == task}
        figure = names_figure(shown, task, zero_shot[task], f"{task}: accuracy under each name")
        return figure, f"called {name!r}: {other:.1f} %; under its own name: {own:.1f} %"

    box = panel(c, look)
    box.known = known
    return box
