"""Figures and the explorer of "VCD": decisions explained by the descriptors of a class.

    idea_figure(...)                     one class, its descriptors, their mean
    reason_figure(image, reasons, ...)   the picture, and a bar for every descriptor of two classes
    control_figure(results, tasks)       descriptors against random and swapped ones
    length_figure(lengths, shares, ...)  the length of the mean vector against how often a class is predicted
    flips_figure(drops, ...)             what a decision loses when one descriptor is taken away
    explorer(...)                        a slider over test images
Accuracies are in %; `reasons` are those of vlmcourse.methods.other_methods.vcd, highest score first.
"""

from collections.abc import Callable, Mapping, Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from vlmcourse.show.panel import panel
from vlmcourse.show.style import COLOURS, HATCHES


def idea_figure(name: str, descriptors: Sequence[str], scores: Sequence[float], image: Tensor) -> Figure:
    """One image (3, H, W) uint8, the descriptors of one class with their scores, and the mean."""
    figure, axis = plt.subplots(figsize=(9, 3.0))
    axis.axis("off")
    picture = figure.add_axes((0.01, 0.22, 0.16, 0.56))
    picture.imshow(image.permute(1, 2, 0).numpy())
    picture.axis("off")
    ys = np.linspace(0.92, 0.08, len(descriptors))
    for y, text, score in zip(ys, descriptors, scores, strict=True):
        axis.annotate("", (0.30, y), (0.19, 0.5), arrowprops={"arrowstyle": "-", "color": "#AAAAAA"})
        axis.text(0.31, y, f"{name}, {text}", va="center", fontsize=9)
        axis.text(0.73, y, f"{score:.2f}", va="center", fontsize=9, color=COLOURS[0], weight="bold")
        axis.annotate("", (0.84, 0.5), (0.78, y), arrowprops={"arrowstyle": "-", "color": "#AAAAAA"})
    axis.text(0.85, 0.5, f"score of “{name}”\n= their mean\n= {np.mean(scores):.2f}", va="center", fontsize=10,
              bbox={"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": COLOURS[0]})  # fmt: skip
    axis.set(xlim=(0, 1), ylim=(0, 1))
    return figure


def reason_figure(image: Tensor, reasons: Sequence, truth: str = "", size: float = 2.9) -> Figure:
    """image (3, H, W) uint8; reasons: one panel of bars for each class, the score as a dashed line."""
    tallest = max(len(r.descriptors) for r in reasons)
    figure, axes = plt.subplots(
        1, 1 + len(reasons), figsize=(2.1 + 3.9 * len(reasons), max(size, 0.36 * tallest + 0.9)),
        gridspec_kw={"width_ratios": [1.0, *[1.6] * len(reasons)]},
    )  # fmt: skip
    axes[0].imshow(image.permute(1, 2, 0).numpy())
    axes[0].axis("off")
    axes[0].set_title(truth, fontsize=9)
    values = np.concatenate([r.similarities.numpy() for r in reasons])
    low, high = min(0.0, values.min()), values.max()
    for i, (axis, reason) in enumerate(zip(axes[1:], reasons, strict=True)):
        at = np.arange(len(reason.descriptors))[::-1]
        axis.barh(at, reason.similarities.numpy(), color=COLOURS[i], hatch=HATCHES[i], edgecolor="white", height=0.7)
        axis.axvline(reason.score, color="black", linestyle="--", linewidth=1)
        for y, text in zip(at, reason.descriptors, strict=True):
            axis.text(low + 0.02 * (high - low), y, text or "(none)", va="center", fontsize=8,
                      bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1})  # fmt: skip
        axis.set_yticks([])
        axis.set(xlim=(low, 1.05 * high), xlabel="cosine with the image")
        axis.set_title(f"{reason.name}: mean {reason.score:.3f}", fontsize=9)
    return figure


def control_figure(results: Mapping[str, Mapping[str, Sequence[float]]], reference: str) -> Figure:
    """results: {task: {ensemble: accuracies over draws}}: points above `reference`, one panel for each task."""
    figure, axes = plt.subplots(1, len(results), figsize=(3.3 * len(results), 3.2), sharey=True, squeeze=False)
    for axis, (task, rows) in zip(axes[0], results.items(), strict=True):
        base, names = np.mean(rows[reference]), [n for n in rows if n != reference]
        for i, name in enumerate(names):
            change = np.asarray(rows[name]) - base
            axis.bar(i, change.mean(), color=COLOURS[i], hatch=HATCHES[i], edgecolor="white", width=0.75)
            if len(change) > 1:
                axis.errorbar(i, change.mean(), change.std(), color="black", capsize=3)
        axis.axhline(0, color="#555555", linewidth=1)
        axis.set_xticks(range(len(names)), names, rotation=35, ha="right", fontsize=8)
        axis.set_title(f"{task} ({reference}: {base:.0f} %)", fontsize=9)
    axes[0, 0].set_ylabel(f"points above “{reference}”")
    return figure


def length_figure(lengths: Sequence[float], shares: Mapping[str, Sequence[float]], names: Sequence[str]) -> Figure:
    """lengths: of the mean vector of each class; shares: {name: share of all predictions, per class}, in %."""
    figure, axis = plt.subplots(figsize=(7, 3.8))
    for i, (label, values) in enumerate(shares.items()):
        axis.plot(lengths, values, "os^"[i % 3], color=COLOURS[i], label=label)
    first = next(iter(shares.values()))
    for x, y, name in zip(lengths, first, names, strict=True):
        axis.annotate(name, (x, y), textcoords="offset points", xytext=(4, 4), fontsize=7)
    axis.axhline(100 / len(names), color="#555555", linestyle="--", linewidth=1, label="equal shares")
    axis.set(xlabel="length of the mean vector of the class", ylabel="share of the predictions in %")
    axis.legend(fontsize=8)
    return figure


def explorer(images: Tensor, truths: Sequence[str], explain: Callable[[int, int], Sequence]) -> widgets.VBox:
    """A slider over images (N, 3, H, W) and a choice of how many classes to show.

    explain: (image number, classes) -> reasons, highest score first. ValueError for no images.
    """
    if len(images) == 0 or len(images) != len(truths):
        raise ValueError(f"images ({len(images)}) and truths ({len(truths)}) must be as many, and at least one")
    controls = {
        "image": widgets.IntSlider(value=0, min=0, max=len(images) - 1, description="image", continuous_update=False),
        "classes": widgets.IntSlider(value=2, min=1, max=3, description="classes", continuous_update=False),
    }

    def look(image: int, classes: int) -> tuple[Figure, str]:
        reasons = explain(image, classes)
        right = "right" if reasons[0].name == truths[image] else f"wrong, it is {truths[image]!r}"
        return reason_figure(images[image], reasons, truths[image]), f"decision: {reasons[0].name!r}, {right}"

    return panel(controls, look)
