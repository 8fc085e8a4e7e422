"""Figures and the explorer of "CLIP-Adapter": the residual blend, the ratio, what the bottleneck does to features.

    idea_figure()                                    the method as a picture
    ratio_figure(measured, ratios, zero_shot)        validation and test accuracy over the ratio, a panel per task
    clouds_figure(before, after, labels, text, …)    test features and class features before and after, in one plane
    units_figure(activity, names)                    mean activity of each hidden unit for each class
    explorer(measure, trained)                       choose the ratio of training, move the ratio of use
Shapes: B images, C classes, E features, R hidden units. Accuracies are fractions in the arguments, % in the figures.
"""

from collections.abc import Callable, Mapping, Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from vlmcourse.show.panel import panel
from vlmcourse.show.style import COLOURS, MARKERS


def idea_figure() -> Figure:
    """The frozen feature goes straight on with 1 - alpha, and through the bottleneck with alpha."""
    figure, axis = plt.subplots(figsize=(8.4, 2.5))
    blue, grey = COLOURS[5], "#DDDDDD"
    boxes = {
        "image\ntower": (0.0, 0.5, 1.1, 1.0, grey), "$W_1$\nReLU": (3.0, 1.35, 0.8, 0.9, blue),
        "$W_2$\nReLU": (4.3, 1.1, 0.8, 1.4, blue), "n(·)": (7.4, 0.6, 0.7, 0.8, grey),
        "· $W^\\top$": (8.7, 0.6, 0.9, 0.8, grey),
    }  # fmt: skip
    for name, (x, y, width, height, colour) in boxes.items():
        axis.add_patch(plt.Rectangle((x, y), width, height, facecolor=colour, edgecolor="black"))
        axis.text(x + width / 2, y + height / 2, name, ha="center", va="center", fontsize=10)
    lines = (
        ((1.1, 1.0), (2.2, 1.0)), ((2.2, 1.0), (2.2, 1.8)), ((2.2, 1.8), (3.0, 1.8)), ((3.8, 1.8), (4.3, 1.8)),
        ((5.1, 1.8), (6.4, 1.8)), ((6.4, 1.8), (6.4, 1.2)), ((2.2, 1.0), (2.2, 0.2)), ((2.2, 0.2), (6.4, 0.2)),
        ((6.4, 0.2), (6.4, 0.8)), ((6.6, 1.0), (7.4, 1.0)), ((8.1, 1.0), (8.7, 1.0)), ((9.6, 1.0), (10.3, 1.0)),
    )  # fmt: skip
    for (x0, y0), (x1, y1) in lines:
        axis.plot((x0, x1), (y0, y1), color="black", linewidth=1.2)
    axis.plot(6.4, 1.0, "o", markersize=15, color="white", markeredgecolor="black")
    words = (
        (1.65, 1.12, "f"), (5.7, 1.93, "α · A(f)"), (4.3, 0.32, "(1 − α) · f"), (7.0, 1.12, "f′"),
        (6.4, 0.98, "+"), (10.7, 0.98, "logits"), (3.95, 2.6, "learned"),
    )  # fmt: skip
    for x, y, word in words:
        axis.text(x, y, word, ha="center", va="center" if word in ("+", "logits") else "bottom", fontsize=10)
    axis.set(xlim=(-0.2, 11.2), ylim=(-0.1, 3.0))
    axis.axis("off")
    return figure


def ratio_figure(
    measured: Mapping[str, Mapping[str, np.ndarray]], ratios: Sequence[float], zero_shot: Mapping[str, float]
) -> Figure:
    """measured: {task: {"validation": (ratios, seeds), "test": (ratios, seeds)}}; zero_shot: {task: test accuracy}."""
    figure, axes = plt.subplots(1, len(measured), figsize=(4.4 * len(measured), 3.3), squeeze=False)
    for axis, (task, parts) in zip(axes[0], measured.items(), strict=True):
        for i, (part, values) in enumerate(parts.items()):
            mean, std = 100 * np.mean(values, axis=1), 100 * np.std(values, axis=1)
            axis.plot(ratios, mean, ("--", "-")[i % 2], marker=MARKERS[i], color=COLOURS[i], label=part)
            axis.fill_between(ratios, mean - std, mean + std, alpha=0.15, color=COLOURS[i])
        axis.axhline(100 * zero_shot[task], color="#555555", linestyle=":", label="zero-shot, test")
        axis.set(xlabel="residual ratio α", title=task)
    axes[0, 0].set_ylabel("accuracy (%)")
    axes[0, 0].legend(fontsize=8)
    return figure


def clouds_figure(before: Tensor, after: Tensor, labels: Tensor, text: Tensor, names: Sequence[str]) -> Figure:
    """before, after (B, E), text (C, E): unit rows. One plane for both: the two directions in which `after` varies
    most from class to class. Crosses are class features."""
    means = torch.stack([after[labels == c].mean(dim=0) for c in range(len(names))])
    centre = means.mean(dim=0)
    plane = torch.linalg.svd(means - centre, full_matrices=False).Vh[:2].T  # (E, 2)
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 3.9), sharex=True, sharey=True)
    for axis, features, title in zip(axes, (before, after), ("before", "after"), strict=True):
        points, stars = ((x - centre) @ plane for x in (features, text))
        for c, name in enumerate(names):
            colour, marker = COLOURS[c % len(COLOURS)], MARKERS[(c // len(COLOURS)) % len(MARKERS)]
            mine = points[labels == c]
            axis.plot(mine[:, 0], mine[:, 1], marker, markersize=3, color=colour, alpha=0.6, label=name)
            axis.plot(*stars[c], "X", markersize=11, color=colour, markeredgecolor="black")
        axis.set(xlabel="first direction", title=title)
    axes[0].set_ylabel("second direction")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=8, markerscale=2)
    return figure


def units_figure(activity: Tensor, names: Sequence[str]) -> Figure:
    """activity (R, C): mean activity of a unit for the images of a class; units are sorted by the class they like."""
    order = sorted(range(len(activity)), key=lambda r: (int(activity[r].argmax()), -float(activity[r].max())))
    figure, axis = plt.subplots(figsize=(9, 3.2))
    shown = axis.imshow(activity[order].T.numpy(), aspect="auto", cmap="viridis")
    axis.grid(False)
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel="hidden unit, sorted by the class that excites it most")
    figure.colorbar(shown, ax=axis, label="mean activity")
    return figure


def use_figure(curves: Mapping[str, Sequence[float]], ratios: Sequence[float], ratio: float, trained: float) -> Figure:
    """Accuracy by split over the ratio of use; dotted: the ratio of training, solid line: the one in use."""
    figure, axis = plt.subplots(figsize=(6.2, 3.2))
    for i, (split, values) in enumerate(curves.items()):
        axis.plot(ratios, 100 * np.asarray(values), marker=MARKERS[i], markersize=4, color=COLOURS[i], label=split)
    axis.axvline(trained, color="#555555", linestyle=":", label="ratio of training")
    axis.axvline(ratio, color="black", linewidth=1, label="ratio in use")
    axis.set(xlabel="ratio in use", ylabel="accuracy (%)", title=f"trained at α = {trained:g}")
    axis.legend(fontsize=8)
    return figure


def explorer(measure: Callable[[float, float], Mapping[str, float]], trained: Sequence[float]) -> widgets.VBox:
    """Choice of the ratio of training, slider for the ratio of use.

    measure: (trained, used) -> {split: accuracy}. ValueError for no ratios. Attributes: controls, picture, message.
    """
    if not trained:
        raise ValueError("trained must have at least one ratio")
    ratios = [round(r, 2) for r in np.linspace(0, 1, 11)]
    known: dict[float, list[Mapping[str, float]]] = {}
    wide = {"style": {"description_width": "110px"}}
    c = {
        "trained": widgets.Dropdown(options=list(trained), value=trained[0], description="trained at α", **wide),
        "used": widgets.SelectionSlider(
            options=ratios, value=ratios[5], description="used at α", continuous_update=False, **wide
        ),
    }

    def look(start: float, used: float) -> tuple[Figure, str]:
        if start not in known:
            known[start] = [measure(start, r) for r in ratios]
        rows = known[start]
        curves = {split: [row[split] for row in rows] for split in rows[0]}
        now = rows[ratios.index(used)]
        sentence = ", ".join(f"{split} {value:.1%}" for split, value in now.items())
        return use_figure(curves, ratios, used, start), f"trained at {start:g}, used at {used:g}: {sentence}"

    return panel(c, look)
