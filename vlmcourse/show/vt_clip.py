"""Figures and the explorer of "VT-CLIP": texts that ask an image, what they hear, where they look.

    scheme_figure()                        the method as a picture
    explorer(method, split)                image, class and head
Shapes: P positions, C classes, h heads.
"""

import ipywidgets as widgets
import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from vlmcourse.show.attention import answer_figure, even_shares
from vlmcourse.show.panel import panel
from vlmcourse.show.style import COLOURS

FROZEN, LEARNED = "#E6E6E6", COLOURS[4]


def scheme_figure() -> Figure:
    """Class texts as queries, positions as keys and values, a residual, and the comparison with the pooled feature."""
    figure, axis = plt.subplots(figsize=(9.4, 3.0))
    axis.set(xlim=(0, 12.6), ylim=(-0.2, 4.1))
    axis.axis("off")

    def box(x, y, width, text, colour):
        shape = FancyBboxPatch((x, y), width, 0.8, "round,pad=0.02,rounding_size=0.08", facecolor=colour, ec="black")
        axis.add_patch(shape)
        axis.text(x + width / 2, y + 0.4, text, ha="center", va="center", fontsize=9)

    def arrow(start, end, **style):
        axis.annotate("", end, start, arrowprops={"arrowstyle": "->", "linewidth": 1.4} | style)

    box(0.1, 2.9, 2.5, "C class texts $T$", FROZEN)
    box(0.1, 1.4, 2.5, "P positions $X$", FROZEN)
    box(0.1, 0.0, 2.5, "pooled feature $f$", FROZEN)
    box(3.9, 1.9, 3.0, "cross-attention\n$W_q, W_k, W_v, W_o$", LEARNED)
    box(8.0, 2.4, 1.9, "texts $T'$ of\nthis image", "#FFFFFF")
    box(10.7, 1.2, 1.8, "logits\n$s\\, f\\, n(T')^{\\top}$", "#FFFFFF")
    arrow((2.65, 3.1), (3.85, 2.5))
    axis.text(3.1, 3.05, "ask", fontsize=8)
    arrow((2.65, 1.8), (3.85, 2.2))
    axis.text(2.8, 2.2, "answer", fontsize=8)
    arrow((6.95, 2.3), (7.95, 2.7))
    axis.text(7.1, 2.15, "$+\\,\\gamma Z W_o$", fontsize=9)
    arrow((2.65, 3.5), (7.95, 3.0), connectionstyle="arc3,rad=-0.12", linestyle="--")
    axis.text(5.3, 3.75, "residual: the text itself", ha="center", fontsize=8)
    arrow((9.95, 2.6), (10.65, 1.9))
    arrow((2.65, 0.4), (10.65, 1.4))
    return figure


def explorer(method, split) -> widgets.VBox:
    """Image, class and head of a fitted VTCLIP. Attributes: controls, picture, message."""
    names, wide = list(method.class_names), {"style": {"description_width": "60px"}}
    features = method.inputs(split)
    c = {
        "image": widgets.IntSlider(0, 0, len(split) - 1, description="image", continuous_update=False, **wide),
        "class": widgets.Dropdown(options=["its own", *names], description="class", **wide),
        "head": widgets.Dropdown(options=["mean", *range(1, method.n_heads + 1)], description="head", **wide),
    }

    def look(i: int, chosen: str, head) -> tuple[Figure, str]:
        right = names[int(split.labels[i])]
        looking = right if chosen == "its own" else chosen
        one = features[i : i + 1]
        shares = method.attention(one)[0, :, names.index(looking)]  # (h, P)
        shares = shares.mean(0) if head == "mean" else shares[head - 1]
        before = method.backbone.logit_scale * (one[:, 0] @ method.text.to(one).T)[0]
        after = method.logits(one)[0]
        figure = answer_figure(split.images[i], shares, before, after, names, right, looking, "VT-CLIP")
        moved = torch.linalg.vector_norm(
            method.guided_text(one)[0, names.index(looking)] - method.text[names.index(looking)]
        )
        answers, share = (names[int(before.argmax())], names[int(after.argmax())]), float(even_shares(shares).max())
        return figure, (
            f"zero-shot: {answers[0]}; VT-CLIP: {answers[1]}; largest share: {share:.1f} of an even one; "
            f"the text has moved by {float(moved):.2f}"
        )

    return panel(c, look)
