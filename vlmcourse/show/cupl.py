"""Figures and the explorer of "CuPL": sentences about classes as a prompt ensemble.

    idea_figure(sentences)                  from a class name to its prompts, the old way and the new one
    change_figure(names, changes)           points gained or lost by each class
    count_figure(counts, series, ...)       accuracy over the number of sentences
    cone_figure(cosines)                    where the combined ensemble lies between templates and sentences
    sentence_figure(...), explorer(...)     the test images that a sentence likes best
Accuracies are in %. Shapes: N images (N, 3, H, W) uint8.
"""

from collections.abc import Callable, Mapping, Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from vlmcourse.show.figures import curves, grid
from vlmcourse.show.panel import panel
from vlmcourse.show.style import COLOURS

RIGHT, WRONG = COLOURS[2], COLOURS[1]


def idea_figure(name: str, templates: Sequence[str], sentences: Sequence[str]) -> Figure:
    """Two ways from a class name to a mean feature: templates that are the same for all, sentences of its own."""
    figure, axis = plt.subplots(figsize=(9.6, 3.2))
    rows = (("templates, the same for every class", [t.replace("{}", name) for t in templates[:3]], COLOURS[0], 0.76),
            ("sentences about this class", list(sentences[:3]), COLOURS[1], 0.24))  # fmt: skip
    box = {"boxstyle": "round,pad=0.4", "facecolor": "white"}
    for title, texts, colour, y in rows:
        axis.text(0.01, y + 0.2, title, fontsize=9, color=colour, weight="bold")
        axis.text(0.06, y, name, ha="center", va="center", fontsize=10, bbox=box | {"edgecolor": colour})
        axis.annotate("", (0.17, y), (0.12, y), arrowprops={"arrowstyle": "->", "color": colour})
        for i, text in enumerate(texts):
            short = text if len(text) < 74 else text[:71] + "…"
            axis.text(0.18, y + 0.11 * (1 - i), f"“{short}”", va="center", fontsize=8.5)
        axis.annotate("", (0.83, y), (0.78, y), arrowprops={"arrowstyle": "->", "color": colour})
        axis.text(0.91, y, "mean of unit\nfeatures, $w_c$", ha="center", va="center", fontsize=9,
                  bbox=box | {"edgecolor": colour})  # fmt: skip
    axis.set(xlim=(0, 1), ylim=(0, 1))
    axis.axis("off")
    return figure


def change_figure(names: Sequence[str], changes: Mapping[str, Sequence[float]]) -> Figure:
    """changes: {name: points per class}. One row per class, sorted by the first of them; dots joined to zero."""
    order = np.argsort(next(iter(changes.values())))
    figure, axis = plt.subplots(figsize=(8, 0.7 + 0.25 * len(names)))
    for i, (label, values) in enumerate(changes.items()):
        at, values = np.arange(len(names)) + 0.22 * (i - (len(changes) - 1) / 2), np.asarray(values)[order]
        axis.hlines(at, 0, values, color=COLOURS[i % len(COLOURS)], linewidth=1.5)
        axis.plot(values, at, "os^D"[i % 4], color=COLOURS[i % len(COLOURS)], label=label, markersize=5)
    axis.axvline(0, color="#555555", linewidth=1)
    axis.set_yticks(range(len(names)), [names[c] for c in order], fontsize=8)
    axis.set(xlabel="points of accuracy above the hand-written templates")
    axis.legend(fontsize=8, loc="lower right")
    return figure


def count_figure(
    counts: Sequence[int], series: Mapping[str, Sequence[Sequence[float]]], levels: Mapping[str, float]
) -> Figure:
    """series: {name: for each count the accuracies of several draws}; levels: dashed lines."""
    figure, axis = plt.subplots(figsize=(7, 3.6))
    mean = {name: [np.mean(row) for row in rows] for name, rows in series.items()}
    std = {name: [np.std(row) for row in rows] for name, rows in series.items()}
    curves(mean, counts, "sentences per class", "top-1 in %", std, axis)
    for i, (name, level) in enumerate(levels.items()):
        axis.axhline(level, color=COLOURS[6], linestyle=("--", ":")[i % 2], linewidth=1.2, label=name)
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def sentence_figure(
    images: Tensor, labels: Sequence[int], scores: Tensor, class_names: Sequence[str], target: int, title: str, top=8
) -> Figure:
    """The `top` images with the highest scores (N,); a green border where the image is of class `target`."""
    best = torch.as_tensor(scores).topk(min(top, len(images))).indices.tolist()
    names = [class_names[int(labels[i])] for i in best]
    borders = [RIGHT if int(labels[i]) == target else WRONG for i in best]
    figure = grid(images[best], [f"{n}\n{float(scores[i]):.2f}" for n, i in zip(names, best)], 8, 1.15, borders)
    figure.suptitle(title, fontsize=9)
    return figure


def explorer(
    images: Tensor, labels: Sequence[int], class_names: Sequence[str], texts: Mapping[str, Sequence[str]],
    similarity: Callable[[str], Tensor],
) -> widgets.VBox:  # fmt: skip
    """A class and one of its texts: which test images are nearest to it.

    texts: {class name: sentences}. similarity: sentence -> (N,) cosines with all images. ValueError for no texts.
    """
    if not texts or not all(texts.values()):
        raise ValueError("texts must have at least one sentence for every class")
    most = max(len(group) for group in texts.values())
    wide = {"style": {"description_width": "70px"}}
    controls = {
        "name": widgets.Dropdown(options=list(texts), description="class", **wide),
        "number": widgets.IntSlider(value=1, min=1, max=most, description="sentence", continuous_update=False, **wide),
    }

    def look(name: str, number: int) -> tuple[Figure, str]:
        group, target = texts[name], list(class_names).index(name)
        text = group[min(number, len(group)) - 1]
        scores = similarity(text).cpu()
        figure = sentence_figure(images, labels, scores, class_names, target, text)
        best = scores.topk(min(8, len(scores))).indices
        hits = sum(int(labels[i]) == target for i in best.tolist())
        return figure, f"{hits} of the {len(best)} nearest test images are of the class {name!r}"

    return panel(controls, look)
