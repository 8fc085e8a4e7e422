"""Figures and the explorer of "Why transfer? The two gaps".

dumbbells(...)            accuracy before and after a change, one row per change
feature_picture(...)      features of several domains, seen along two directions
object_scores(...)        where the names of present objects, and the best absent one, lie on the cosine axis
dense_figure(...)         maps of two names over a scene, one column per way through the last block
taxonomy_map()            the methods of the survey's part 6 as a tree
severity_explorer(...)    a style shift with a slider, its scenes and its accuracy
"""

from collections.abc import Callable, Mapping, Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from vlmcourse.show.figures import grid
from vlmcourse.show.panel import panel
from vlmcourse.show.playground import bare_image
from vlmcourse.show.style import COLOURS, MARKERS
from vlmcourse.world.styles import STYLES

# The survey's part 6 (Zhang et al., arXiv 2304.00685, section 6.3 and its table of transfer methods): kind of transfer,
# what is learned, methods with the label setup: s few-shot supervised, u unsupervised, - no training at all.
TAXONOMY: dict[str, dict[str, tuple[str, ...]]] = {
    "prompt tuning": {
        "text prompts": (
            "CoOp s", "CoCoOp s", "SubPT s", "LASP s", "VPT s", "KgCoOp s", "SoftCPT s", "PLOT s", "DualCoOp s",
            "TaI-DPT u", "DenseCLIP s", "ProTeCt s", "UPL u", "TPT u",
        ),
        "visual prompts": ("VP s", "RePrompt s"),
        "text and visual prompts": ("UPT s", "MVLPT s", "MaPLe s", "CAVPT s"),
    },
    "feature adapters": {"adapters and caches": ("CLIP-Adapter s", "Tip-Adapter s", "SVL-Adapter s")},
    "other methods": {
        "weights, attention, texts": (
            "WiSE-FT s", "MaskCLIP u", "VT-CLIP s", "CALIP u", "TaskRes s", "CuPL u", "VCD u",
        ),
    },
}  # fmt: skip
OBJECTIVE = ("DualCoOp", "TaI-DPT", "DenseCLIP", "ProTeCt", "MaskCLIP")  # several labels, pixels, trees


def dumbbells(
    before: Mapping[str, float], after: Mapping[str, float], xlabel: str, names: Sequence[str] = ("before", "after")
) -> Figure:
    """One row per key of `after`: a dot before, a square after, a line between; in percent, largest loss below."""
    order = sorted(after, key=lambda k: before[k] - after[k], reverse=True)
    figure, axis = plt.subplots(figsize=(7, 0.9 + 0.26 * len(order)))
    for row, key in enumerate(order):
        axis.plot([before[key], after[key]], [row, row], color="#999999", linewidth=2, zorder=1)
    for name, values, marker, colour in zip(names, (before, after), ("o", "s"), COLOURS):
        axis.scatter([values[k] for k in order], range(len(order)), marker=marker, color=colour, label=name, zorder=2)
    axis.set_yticks(range(len(order)), order)
    axis.set_xlim(0, 100)
    axis.set_xlabel(xlabel)
    legend_below("", axis)
    return figure


def feature_picture(
    groups: Mapping[str, Tensor], directions: Tensor, centre: Tensor, axis=None, labels=("first", "second")
) -> Figure:
    """Features (N, E) per group, projected on directions (2, E) after subtracting the centre (E,); a cross per mean."""
    if axis is None:
        _, axis = plt.subplots(figsize=(6.4, 4.4))
    for i, (name, features) in enumerate(groups.items()):
        x, y = ((features - centre) @ directions.T).T.cpu().numpy()
        style = {"marker": MARKERS[i % len(MARKERS)], "color": COLOURS[i % len(COLOURS)]}
        axis.scatter(x, y, s=9, alpha=0.35, linewidths=0, **style)
        axis.scatter(x.mean(), y.mean(), s=90, edgecolors="black", label=name, **style)
    axis.set_xlabel(f"{labels[0]} principal direction")
    axis.set_ylabel(f"{labels[1]} principal direction")
    axis.legend(fontsize=8)
    return axis.figure


def object_scores(scores: Mapping[str, Tensor], xlabel: str = "cosine of image and name", axis=None) -> Figure:
    """Overlaid histograms of scores (N,) by name, as steps with different lines so that grey print is readable."""
    if axis is None:
        _, axis = plt.subplots(figsize=(6.4, 3.2))
    every = torch.cat(list(scores.values()))
    edges = np.linspace(float(every.min()), float(every.max()), 31)
    for (name, values), colour, line in zip(scores.items(), COLOURS, ("-", "--", ":", "-.")):
        axis.hist(values.numpy(), edges, histtype="step", color=colour, linestyle=line, linewidth=2, label=name)
    axis.set_xlabel(xlabel)
    axis.set_ylabel("scenes")
    axis.legend(fontsize=8)
    return axis.figure


def dense_figure(images: Tensor, masks: Tensor, names: Sequence[Sequence[str]], maps: Mapping[str, Tensor]) -> Figure:
    """Scenes (N, 3, S, S) with two objects each: image, true regions, and per path the share (N, H, W) in [0, 1] that
    goes to the first name (blue: first, red: second)."""
    columns = ["image", "true regions", *maps]
    size = (1.55 * len(columns), 1.75 * len(images))
    figure, axes = plt.subplots(len(images), len(columns), figsize=size, squeeze=False)
    for r, row in enumerate(axes):
        bare_image(row[0], images[r], f"{names[r][0]} +\n{names[r][1]}")
        truth = np.where(masks[r] == 1, 1.0, np.where(masks[r] == 2, 0.0, np.nan))
        for axis, values in zip(row[1:], [truth, *(m[r] for m in maps.values())]):
            shown = axis.imshow(np.asarray(values), cmap="RdBu", vmin=0, vmax=1)
            axis.set_xticks([]), axis.set_yticks([])
            axis.grid(False)
        if r == 0:
            for axis, title in zip(row[1:], columns[1:]):
                axis.set_title(title, fontsize=9)
    figure.colorbar(shown, ax=axes, label="share of the first name", shrink=0.6)
    return figure


def taxonomy_map() -> Figure:
    """The tree of transfer methods: kinds, what is learned, methods. Bold with a star: made for the objective gap; in
    italics: needs no labelled image of the task."""
    rows = [(kind, part, methods) for kind, parts in TAXONOMY.items() for part, methods in parts.items()]
    figure, axis = plt.subplots(figsize=(9.6, 4.6))
    axis.set(xlim=(0, 10), ylim=(-0.2, 10.6))
    axis.axis("off")
    heights = [1 + (len(methods) - 1) // 5 for _, _, methods in rows]
    top, unit, centres = 10.2, 10.2 / (sum(heights) + 0.35 * len(rows)), {}
    for (kind, part, methods), height in zip(rows, heights):
        middle = top - unit * height / 2
        centres.setdefault(kind, []).append(middle)
        colour = COLOURS[list(TAXONOMY).index(kind)]
        axis.text(2.15, middle, part, ha="left", va="center", fontsize=9, bbox=_box(colour))
        for j, method in enumerate(methods):
            name, setup = method.rsplit(" ", 1)
            x, y = 4.55 + 1.12 * (j % 5), top - unit * (j // 5 + 0.5)
            special = name in OBJECTIVE
            axis.text(
                x, y, f"{name} *" if special else name, va="center", fontsize=8.5,
                weight="bold" if special else "normal", style="normal" if setup == "s" else "italic",
            )  # fmt: skip
        top -= unit * (height + 0.35)
    for i, (kind, middles) in enumerate(centres.items()):
        y = sum(middles) / len(middles)
        axis.text(0.8, y, kind, ha="center", va="center", fontsize=10, weight="bold", bbox=_box(COLOURS[i]))
        for middle in middles:
            axis.plot([1.65, 2.05], [y, middle], color=COLOURS[i], linewidth=1)
    note = "* and bold: made for the objective gap      italics: needs no labelled image of the task"
    axis.text(4.55, -0.1, note, fontsize=8, color="#555555")
    return figure


def legend_below(title: str, axis=None) -> None:
    """Give the axis (default: the current one) a title, and put its legend below, where no bar can hide it."""
    axis = axis or plt.gca()
    handles, labels = axis.get_legend_handles_labels()
    if axis.get_legend():
        axis.get_legend().remove()
    axis.figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8)
    axis.set_title(title)


def _box(colour: str) -> dict:
    return {"boxstyle": "round,pad=0.3", "facecolor": "white", "edgecolor": colour, "linewidth": 1.5}


def severity_explorer(
    render: Callable[[str, int], Tensor], predict: Callable[[Tensor], Tensor], labels: Tensor, names: Sequence[str],
    styles: Sequence[str] = tuple(STYLES), shown: int = 12,
) -> widgets.VBox:  # fmt: skip
    """Choose a style and a severity; see the first scenes, what they are taken for, and the accuracy over all.

    render(style, severity) -> images (N, 3, S, S) uint8; predict(images) -> classes (N,); labels (N,) classes; names:
    of the classes.
    """
    c = {
        "style": widgets.Dropdown(options=list(styles), value=list(styles)[0], description="style"),
        "severity": widgets.IntSlider(value=3, min=1, max=5, description="severity", continuous_update=False),
    }

    def look(style: str, severity: int) -> tuple[Figure, str]:
        images = render(style, severity)
        guess = predict(images).cpu()
        right = guess == labels
        titles = [names[g] if r else f"{names[g]}\n(not {names[y]})" for g, r, y in zip(guess, right, labels[:shown])]
        frames = [COLOURS[2] if r else COLOURS[1] for r in right[:shown]]
        what = STYLES[style].description.partition(" (")[0]
        sentence = f"{style}, severity {severity}: {what}. Top-1 {100 * right.float().mean():.1f} %"
        return grid(images[:shown], titles[:shown], columns=6, borders=frames), sentence

    return panel(c, look)
