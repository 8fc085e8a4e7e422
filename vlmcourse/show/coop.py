"""Figures and the explorer of "CoOp": the prompt with open slots, wordings, words near a context, base against new.

    prompt_figure()                        the method as a picture
    wording_figure(templates, val, test)   one dot per hand-written template
    vocabulary_figure(table, start, end)   where a learned context lies among the words
    similarity_figure(before, after, …)    cosines between class features, before and after
    forgetting_figure(results, …)          base and new accuracy over the number of context tokens
    explorer(fit)                          a slider for M, a choice of the start, one quick fit behind each setting
Shapes: C classes, M context tokens, V vocabulary, D text width.
"""

from collections.abc import Callable, Mapping, Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import Tensor

from vlmcourse.show.figures import curves
from vlmcourse.show.panel import once, panel
from vlmcourse.show.style import COLOURS, HATCHES, MARKERS

FROZEN, LEARNED = "#E6E6E6", COLOURS[4]


def prompt_figure(n_ctx: int = 4, names: Sequence[str] = ("crown", "dart board", "bed")) -> Figure:
    """One row of tokens per class: shared slots, the frozen name; text tower, class features, logits, loss."""
    figure, axis = plt.subplots(figsize=(9.4, 3.5))
    axis.set(xlim=(0, 13.6), ylim=(-0.9, len(names) + 1.25))
    axis.axis("off")

    def box(x, y, width, text, learned=False, height=0.62, size=9):
        style = {"facecolor": LEARNED, "linewidth": 1.6} if learned else {"facecolor": FROZEN, "linewidth": 0.7}
        shape = "round,pad=0.02,rounding_size=0.08"
        axis.add_patch(FancyBboxPatch((x, y), width, height, shape, edgecolor="black", **style))
        axis.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=size)

    def arrow(x0, y0, x1, y1, **style):
        axis.annotate("", (x1, y1), (x0, y0), arrowprops={"arrowstyle": "->", "color": "black", **style})

    shown = [f"$v_{m + 1}$" for m in range(n_ctx)] if n_ctx <= 4 else ["$v_1$", "$v_2$", "…", f"$v_{{{n_ctx}}}$"]
    start, step, top = 1.05, 0.62, len(names) * 0.9
    for row, name in enumerate(names):
        y = top - 0.9 * (row + 1) + 0.4
        box(0.1, y, 0.85, "SOS")
        for m, text in enumerate(shown):
            box(start + step * m, y, 0.52, text, learned=True)
        x = start + step * len(shown)
        box(x, y, 1.6, name)
        box(x + 1.7, y, 0.4, ".")
        box(x + 2.2, y, 0.7, "EOT")
        arrow(x + 2.98, y + 0.31, 7.2, y + 0.31)
        arrow(8.85, y + 0.31, 9.3, y + 0.31)
        box(9.35, y, 0.8, f"$w_{row + 1}$")
    middle, height = (top + 0.12) / 2 + 0.12, 0.9 * len(names) - 0.25
    box(7.25, 0.4, 1.55, "text tower\n(frozen)", height=height)
    box(10.85, middle - 0.36, 1.2, "$s\\,f W^\\top$", height=0.72, size=11)
    arrow(10.22, middle, 10.8, middle)
    box(12.5, middle - 0.36, 0.95, "CE loss", height=0.72)
    arrow(12.1, middle, 12.45, middle)
    box(10.55, top + 0.45, 1.8, "image tower\n(frozen)", height=0.72, size=8)
    arrow(11.45, top + 0.4, 11.45, middle + 0.42)
    axis.text(11.55, (top + middle) / 2 + 0.42, "$f$", fontsize=11, va="center")
    mid = start + step * len(shown) / 2
    axis.annotate("", (mid, 0.3), (12.95, middle - 0.42), arrowprops={
        "arrowstyle": "->", "color": COLOURS[1], "linestyle": "--", "connectionstyle": "bar,angle=180,fraction=-0.13"
    })  # fmt: skip
    axis.text(7.6, -0.72, "gradient: through the frozen tower, into the slots only", ha="center", color=COLOURS[1])
    axis.text(mid, top + 0.6, "M learned vectors,\nthe same for every class", ha="center", fontsize=9)
    return figure


def wording_figure(templates: Sequence[str], val: Sequence[float], test: Sequence[float], chosen: int) -> Figure:
    """Accuracy in % of each template on val and test, sorted by test; chosen: the template that val would choose."""
    order = np.argsort(test)
    figure, axis = plt.subplots(figsize=(7.4, 0.9 + 0.2 * len(templates)))
    rows = np.arange(len(order))
    axis.hlines(rows, np.minimum(val, test)[order], np.maximum(val, test)[order], color="#BBBBBB", linewidth=1)
    open_square = {"marker": "s", "markersize": 4, "markerfacecolor": "none", "linestyle": ""}
    axis.plot(np.asarray(val)[order], rows, color=COLOURS[1], label="validation", **open_square)
    axis.plot(np.asarray(test)[order], rows, "o", markersize=5, color=COLOURS[0], label="test")
    axis.set_yticks(rows, [f"→ {templates[i]}" if i == chosen else templates[i] for i in order], fontsize=7)
    axis.set(xlabel="zero-shot top-1 in %", ylim=(-0.7, len(order) - 0.3))
    axis.legend(loc="lower right")
    return figure


def vocabulary_figure(table: Tensor, start: Tensor, end: Tensor) -> Figure:
    """Left: principal plane of the vocabulary (V, D) with the context (M, D) at the start and after training.

    Right: how far each word is from its nearest neighbour, and how far each context vector is from its nearest word.
    """
    table, start, end = (t.detach().float().cpu() for t in (table, start, end))
    centre = table.mean(0)
    axes_of = torch.linalg.svd(table - centre, full_matrices=False).Vh[:2]  # (2, D)
    words, before, after = (((t - centre) @ axes_of.T).numpy() for t in (table, start, end))
    own = torch.cdist(table, table).fill_diagonal_(torch.inf).min(1).values
    from_start, from_end = (torch.cdist(t, table).min(1).values for t in (start, end))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    left.plot(*words.T, ".", color="#BBBBBB", markersize=2, label="words", rasterized=True)
    for a, b in zip(before, after):
        left.annotate("", b.tolist(), a.tolist(), arrowprops={"arrowstyle": "->", "color": "black", "linewidth": 0.8})
    left.plot(*before.T, MARKERS[1], color=COLOURS[4], label="context, start")
    left.plot(*after.T, MARKERS[2], color=COLOURS[1], label="context, learned")
    left.set(xlabel="first principal component", ylabel="second", title="seen from above: two of many dimensions")
    left.legend(fontsize=8, loc="best")
    bins = np.linspace(0, 1.05 * max(float(own.max()), float(from_end.max())), 40)
    step = {"density": True, "histtype": "step", "linewidth": 1.6}
    right.hist(own.numpy(), bins, density=True, color="#BBBBBB", label="word to nearest other word")
    right.hist(from_start.numpy(), bins, color=COLOURS[4], label="start to nearest word", **step)
    right.hist(from_end.numpy(), bins, color=COLOURS[1], linestyle="--", label="learned to nearest word", **step)
    right.set(xlabel="Euclidean distance in embedding space", ylabel="density", title="how near is the nearest word?")
    right.legend(fontsize=8)
    return figure


def similarity_figure(before: Tensor, after: Tensor, names: Sequence[str], titles: Sequence[str]) -> Figure:
    """Cosines between the class features (C, E) of two classifiers, side by side, on one scale."""
    both = [(w @ w.T).detach().float().cpu().numpy() for w in (before, after)]
    low = min(float(m.min()) for m in both)
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 4.6), sharey=True)
    for axis, matrix, title in zip(axes, both, titles):
        shown = axis.imshow(matrix, vmin=low, vmax=1, cmap="viridis")
        axis.grid(False)
        axis.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axis.set_yticks(range(len(names)), names, fontsize=7)
        axis.set_title(title)
    figure.colorbar(shown, ax=axes, label="cosine between class features", shrink=0.8)
    return figure


Outcome = Mapping[str, object]  # {"loss": per epoch, "base", "new": fractions, "words": one per context vector}


def forgetting_figure(results: Mapping[tuple[str, int], Outcome], zero_shot: tuple[float, float]) -> Figure:
    """Base and new accuracy over M; results: {(start, M): outcome}, zero_shot: (base, new) as fractions."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.1), sharey=True)
    lengths = sorted({m for _, m in results})
    for axis, part, level in zip(axes, ("base", "new"), zero_shot):
        series = {
            f"start: {start}": [100 * results[start, m][part] for m in lengths]
            for start in dict.fromkeys(start for start, _ in results)
        }
        curves(series, x=lengths, xlabel="context tokens M", log_x=True, axis=axis)
        axis.axhline(100 * level, color="#555555", linestyle="--", linewidth=1, label="zero-shot")
        axis.set_title(f"{part} classes")
        axis.legend(fontsize=8)
    axes[0].set_ylabel("top-1 in %")
    return figure


def outcome_figure(outcome: Outcome, zero_shot: tuple[float, float], title: str) -> Figure:
    """One fit: the loss per epoch, and base and new accuracy beside zero-shot."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 2.8))
    left.plot(np.arange(1, len(outcome["loss"]) + 1), outcome["loss"], color=COLOURS[0])
    left.set(xlabel="epoch", ylabel="training loss in nats", ylim=(0, None), title=title)
    for i, (name, values) in enumerate((("zero-shot", zero_shot), ("CoOp", (outcome["base"], outcome["new"])))):
        at, heights = np.arange(2) + 0.4 * i - 0.2, [100 * v for v in values]
        colour = ("#999999", COLOURS[0])[i]
        drawn = right.bar(at, heights, 0.38, label=name, color=colour, hatch=HATCHES[i], edgecolor="white")
        right.bar_label(drawn, fmt="%.0f", fontsize=8)
    right.set_xticks([0, 1], ["base classes", "new classes"])
    right.set(ylabel="top-1 in %", ylim=(0, 112))
    right.legend(fontsize=8, loc="upper right")
    return figure


def explorer(
    fit: Callable[[str, int], Outcome], zero_shot: tuple[float, float], starts: Sequence[str],
    lengths: Sequence[int] = (1, 2, 4, 8, 16), known: Mapping[tuple[str, int], Outcome] | None = None,
) -> widgets.VBox:  # fmt: skip
    """Slider for M and choice of the start; each setting is fitted once, when it is first asked for.

    fit: (start, M) -> outcome. zero_shot: (base, new) as fractions. known: outcomes that are there already. The box has
    the attributes `controls` (by name), `picture`, `message` and `known`. ValueError for no starts or no lengths.
    """
    if not starts or not lengths:
        raise ValueError(f"starts={list(starts)} and lengths={list(lengths)} must not be empty")
    known, wide = dict(known or {}), {"style": {"description_width": "110px"}}
    c = {
        "length": widgets.SelectionSlider(
            options=list(lengths), value=lengths[0], description="tokens M", continuous_update=False, **wide
        ),
        "start": widgets.Dropdown(options=list(starts), value=starts[0], description="start", **wide),
    }
    fitted = once(fit, known)

    def look(length: int, start: str) -> tuple[Figure, str]:
        outcome = fitted(start, length)
        figure = outcome_figure(outcome, zero_shot, f"M = {length}, start: {start}")
        return figure, "nearest words: " + " · ".join(outcome["words"])

    box = panel(c, look)
    box.known = known
    return box
