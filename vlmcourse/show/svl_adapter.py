"""Figures and the explorer of "SVL-Adapter": two crops of a picture, training without labels, neighbours, the fusion.

    crops_figure(images, first, second)               pictures and the two crops that SimCLR makes of each
    training_figure(histories)                        loss and share of found twins over the epochs
    neighbours_figure(images, rows, labels)           a query and its nearest pictures in two feature spaces
    fusion_figure(curves, marks)                      accuracy over lambda, with the choices of both forms
    overlap_figure(shares)                            who is right: both, one of the two, nobody
    explorer(tasks)                                   choice of a task, slider for lambda
Shapes: B images, N pool. Accuracies are fractions in the arguments, % in the figures.
"""

from collections.abc import Mapping, Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from vlmcourse.show.panel import panel
from vlmcourse.show.style import COLOURS, HATCHES, MARKERS

RIGHT, WRONG = COLOURS[2], COLOURS[1]


def _picture(axis, image: Tensor, title: str = "", colour: str | None = None) -> None:
    axis.imshow(image.permute(1, 2, 0).numpy())
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    axis.set_title(title, fontsize=8)
    for spine in axis.spines.values():
        spine.set(visible=colour is not None, color=colour, linewidth=2.5)


def crops_figure(images: Tensor, first: Tensor, second: Tensor) -> Figure:
    """images uint8 (N, 3, H, W); first, second (N, 3, S, S) pixels in [0, 1]: columns are pictures."""
    figure, axes = plt.subplots(3, len(images), figsize=(1.1 * len(images), 3.5), squeeze=False)
    for row, (part, name) in enumerate(((images, "picture"), (first, "one crop"), (second, "another"))):
        for column, image in enumerate(part):
            _picture(axes[row, column], image)
        axes[row, 0].set_ylabel(name, fontsize=8)
    return figure


def training_figure(histories: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """histories: {task: {"loss", "found"}} per epoch."""
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 3.0))
    for axis, key, label, factor in zip(axes, ("loss", "found"), ("NT-Xent in nats", "twins found (%)"), (1, 100)):
        for i, (task, history) in enumerate(histories.items()):
            values = factor * np.asarray(history[key])
            axis.plot(
                np.arange(1, len(values) + 1), values, color=COLOURS[i], marker=MARKERS[i], markersize=4, label=task
            )
        axis.set(xlabel="epoch", ylabel=label)
    axes[0].legend(fontsize=8)
    return figure


def neighbours_figure(images: Tensor, rows: Mapping[str, tuple[int, Sequence[int]]], labels: Tensor) -> Figure:
    """rows: {name of the feature space: (query, its nearest, nearest first)}; a green frame means the same class."""
    count = 1 + max(len(nearest) for _, nearest in rows.values())
    figure, axes = plt.subplots(len(rows), count, figsize=(1.15 * count, 1.35 * len(rows)), squeeze=False)
    for line, (name, (query, nearest)) in zip(axes, rows.items(), strict=True):
        _picture(line[0], images[query], name)
        for axis, n in zip(line[1:], nearest, strict=False):
            _picture(axis, images[n], "", RIGHT if labels[n] == labels[query] else WRONG)
        for axis in line[1 + len(nearest) :]:
            axis.set_visible(False)
    return figure


def fusion_figure(curves: Mapping[str, Mapping[str, np.ndarray]], marks: Mapping[str, Mapping[str, float]]) -> Figure:
    """curves: {task: {"validation", "test": (seeds, L)}} over lambda from 0 to 1; marks: {task: {name: lambda}}."""
    figure, axes = plt.subplots(1, len(curves), figsize=(4.6 * len(curves), 3.4), squeeze=False)
    for axis, (task, parts) in zip(axes[0], curves.items(), strict=True):
        for i, (part, values) in enumerate(parts.items()):
            grid = np.linspace(0, 1, np.shape(values)[1])
            mean, std = 100 * np.mean(values, axis=0), 100 * np.std(values, axis=0)
            axis.plot(grid, mean, ("--", "-")[i % 2], color=COLOURS[i], label=part)
            axis.fill_between(grid, mean - std, mean + std, color=COLOURS[i], alpha=0.15)
        for i, (name, at) in enumerate(marks.get(task, {}).items()):
            axis.axvline(at, color=COLOURS[3 + i], linestyle=(":", "-.")[i % 2], linewidth=2, label=name)
        axis.set(xlabel="λ: 0 is zero-shot CLIP, 1 the adapter alone", title=task)
    axes[0, 0].set_ylabel("accuracy (%)")
    axes[0, 0].legend(fontsize=8)
    return figure


def overlap_figure(shares: Mapping[str, Mapping[str, float]]) -> Figure:
    """shares: {task: {"both right", …: fraction}}, stacked bars."""
    figure, axis = plt.subplots(figsize=(7.6, 0.9 + 0.55 * len(shares)))
    for row, parts in enumerate(shares.values()):
        left = 0.0
        for i, (name, share) in enumerate(parts.items()):
            label = name if row == 0 else None
            axis.barh(row, 100 * share, left=left, color=COLOURS[i], hatch=HATCHES[i], edgecolor="white", label=label)
            left += 100 * share
    axis.set_yticks(range(len(shares)), list(shares))
    axis.set(xlabel="test images (%)", xlim=(0, 100))
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8)
    return figure


def explorer(tasks: Mapping[str, Mapping[str, tuple[Tensor, Tensor, Tensor]]]) -> widgets.VBox:
    """Choice of a task, slider for lambda: a picture of how the predictions are spread, and the accuracies.

    tasks: {task: {split: (zero-shot logits (B, C), adapter logits (B, C), labels (B,))}}. ValueError for no tasks.
    Attributes: controls, picture, message.
    """
    if not tasks:
        raise ValueError("tasks must have at least one task")
    wide = {"style": {"description_width": "80px"}}
    c = {
        "task": widgets.Dropdown(options=list(tasks), value=next(iter(tasks)), description="task", **wide),
        "lambda": widgets.FloatSlider(
            value=0.5, min=0, max=1, step=0.05, description="λ", continuous_update=False, **wide
        ),
    }

    def look(task: str, weight: float) -> tuple[Figure, str]:
        figure, axes = plt.subplots(1, len(tasks[task]), figsize=(4.8 * len(tasks[task]), 3.0), squeeze=False)
        words = []
        for axis, (split, (zero_shot, own, labels)) in zip(axes[0], tasks[task].items(), strict=True):
            predicted = (weight * own + (1 - weight) * zero_shot).argmax(dim=1)
            classes = zero_shot.shape[1]
            counts = {"right": predicted[predicted == labels], "wrong": predicted[predicted != labels]}
            bottom = np.zeros(classes)
            for (name, part), colour in zip(counts.items(), (RIGHT, WRONG), strict=True):
                heights = part.bincount(minlength=classes).numpy()
                axis.bar(np.arange(classes), heights, bottom=bottom, color=colour, label=name)
                bottom = bottom + heights
            axis.set(xlabel="predicted class (number)", ylabel="images", title=split)
            words.append(f"{split} {(predicted == labels).double().mean():.1%}")
        axes[0, 0].legend(fontsize=8)
        return figure, f"{task}, λ = {weight:.2f}: " + ", ".join(words)

    return panel(c, look)
