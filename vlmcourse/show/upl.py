"""Figures and the explorer of "UPL": pseudo-labels, their purity and balance, what they are worth.

    steps_figure()                         the method as a picture
    purity_figure(purity, pool)            share of right pseudo-labels over K, two ways to select
    balance_figure(P, labels, rules, …)    how many images each class gets, right and wrong
    confidence_figure(P, labels)           confidence and accuracy differ from class to class
    ensemble_figure(single, mean, …)       accuracy over the number of runs
    explorer(P, labels, names)             a rule, K and a threshold; the selection behind each setting
Shapes: P (N, C) probabilities of a pool, labels (N,) its true labels, which the method never sees.
"""

from collections.abc import Mapping, Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import Tensor

from vlmcourse.methods.pseudo_labels import Selection, select
from vlmcourse.show.figures import curves
from vlmcourse.show.panel import panel
from vlmcourse.show.style import COLOURS, HATCHES, MARKERS

RIGHT, WRONG = COLOURS[2], COLOURS[1]
RULES = ("K per class", "K C of all", "threshold")


def purity(selection: Selection, labels: Tensor) -> float:
    """Share of the chosen images whose pseudo-label is the true one."""
    return (labels[selection.indices] == selection.labels).double().mean().item()


def by_rule(P: Tensor, rule: str, k: int, threshold: float = 0.9) -> Selection | None:
    """The selection of one of RULES; None where nothing is chosen. ValueError for another rule."""
    if rule not in RULES:
        raise ValueError(f"rule={rule!r} must be one of {RULES}")
    if rule == "threshold":
        return select(P, 0, conf_threshold=threshold) if (P.max(1).values > threshold).any() else None
    return select(P, k, class_equal=rule == RULES[0])


def steps_figure() -> Figure:
    """Boxes from left to right: pool, zero-shot, selection, R runs of CoOp, mean."""
    figure, axis = plt.subplots(figsize=(9.6, 2.5))
    axis.set(xlim=(0, 15.4), ylim=(0, 3.2))
    axis.axis("off")
    texts = [
        ("training images,\nno labels", "#E6E6E6"), ("zero-shot labels\nthem (frozen)", "#E6E6E6"),
        ("K most confident\nper predicted class", "white"), ("", "white"), ("mean of the\nR logits", "white"),
    ]  # fmt: skip
    for i, (text, colour) in enumerate(texts):
        x = 3.1 * i + 0.1
        if text:
            _box(axis, x, 1.15, 2.6, 0.95, text, colour)
        else:
            for r, (y, name) in enumerate(((2.3, "CoOp, seed 1"), (1.35, "CoOp, seed 2"), (0.4, "CoOp, seed R"))):
                _box(axis, x, y, 2.6, 0.62, name, COLOURS[4])
                axis.annotate("", (x - 0.03, y + 0.31), (x - 0.45, 1.62), arrowprops={"arrowstyle": "->"})
                axis.annotate("", (x + 3.05, 1.62), (x + 2.66, y + 0.31), arrowprops={"arrowstyle": "->"})
                if r == 1:
                    axis.text(x + 1.3, 1.17, "…", ha="center", va="center")
        if i in (0, 1):
            axis.annotate("", (x + 3.05, 1.62), (x + 2.66, 1.62), arrowprops={"arrowstyle": "->"})
    axis.text(3.1 * 2 + 1.4, 0.75, "pseudo-labels, fixed", ha="center", fontsize=9)
    axis.text(3.1 * 1 + 1.4, 0.75, "class names, template", ha="center", fontsize=9)
    return figure


def _box(axis, x, y, width, height, text, colour):
    shape = "round,pad=0.02,rounding_size=0.08"
    axis.add_patch(FancyBboxPatch((x, y), width, height, shape, edgecolor="black", facecolor=colour, linewidth=0.9))
    axis.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=9)


def purity_figure(results: Mapping[str, Mapping[str, Sequence[float]]], ks: Sequence[int]) -> Figure:
    """results: {task: {rule: purity in % for each K}}; a panel per task."""
    figure, axes = plt.subplots(1, len(results), figsize=(3.3 * len(results), 3), sharey=True, squeeze=False)
    for axis, (task, series) in zip(axes[0], results.items()):
        curves(series, x=ks, xlabel="K", log_x=True, axis=axis)
        axis.set_title(task)
    axes[0, 0].set(ylabel="right pseudo-labels (%)", ylim=(0, 104))
    return figure


def balance_figure(P: Tensor, labels: Tensor, names: Sequence[str], k: int, threshold: float = 0.9,
                   rules: Sequence[str] = RULES) -> Figure:  # fmt: skip
    """A panel per rule; per class a bar of the chosen images, those with a right pseudo-label first."""
    figure, axes = plt.subplots(1, len(rules), figsize=(3.1 * len(rules), 0.9 + 0.24 * len(names)), sharey=True)
    rows = np.arange(len(names))
    texts = (f"the {k} surest per class", f"the {k}·{len(names)} surest of all", f"all above {threshold:g}")
    titles = dict(zip(RULES, texts))
    for axis, rule in zip(np.atleast_1d(axes), rules):
        chosen = by_rule(P, rule, k, threshold)
        right, wrong = (np.zeros(len(names)) for _ in range(2))
        if chosen is not None:
            hit = labels[chosen.indices] == chosen.labels
            right = torch.bincount(chosen.labels[hit], minlength=len(names)).numpy()
            wrong = torch.bincount(chosen.labels[~hit], minlength=len(names)).numpy()
        axis.barh(rows, right, color=RIGHT, label="pseudo-label right")
        axis.barh(rows, wrong, left=right, color=WRONG, hatch=HATCHES[1], edgecolor="white", label="wrong")
        axis.set(xlabel="chosen images", title=titles[rule])
        axis.set_yticks(rows, names, fontsize=8)
        axis.invert_yaxis() if axis is np.atleast_1d(axes)[0] else None
    figure.legend(*np.atleast_1d(axes)[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def confidence_figure(P: Tensor, labels: Tensor, names: Sequence[str]) -> Figure:
    """One point per predicted class: mean confidence of the images that get its label, and how many of them are right.

    The marker's area grows with the number of images; the diagonal is where confidence can be believed.
    """
    confidence, predicted = P.max(1)
    figure, axis = plt.subplots(figsize=(5.4, 4))
    axis.plot([0, 1], [0, 1], color="#999999", linestyle="--", linewidth=1)
    for c, name in enumerate(names):
        own = predicted == c
        if own.any():
            at = float(confidence[own].mean()), float((labels[own] == c).double().mean())
            axis.scatter(*at, s=12 + 3 * int(own.sum()), color=COLOURS[0], alpha=0.6)
            axis.annotate(name, at, textcoords="offset points", xytext=(6, 3), fontsize=8)
    axis.set(xlabel="mean confidence", ylabel="right share of the label", xlim=(0.2, 1.12), ylim=(-0.05, 1.08))
    return figure


def ensemble_figure(single: Sequence[float], mean: Sequence[float], zero_shot: float) -> Figure:
    """Accuracy in %: each run alone (dots), the mean of the first 1 ... R runs (line), zero-shot (dashed)."""
    figure, axis = plt.subplots(figsize=(5.6, 3.2))
    at = np.arange(1, len(single) + 1)
    axis.plot(at, single, MARKERS[0], color=COLOURS[5], label="run r alone")
    axis.plot(at, mean, marker=MARKERS[1], color=COLOURS[0], label="mean of runs 1 to r")
    axis.axhline(zero_shot, color="#555555", linestyle="--", linewidth=1, label="zero-shot")
    axis.set(xlabel="run r", ylabel="test accuracy (%)")
    axis.set_xticks(at)
    axis.legend(fontsize=8)
    return figure


def explorer(P: Tensor, labels: Tensor, names: Sequence[str]) -> widgets.VBox:
    """Rule, K and threshold; shows the balance and says size, purity and empty classes.

    The box has the attributes `controls` (by name), `picture` and `message`.
    """
    wide = {"style": {"description_width": "80px"}}
    c = {
        "rule": widgets.Dropdown(options=RULES, description="rule", **wide),
        "k": widgets.IntSlider(value=4, min=1, max=16, description="K", continuous_update=False, **wide),
        "threshold": widgets.FloatSlider(
            value=0.9, min=0.3, max=0.99, step=0.01, description="threshold", continuous_update=False, **wide
        ),
    }

    def look(rule: str, k: int, threshold: float) -> tuple[Figure, str]:
        chosen, figure = by_rule(P, rule, k, threshold), balance_figure(P, labels, names, k, threshold, [rule])
        if chosen is None:
            return figure, "no image is that confident"
        empty, share = len(names) - len(chosen.labels.unique()), 100 * purity(chosen, labels)
        return figure, f"{len(chosen.labels)} images, {share:.0f} % right pseudo-labels, {empty} classes without any"

    return panel(c, look)
