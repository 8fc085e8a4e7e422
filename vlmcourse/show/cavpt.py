"""Figures and the explorer of "CAVPT": prompts that are made for each image, and what their makers looked at.

    scheme_figure(layers)                    the method as a picture
    attention_figure(images, look, …)        the candidates of some images and where their texts look
    explorer(method, split)                  image and candidate
Shapes: B images, k candidates, P positions, G learned tokens.
"""

from collections.abc import Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import Tensor

from vlmcourse.show.attention import maps_figure
from vlmcourse.show.panel import panel
from vlmcourse.show.style import COLOURS

FROZEN, LEARNED, MADE = "#E6E6E6", COLOURS[4], COLOURS[5]


def scheme_figure(layers: int = 4) -> Figure:
    """The blocks of the image tower with learned prompts, and the last one, whose prompts come from class texts."""
    figure, axis = plt.subplots(figsize=(9.6, 3.5))
    axis.set(xlim=(0, 13.6), ylim=(-0.3, 4.8))
    axis.axis("off")

    def box(x, y, width, height, text, colour):
        style = "round,pad=0.02,rounding_size=0.08"
        axis.add_patch(FancyBboxPatch((x, y), width, height, style, facecolor=colour, ec="black"))
        axis.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=8.5)

    def arrow(start, end, **style):
        axis.annotate("", end, start, arrowprops={"arrowstyle": "->", "linewidth": 1.3} | style)

    step = 8.0 / layers
    for i in range(layers):
        x = 1.6 + step * i
        box(x, 1.2, 0.62 * step, 1.0, f"block {i + 1}", FROZEN)
        arrow((x - 0.34 * step, 1.7), (x - 0.03, 1.7))
        last = i == layers - 1
        if not last:
            box(x, 0.0, 0.62 * step, 0.6, "M learned", LEARNED)
        arrow((x + 0.31 * step, 2.85 if last else 0.65), (x + 0.31 * step, 2.25 if last else 1.15))
    end = 1.6 + step * (layers - 1)
    axis.text(0.1, 1.7, "CLS and\npatches", va="center", fontsize=9)
    box(end - 0.7, 2.9, 2.9, 0.8, "cross-attention\nk class-aware prompts", MADE)
    box(end - 4.6, 4.0, 3.4, 0.7, "texts of the k likeliest classes", LEARNED)
    arrow((end - 1.15, 4.2), (end - 0.2, 3.75))
    axis.text(end - 1.0, 4.25, "ask", fontsize=8)
    arrow((end - 0.38 * step, 1.8), (end - 0.75, 3.2), linestyle="--", connectionstyle="arc3,rad=-0.2")
    axis.text(end - 0.5 * step - 0.75, 2.75, "tokens\n(detached)", fontsize=8, ha="center")
    arrow((end + 0.62 * step + 0.05, 1.7), (11.6, 1.7))
    box(11.6, 1.2, 1.8, 1.0, "CLS: feature\nof the image", FROZEN)
    return figure


def attention_figure(images: Tensor, look, names: Sequence[str], labels: Sequence[int], layer: int = 0,
                     shown: int = 3) -> Figure:  # fmt: skip
    """Where the texts of the `shown` likeliest classes look in each image. look: ClassAware of these images."""
    tokens = look.shares.shape[-1]  # 1 + P + G
    positions = tokens * look.on_positions[layer][:, :shown]  # 1 where a token has an even share
    titles = [
        [("→ " if int(c) == y else "") + names[int(c)] for c in row[:shown]] for row, y in zip(look.classes, labels)
    ]
    rows = [names[y] for y in labels]
    return maps_figure(images, positions, rows, titles, "share (1 = even over all tokens)", size=1.7)


def explorer(method, split) -> widgets.VBox:
    """Image and candidate of a fitted CAVPT with class-aware prompts. Attributes: controls, picture, message."""
    names, wide = list(method.class_names), {"style": {"description_width": "80px"}}
    k = min(method.n_class_prompts, len(names))
    c = {
        "image": widgets.IntSlider(0, 0, len(split) - 1, description="image", continuous_update=False, **wide),
        "candidates": widgets.IntSlider(min(3, k), 1, k, description="candidates", continuous_update=False, **wide),
    }

    def look(i: int, shown: int) -> tuple[Figure, str]:
        image, right = split.images[i : i + 1], int(split.labels[i])
        seen = method.look(image)
        figure = attention_figure(image, seen, names, [right], shown=shown)
        answer = names[int(method.predict(image)[0])]
        cls = float(seen.shares[0, 0, :shown, 0].mean())
        positions = float(seen.on_positions[0, 0, :shown].sum(-1).mean())
        return figure, (
            f"right: {names[right]}; frozen CLIP: {names[int(seen.classes[0, 0])]}; CAVPT: {answer}; attention on CLS "
            f"{cls:.2f}, on positions {positions:.2f}, on learned tokens {1 - cls - positions:.2f}"
        )

    return panel(c, look)
