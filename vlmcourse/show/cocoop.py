"""Figures and the explorer of "CoCoOp": a prompt per image, what it costs, how much of the shift depends on the image.

    prompt_figure(images)               the method as a picture
    cost_figure(sizes, milliseconds)    milliseconds per step over the batch size
    shift_parts(shifts, labels)         mean square of the shifts = common part + part of the class + rest
    shift_figure(shifts, labels, …)     the shifts in their plane of largest variance, and the three parts
    path_figure(paths, zero_shot)       base against new accuracy, epoch by epoch
    explorer(images, labels, …)         one image under its own shift, the mean shift, another image's, none
Shapes: B images, C classes, D text width; shifts (B, D), probabilities (B, C).
"""

from collections.abc import Mapping, Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import Tensor

from vlmcourse.show.figures import curves
from vlmcourse.show.panel import panel
from vlmcourse.show.style import COLOURS, HATCHES, MARKERS

FROZEN, LEARNED = "#E6E6E6", COLOURS[4]
PARTS = ("common to all images", "of the class", "of the single image")


def prompt_figure(images, n_ctx: int = 2, name: str = "name$_c$") -> Figure:
    """One row per image (2 or 3 of them, uint8 (3, H, W)): its feature, its shift, its prompts, its classifier."""
    rows = len(images)
    figure, axis = plt.subplots(figsize=(9.6, 0.6 + 1.0 * rows))
    axis.set(xlim=(0, 15.6), ylim=(-0.75, 1.25 * rows + 0.1))
    axis.axis("off")

    def box(x, y, width, text, learned=False, height=0.66):
        style = {"facecolor": LEARNED, "linewidth": 1.6} if learned else {"facecolor": FROZEN, "linewidth": 0.7}
        shape = "round,pad=0.02,rounding_size=0.08"
        axis.add_patch(FancyBboxPatch((x, y), width, height, shape, edgecolor="black", **style))
        axis.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=9)

    def arrow(x0, y0, x1, y1):
        axis.annotate("", (x1, y1), (x0, y0), arrowprops={"arrowstyle": "->", "color": "black"})

    low, high = 0.1, 1.25 * rows - 0.25
    box(1.55, low, 1.5, "image\ntower\n(frozen)", height=high - low)
    box(4.25, low, 1.35, "meta-net", learned=True, height=high - low)
    box(12.3, low, 1.35, "text\ntower\n(frozen)", height=high - low)
    for b, image in enumerate(images):
        y = 1.25 * (rows - 1 - b) + 0.2
        inset = axis.inset_axes(_axes_box(axis, 0.1, y - 0.12, 0.95, 0.9))
        inset.imshow(torch.as_tensor(image).permute(1, 2, 0).numpy())
        inset.axis("off")
        middle = y + 0.33
        arrow(1.12, middle, 1.5, middle)
        arrow(3.1, middle, 3.45, middle)
        axis.text(3.5, middle, f"$f_{b + 1}$", va="center", fontsize=11)
        arrow(3.9, middle, 4.2, middle)
        arrow(5.65, middle, 5.95, middle)
        axis.text(6.0, middle, rf"$\pi_{b + 1}$", va="center", fontsize=11)
        arrow(6.45, middle, 6.75, middle)
        for m in range(n_ctx):
            box(6.8 + 1.35 * m, y, 1.25, rf"$v_{m + 1} + \pi_{b + 1}$", learned=True)
        x = 6.8 + 1.35 * n_ctx
        box(x, y, 1.15, name)
        axis.text(x + 1.25, middle, "for c = 1…C", va="center", fontsize=7.5)
        arrow(x + 2.35, middle, 12.25, middle)
        arrow(13.7, middle, 14.05, middle)
        box(14.1, y, 1.35, f"$W_{b + 1}$ (C, E)")
    axis.text(
        7.8, -0.55, "orange: learned. B images and C classes make B · C prompts, in training and in use.", ha="center"
    )
    return figure


def _axes_box(axis, x, y, width, height):
    """A box in data coordinates as (x, y, width, height) in fractions of the axes, for inset_axes."""
    (x0, x1), (y0, y1) = axis.get_xlim(), axis.get_ylim()
    return (x - x0) / (x1 - x0), (y - y0) / (y1 - y0), width / (x1 - x0), height / (y1 - y0)


def cost_figure(sizes: Sequence[int], milliseconds: Mapping[str, Sequence[float]]) -> Figure:
    """Milliseconds of one training step over the batch size B, both on logarithmic scales."""
    figure, axis = plt.subplots(figsize=(7, 3.6))
    curves(milliseconds, x=sizes, xlabel="images per step, B", ylabel="ms per training step", axis=axis, log_x=True)
    axis.set_yscale("log")
    axis.legend(fontsize=8)
    return figure


def shift_parts(shifts: Tensor, labels: Tensor) -> dict[str, float]:
    """Mean square norm of the shifts (B, D) split in three parts that add up to it, by the names in PARTS.

    mean |pi|^2 = |mean pi|^2 + mean |class mean - mean|^2 + mean |pi - class mean|^2
    """
    shifts, labels = shifts.detach().double().cpu(), torch.as_tensor(labels).cpu()
    if shifts.ndim != 2 or len(shifts) != len(labels):
        raise ValueError(f"shifts={tuple(shifts.shape)} must be (B, D) with one label each, got {len(labels)} labels")
    mean = shifts.mean(0)
    centres = torch.stack([shifts[labels == c].mean(0) for c in labels.unique()])  # (classes, D)
    of_class = centres[torch.searchsorted(labels.unique(), labels)]  # (B, D)
    parts = mean.square().sum(), (of_class - mean).square().sum(1).mean(), (shifts - of_class).square().sum(1).mean()
    return {name: float(part) for name, part in zip(PARTS, parts, strict=True)}


def shift_figure(
    shifts: Tensor, labels: Tensor, names: Sequence[str], parts: Mapping[str, Mapping[str, float]]
) -> Figure:
    """Left: shifts (B, D) around their mean, in the plane of largest variance, a marker per class.

    Right: root mean square length of the parts of the shift, for several runs {name: shift_parts(...)}.
    """
    shifts, labels = shifts.detach().double().cpu(), torch.as_tensor(labels).cpu()
    centred = shifts - shifts.mean(0)
    flat = (centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:2].T).numpy()  # (B, 2)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.4, 3.8))
    for i, name in enumerate(names):
        own = flat[(labels == i).numpy()]
        if len(own) == 0:
            continue
        style = {"color": COLOURS[i % len(COLOURS)], "markersize": 5, "alpha": 0.7, "label": name}
        left.plot(*own.T, MARKERS[i % len(MARKERS)], **style)
    left.set(xlabel="first principal component of π", ylabel="second", title="what differs between images")
    left.legend(fontsize=8)
    width = 0.8 / len(parts)
    for i, (run, values) in enumerate(parts.items()):
        at = np.arange(len(PARTS)) + (i - (len(parts) - 1) / 2) * width
        heights = [values[part] ** 0.5 for part in PARTS]
        style = {"color": COLOURS[i % len(COLOURS)], "hatch": HATCHES[i % len(HATCHES)], "edgecolor": "white"}
        right.bar_label(right.bar(at, heights, width, label=run, **style), fmt="%.2g", fontsize=7)
    right.set_xticks(range(len(PARTS)), [part.replace(" ", "\n", 1) for part in PARTS], fontsize=8)
    right.set(ylabel="length of the part of π", title="how large the parts are")
    right.legend(fontsize=8)
    return figure


def path_figure(paths: Mapping[str, Sequence[tuple[float, float]]], zero_shot: tuple[float, float]) -> Figure:
    """Base against new accuracy in %, one point per epoch looked at; the last one is marked larger."""
    figure, axis = plt.subplots(figsize=(6.2, 4.2))
    for i, (name, points) in enumerate(paths.items()):
        base, new = np.asarray(points, dtype=float).T
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        axis.plot(base, new, "-", marker=marker, color=colour, markersize=4, linewidth=1, label=name)
        axis.plot(base[-1], new[-1], marker, color=colour, markersize=10)
    axis.plot(*zero_shot, "*", color="black", markersize=12, linestyle="", label="zero-shot")
    axis.set(xlabel="top-1 on base classes in %", ylabel="top-1 on new classes in %")
    axis.legend(fontsize=8)
    return figure


def image_figure(image: Tensor, label: int, names: Sequence[str], probabilities: Mapping[str, Tensor]) -> Figure:
    """One image (3, H, W) uint8 and its probabilities (C,) under several shifts, a row each."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(8.6, 0.9 + 0.42 * max(4, len(probabilities))), width_ratios=[1, 4]
    )
    left.imshow(torch.as_tensor(image).permute(1, 2, 0).numpy())
    left.axis("off")
    left.set_title(names[label], fontsize=9)
    values = 100 * np.stack([np.asarray(p.detach().cpu()) for p in probabilities.values()])  # (rows, C)
    right.imshow(values, vmin=0, vmax=100, cmap="viridis", aspect="auto")
    right.grid(False)
    right.set_xticks(
        range(len(names)), [f"→ {n}" if c == label else n for c, n in enumerate(names)], rotation=30, ha="right"
    )
    right.set_yticks(range(len(values)), list(probabilities))
    for r, c in np.ndindex(values.shape):
        right.text(
            c, r, f"{values[r, c]:.0f}", ha="center", va="center", color="black" if values[r, c] > 50 else "white"
        )
    right.set_title("probability in % under different shifts", fontsize=10)
    return figure


def explorer(
    images: Tensor, labels: Tensor, names: Sequence[str], probabilities: Mapping[str, Tensor], first: int = 0
) -> widgets.VBox:
    """Slider over images; probabilities: {shift: (B, C)}. Attributes: `controls`, `picture`, `message`."""
    if not probabilities or any(len(p) != len(images) for p in probabilities.values()):
        raise ValueError(f"probabilities must have a row for each of the {len(images)} images under every shift")
    c = {
        "image": widgets.IntSlider(
            value=first, min=0, max=len(images) - 1, description="test image", continuous_update=False,
            style={"description_width": "80px"}, layout={"width": "420px"},
        )
    }  # fmt: skip

    def look(i: int) -> tuple[Figure, str]:
        rows = {name: p[i] for name, p in probabilities.items()}
        said = {names[int(p.argmax())] for p in rows.values()}
        agree = "all shifts agree on: " if len(said) == 1 else "the shifts disagree: "
        return image_figure(images[i], int(labels[i]), names, rows), agree + ", ".join(sorted(said))

    return panel(c, look)
