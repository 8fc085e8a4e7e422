"""Figures of multi-label recognition: average precision per class, where a class looks, and an explorer of images."""

from collections.abc import Callable, Mapping, Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from vlmcourse.show.figures import bars, curves
from vlmcourse.show.panel import panel


def class_figure(precisions: Mapping[str, Tensor], names: Sequence[str]) -> Figure:
    """Average precision of each class, {method: (C,) fractions}; sorted by the first method, best first."""
    order = next(iter(precisions.values())).argsort(descending=True).tolist()
    figure, axis = plt.subplots(figsize=(9.5, 3.6))
    series = {name: [100 * float(values[c]) for c in order] for name, values in precisions.items()}
    return bars(series, [names[c] for c in order], "average precision in %", axis=axis)


def share_figure(results: Mapping[str, Mapping[float, Sequence[float]]], shares: Sequence[float], lines=None) -> Figure:
    """mAP over the share of known labels, {method: {share: values in % over seeds}}; lines: {name: level in %}."""
    figure, axis = plt.subplots(figsize=(6.2, 3.6))
    rows = {name: torch.tensor([list(values[s]) for s in shares]).double() for name, values in results.items()}
    means = {name: values.mean(dim=1).tolist() for name, values in rows.items()}
    spread = {name: values.std(dim=1, correction=0).numpy() for name, values in rows.items()}
    curves(means, [100 * s for s in shares], "known labels in %", "test mAP in %", spread, axis)
    for style, (name, level) in zip(("--", ":", "-."), (lines or {}).items(), strict=False):
        axis.axhline(level, color="#555555", linestyle=style, linewidth=1, label=name)
    axis.legend(fontsize=8)
    return figure


def look_axis(axis, image: Tensor, heat: Tensor, title: str, box=None) -> None:
    """An image (3, H, W) uint8 under a map of weights (h, w); box: x1, y1, x2, y2 of what should be found, or None."""
    axis.imshow(image.permute(1, 2, 0).numpy(), extent=(0, image.shape[2], image.shape[1], 0))
    heat = heat / heat.max().clamp(min=1e-12)
    axis.imshow(heat.numpy(), cmap="magma", alpha=0.55, extent=(0, image.shape[2], image.shape[1], 0), vmin=0, vmax=1)
    if box is not None and float(box[2]) > float(box[0]):
        x1, y1, x2, y2 = (float(v) for v in box)
        axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor="#00e5ff", linewidth=2))
    axis.set_title(title, fontsize=8)
    axis.set_xticks([]), axis.set_yticks([])
    axis.grid(False)


def look_figure(rows: Sequence[tuple[Tensor, Sequence[tuple[str, Tensor, Tensor | None]]]]) -> Figure:
    """One row per image: the image, then the maps of some classes as (title, map, box or None)."""
    columns = 1 + max(len(maps) for _, maps in rows)
    figure, axes = plt.subplots(len(rows), columns, figsize=(1.7 * columns, 1.95 * len(rows)), squeeze=False)
    for line, (image, maps) in zip(axes, rows, strict=True):
        for axis in line:
            axis.set_axis_off()
        line[0].imshow(image.permute(1, 2, 0).numpy())
        for axis, (title, heat, box) in zip(line[1:], maps, strict=False):
            axis.set_axis_on()
            look_axis(axis, image, heat, title, box)
    return figure


def explorer(split, scores: Tensor, maps: Callable[[int], Tensor], unit: str = "score") -> widgets.VBox:
    """Choose an image and a class: where the class looks, and the best scores of the image (marked: really there).

    scores (N, C); maps: image number -> (C, h, w). Attributes: controls, picture, message.
    """
    names, style = list(split.class_names), {"style": {"description_width": "60px"}}
    controls = {
        "image": widgets.IntSlider(0, 0, len(split) - 1, description="image", continuous_update=False, **style),
        "class": widgets.Dropdown(options=names, description="class", **style),
    }

    def look(number: int, name: str) -> tuple[Figure, str]:
        c, there = names.index(name), split.labels[number] == 1
        figure, (left, middle, right) = plt.subplots(1, 3, figsize=(8.6, 2.7))
        left.imshow(split.images[number].permute(1, 2, 0).numpy())
        left.set_axis_off()
        look_axis(middle, split.images[number], maps(number)[c], f"where “{name}” looks")
        best = scores[number].topk(min(8, len(names))).indices.tolist()[::-1]
        colours = ["#0072b2" if there[k] else "#bbbbbb" for k in best]
        right.barh([names[k] for k in best], [float(scores[number, k]) for k in best], color=colours)
        right.set(xlabel=unit)
        right.tick_params(labelsize=7)
        shown = ", ".join(names[k] for k in there.nonzero().squeeze(1).tolist())
        return figure, f"really there (blue): {shown}"

    return panel(controls, look)
