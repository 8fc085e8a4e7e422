"""The figures that every notebook needs. Each returns its matplotlib Figure; `plt.show()` displays it."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from vlmcourse.show.style import COLOURS, HATCHES, MARKERS


def grid(images, titles: Sequence[str] | None = None, columns: int = 8, size: float = 1.1, borders=None) -> Figure:
    """A contact sheet of images (N, 3, H, W) uint8; titles: one short text each; borders: a colour (or None) each."""
    images = torch.as_tensor(images)
    rows = -(-len(images) // columns)
    height = size * (1.28 if titles is not None else 1.04)
    figure, axes = plt.subplots(rows, columns, figsize=(size * columns, height * rows), squeeze=False)
    for i, axis in enumerate(axes.flat):
        axis.set_xticks([]), axis.set_yticks([])
        axis.grid(False)
        for spine in axis.spines.values():
            spine.set_visible(False)
        if i >= len(images):
            axis.set_visible(False)
            continue
        axis.imshow(images[i].permute(1, 2, 0).numpy())
        if titles is not None:
            axis.set_title(titles[i], fontsize=7)
        if borders is not None and borders[i] is not None:
            for spine in axis.spines.values():
                spine.set(visible=True, color=borders[i], linewidth=3)
    return figure


def curves(
    series: Mapping[str, Sequence[float]], x: Sequence[float] | None = None, xlabel: str = "epoch", ylabel: str = "",
    spread: Mapping[str, Sequence[float]] | None = None, axis=None, log_x: bool = False, markers: bool = True,
) -> Figure:  # fmt: skip
    """Lines with markers by name; spread: half-widths of a band (a standard deviation) by the same names."""
    if axis is None:
        _, axis = plt.subplots()
    for i, (name, values) in enumerate(series.items()):
        at = np.arange(1, len(values) + 1) if x is None else np.asarray(x)
        marker = MARKERS[i % len(MARKERS)] if markers else None
        axis.plot(at, values, marker=marker, markersize=5, label=name, color=COLOURS[i % len(COLOURS)])
        if spread and name in spread:
            low, high = np.asarray(values) - spread[name], np.asarray(values) + spread[name]
            axis.fill_between(at, low, high, alpha=0.18, color=COLOURS[i % len(COLOURS)])
    if log_x:
        axis.set_xscale("log", base=2)
        axis.set_xticks(x, [str(v) for v in x])
    axis.set_xlabel(xlabel)
    axis.set_ylabel(ylabel)
    if len(series) > 1:
        axis.legend()
    return axis.figure


def bars(
    series: Mapping[str, Sequence[float]], groups: Sequence[str], ylabel: str = "", errors: Mapping | None = None,
    axis=None, line: float | None = None, line_label: str = "",
) -> Figure:  # fmt: skip
    """Grouped bars by name over groups, with error bars; line: a horizontal reference such as chance."""
    if axis is None:
        _, axis = plt.subplots()
    width = 0.8 / len(series)
    for i, (name, values) in enumerate(series.items()):
        at = np.arange(len(groups)) + (i - (len(series) - 1) / 2) * width
        axis.bar(
            at, values, width, label=name, color=COLOURS[i % len(COLOURS)], hatch=HATCHES[i % len(HATCHES)],
            edgecolor="white", yerr=None if errors is None else errors.get(name), capsize=2,
        )  # fmt: skip
    if line is not None:
        axis.axhline(line, color="#555555", linestyle="--", linewidth=1, label=line_label or None)
    axis.set_xticks(np.arange(len(groups)), groups, rotation=30 if max(map(len, groups)) > 9 else 0, ha="right" if max(
        map(len, groups)) > 9 else "center")  # fmt: skip
    axis.set_ylabel(ylabel)
    if len(series) > 1 or line_label:
        axis.legend(fontsize=8)
    return axis.figure


def heatmap(values, rows: Sequence[str], columns: Sequence[str], label: str = "", axis=None, digits: int = 2) -> Figure:
    """A small matrix (R, C) with its numbers written in the cells."""
    values = np.asarray(values)
    if axis is None:
        _, axis = plt.subplots(figsize=(1.6 + 0.62 * len(columns), 1.0 + 0.4 * len(rows)))
    shown = axis.imshow(values, cmap="viridis", aspect="auto")
    axis.grid(False)
    axis.set_xticks(range(len(columns)), columns, rotation=40, ha="right")
    axis.set_yticks(range(len(rows)), rows)
    middle = (values.max() + values.min()) / 2
    for r, c in np.ndindex(values.shape):
        colour = "black" if values[r, c] > middle else "white"
        axis.text(c, r, f"{values[r, c]:.{digits}f}", ha="center", va="center", color=colour, fontsize=8)
    axis.figure.colorbar(shown, ax=axis, label=label)
    return axis.figure


def scatter_text(points, names: Sequence[str], xlabel: str = "", ylabel: str = "", axis=None) -> Figure:
    """Labelled points (N, 2)."""
    points = np.asarray(points)
    if axis is None:
        _, axis = plt.subplots()
    for i, ((x, y), name) in enumerate(zip(points, names, strict=True)):
        axis.plot(x, y, MARKERS[i % len(MARKERS)], color=COLOURS[i % len(COLOURS)])
        axis.annotate(name, (x, y), textcoords="offset points", xytext=(5, 4), fontsize=8)
    axis.set_xlabel(xlabel)
    axis.set_ylabel(ylabel)
    return axis.figure
