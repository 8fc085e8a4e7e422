"""Pictures of dense prediction: masks over images, score maps, IoU per class.

    masks_figure(images, columns, names)      images, and beside each the masks of several methods
    scores_figure(image, maps, names)         an image and its score maps, one per class
    iou_figure(results, names)                IoU per class, one bar per method
Shapes: N images, C classes, S pixels a side.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from vlmcourse.show.figures import bars

IGNORED = 255


def palette(classes: int) -> np.ndarray:
    """One colour per class, (C, 3) in [0, 1]."""
    return plt.get_cmap("tab20")(np.arange(classes) % 20)[:, :3]


def paint_mask(image: Tensor, mask: Tensor, classes: int, share: float = 0.65) -> np.ndarray:
    """A mask (S, S) in colours over a grey version of its image (3, S, S) uint8; ignored pixels stay white."""
    grey = (image.float().mean(0) / 255).numpy()[..., None].repeat(3, -1)
    mask = mask.cpu().numpy().astype(int)
    painted = (1 - share) * grey + share * palette(classes)[np.where(mask == IGNORED, 0, mask)]
    return np.where((mask == IGNORED)[..., None], 1.0, painted)


def masks_figure(images: Tensor, columns: Mapping[str, Tensor], names: Sequence[str], size: float = 1.25) -> Figure:
    """images (N, 3, S, S) uint8; columns: masks (N, S, S) by title. One row per image, a legend of the classes."""
    figure, axes = plt.subplots(
        len(images), 1 + len(columns), figsize=(size * (1 + len(columns)) + 2.2, size * len(images) + 0.4),
        squeeze=False, layout="constrained",
    )  # fmt: skip
    for row, (line, image) in enumerate(zip(axes, images, strict=True)):
        line[0].imshow(image.permute(1, 2, 0).numpy())
        for axis, masks in zip(line[1:], columns.values(), strict=True):
            axis.imshow(paint_mask(image, masks[row], len(names)), interpolation="nearest")
        for axis, title in zip(line, ("image", *columns), strict=True):
            axis.axis("off")
            if row == 0:
                axis.set_title(title, fontsize=9)
    shown = torch.cat([masks.flatten() for masks in columns.values()]).unique().tolist()
    handles = [Patch(color=palette(len(names))[c], label=names[c]) for c in map(int, shown) if c != IGNORED]
    figure.legend(handles=handles, loc="outside right upper", fontsize=7)
    return figure


def scores_figure(image: Tensor, maps: Tensor, names: Sequence[str], columns: int = 7, label: str = "") -> Figure:
    """image (3, S, S) uint8; maps (C, h, w), one colour scale for all."""
    rows = -(-(1 + len(maps)) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.3 * columns + 0.8, 1.5 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    axes.flat[0].imshow(image.permute(1, 2, 0).numpy())
    axes.flat[0].set_title("image", fontsize=8)
    low, high = float(maps.min()), float(maps.max())
    for axis, scores, name in zip(axes.flat[1:], maps, names, strict=False):
        shown = axis.imshow(scores.cpu().numpy(), vmin=low, vmax=high, cmap="magma")
        axis.set_title(name, fontsize=8)
    figure.colorbar(shown, ax=axes, label=label, shrink=0.8)
    return figure


def iou_figure(results: Mapping[str, Tensor], names: Sequence[str]) -> Figure:
    """results: IoU (C,) as fractions, by method; classes without IoU are drawn as 0."""
    figure, axis = plt.subplots(figsize=(9, 3.2))
    values = {name: (100 * torch.nan_to_num(values)).tolist() for name, values in results.items()}
    bars(values, list(names), ylabel="IoU in %", axis=axis)
    axis.set_ylim(top=1.25 * max(1.0, axis.get_ylim()[1]))  # room for the legend
    return figure
