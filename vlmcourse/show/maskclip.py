"""The explorer of "MaskCLIP": free texts, their masks and their score maps.

explorer(segment, images)     texts, image, thresholds; segment(texts, image number, pd, ks) -> (mask, maps)
"""

from collections.abc import Callable, MutableMapping, Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from vlmcourse.show.masks import paint_mask, palette
from vlmcourse.show.panel import once, panel

MOST = 6  # texts


def answer_figure(image: Tensor, mask: Tensor, maps: Tensor, texts: Sequence[str]) -> Figure:
    """image (3, S, S), mask (S, S) of the texts' numbers, maps (C, h, w)."""
    figure, axes = plt.subplots(1, 2 + len(texts), figsize=(1.5 * (2 + len(texts)), 1.9), layout="constrained")
    axes[0].imshow(image.permute(1, 2, 0).numpy())
    axes[1].imshow(paint_mask(image, mask, len(texts)), interpolation="nearest")
    axes[0].set_title("image", fontsize=8)
    axes[1].set_title("mask", fontsize=8)
    for axis, scores, text, colour in zip(axes[2:], maps, texts, palette(len(texts)), strict=True):
        axis.imshow(scores.numpy(), vmin=float(maps.min()), vmax=float(maps.max()), cmap="magma")
        axis.set_title(text, fontsize=8)
        axis.legend(handles=[Patch(color=colour)], loc="lower right", fontsize=6)
    for axis in axes:
        axis.axis("off")
    return figure


def explorer(
    segment: Callable, images: Tensor, texts: str, pds: Sequence[float], kss: Sequence[float],
    known: MutableMapping | None = None,
) -> widgets.VBox:  # fmt: skip
    """A text field (names with commas between them), an image and both thresholds. segment(texts, number, pd, ks) gives
    (mask (S, S), maps (C, h, w)); images (N, 3, S, S) uint8. Settings are computed once. ValueError for no choice."""
    if not len(images) or not pds or not kss:
        raise ValueError(f"images ({len(images)}), pds={list(pds)} and kss={list(kss)} must not be empty")
    lookup = once(segment, {} if known is None else known)
    controls = {
        "texts": widgets.Text(texts, description="texts", continuous_update=False, layout={"width": "420px"}),
        "image": widgets.IntSlider(0, 0, len(images) - 1, description="image", continuous_update=False),
        "pd": widgets.SelectionSlider(options=list(pds), description="pd"),
        "ks": widgets.SelectionSlider(options=list(kss), description="ks"),
    }

    def look(texts: str, image: int, pd: float, ks: float) -> tuple[Figure | None, str]:
        names = tuple(dict.fromkeys(part.strip() for part in texts.split(",") if part.strip()))
        if not 2 <= len(names) <= MOST:
            return None, f"write 2 to {MOST} different texts, with commas between them"
        try:
            mask, maps = lookup(names, image, pd, ks)
        except ValueError as error:  # a text that is too long
            return None, str(error)
        shares = [(mask == c).float().mean().item() for c in range(len(names))]
        said = ", ".join(f"{name}: {100 * share:.0f} %" for name, share in zip(names, shares, strict=True))
        return answer_figure(images[image], mask, maps, names), f"share of the pixels: {said}"

    return panel(controls, look)
