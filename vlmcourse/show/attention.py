"""What an attention looks at, drawn on the images: for plans, cross-attention, prompts that look at an image.

    maps_figure(images, maps, rows, columns)   a row per image, a column per map, one colour scale
    answer_figure(image, shares, …)            one image: where a class text looks, and the logits before and after
Shapes: R images, K maps of each, P = H W positions row by row on a square grid. A share of 1 is an even share.
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from vlmcourse.show.style import COLOURS


def even_shares(shares: Tensor) -> Tensor:
    """Attention (..., P) that sums to 1 over the positions, times P: 1 is what an even attention gives."""
    return shares * shares.shape[-1]


def maps_figure(
    images: Tensor, maps: Tensor, rows: Sequence[str], columns: Sequence, label: str, size: float = 1.5,
    top: float | None = None,
) -> Figure:  # fmt: skip
    """images (R, 3, S, S) uint8, maps (R, K, P); rows: a text beside each image; columns: K titles, or K for each row.

    top: upper end of the colour scale, None for the largest value. ValueError if P is no square.
    """
    values = torch.as_tensor(maps).detach().float().cpu()
    side = round(values.shape[2] ** 0.5)
    if side * side != values.shape[2]:
        raise ValueError(f"maps={tuple(values.shape)} must be (R, K, P) with P positions of a square grid")
    count = values.shape[1]
    own_titles = not isinstance(columns[0], str)
    figure, axes = plt.subplots(
        len(images), 1 + count, figsize=(size * (1 + count) + 0.9, (size + 0.1 + 0.2 * own_titles) * len(images)),
        squeeze=False,
    )  # fmt: skip
    low, high = float(values.min()), float(values.max()) if top is None else top
    for r, (axis_row, image, shown, title) in enumerate(zip(axes, images, values, rows, strict=True)):
        picture = image.permute(1, 2, 0).cpu().numpy()
        end = picture.shape[0] - 0.5
        axis_row[0].imshow(picture)
        axis_row[0].set_ylabel(title, fontsize=8)
        for k, axis in enumerate(axis_row[1:]):
            axis.imshow(picture.mean(-1), cmap="gray", vmin=0, vmax=255)
            heat = axis.imshow(shown[k].reshape(side, side).numpy(), cmap="viridis", vmin=low, vmax=high, alpha=0.75,
                               extent=(-0.5, end, end, -0.5))  # fmt: skip
            if own_titles:
                axis.set_title(columns[r][k], fontsize=8)
            elif r == 0:
                axis.set_title(columns[k])
    for axis in axes.flat:
        axis.set_xticks([]), axis.set_yticks([])
        axis.grid(False)
    axes[0, 0].set_title("image", fontsize=8 if own_titles else None)
    figure.colorbar(heat, ax=axes, label=label, shrink=0.8)
    return figure


def answer_figure(
    image: Tensor, shares: Tensor, before: Tensor, after: Tensor, names: Sequence[str], right: str, looking: str,
    method: str = "with attention",
) -> Figure:  # fmt: skip
    """image (3, S, S) uint8; shares (P,) of the positions for the text `looking`; logits (C,) without and with."""
    figure, (first, second, third) = plt.subplots(1, 3, figsize=(9.4, 3.0), width_ratios=(1, 1.25, 2.2))
    picture, side = image.permute(1, 2, 0).cpu().numpy(), round(len(shares) ** 0.5)
    end = len(picture) - 0.5
    first.imshow(picture)
    first.set_title(right, fontsize=9)
    second.imshow(picture.mean(-1), cmap="gray", vmin=0, vmax=255)
    heat = second.imshow(even_shares(shares).reshape(side, side).cpu().numpy(), cmap="viridis", alpha=0.75,
                         extent=(-0.5, end, end, -0.5))  # fmt: skip
    second.set_title(f"where {looking!r} looks", fontsize=9)
    figure.colorbar(heat, ax=second, label="share (1 = even)", shrink=0.8)
    order = before.argsort(descending=True)[:6].tolist()
    order += [names.index(right)] if names.index(right) not in order else []
    at = np.arange(len(order))
    for i, (name, logits) in enumerate((("zero-shot", before), (method, after))):
        centred = (logits - logits.mean())[order].cpu().numpy()
        third.barh(at - 0.2 + 0.4 * i, centred, 0.38, label=name, color=("#999999", COLOURS[0])[i])
    third.set_yticks(at, [f"→ {names[c]}" if names[c] == right else names[c] for c in order], fontsize=8)
    third.invert_yaxis()
    third.set(xlabel="logit minus the mean over the classes")
    third.legend(fontsize=8)
    for axis in (first, second):
        axis.set_xticks([]), axis.set_yticks([])
        axis.grid(False)
    return figure
