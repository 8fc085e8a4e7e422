"""Figures and the explorer of "PLOT": the method as a picture, small transport problems, plans on images.

    method_figure()                   positions of an image, prompts of a class, and the plan between them
    small_plans_figure(plans, cost)   a small cost matrix and its plans for several eps
    plans_figure(images, plans)       per image and prompt: how much of the prompt's mass lies on each position
    explorer(method, split)           choose image, class and eps; the plan is computed again
Shapes: R images, P = H W positions row by row, N prompts. Plans are shown as N P T: 1 is an even share.
"""

from collections.abc import Mapping, Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import Tensor

from vlmcourse.methods.transport import sinkhorn
from vlmcourse.show.attention import maps_figure
from vlmcourse.show.panel import panel
from vlmcourse.show.style import COLOURS

FROZEN, LEARNED = "#E6E6E6", COLOURS[4]


def method_figure(n_prompts: int = 4, side: int = 3) -> Figure:
    """Left the local features of an image, right the prompts of one class; lines as thick as the plan's entries."""
    figure, axis = plt.subplots(figsize=(9, 3.6))
    axis.set(xlim=(0, 13), ylim=(-0.4, 4.6))
    axis.axis("off")
    rng, step = np.random.default_rng(3), 3.6 / side
    spots = [(1.6 + step * j, 3.4 - step * i) for i in range(side) for j in range(side)]
    heights = np.linspace(3.6, 0.2, n_prompts)
    cost = torch.as_tensor(rng.random((len(spots), n_prompts)))
    weights = len(spots) * sinkhorn(cost, 0.1).numpy()  # (P, N), rows sum to 1
    for (x, y), row in zip(spots, weights):
        for n, weight in enumerate(row):
            if weight > 0.1:
                colour = COLOURS[n % len(COLOURS)]
                axis.plot([x + 0.25, 7.1], [y, heights[n]], color=colour, linewidth=3.5 * weight, alpha=0.6, zorder=1)
        axis.add_patch(plt.Rectangle((x - 0.3, y - 0.3), 0.6, 0.6, facecolor=FROZEN, edgecolor="black", zorder=2))
    for n, y in enumerate(heights):
        shape = "round,pad=0.02,rounding_size=0.08"
        axis.add_patch(FancyBboxPatch((7.1, y - 0.28), 3.2, 0.56, shape, facecolor=LEARNED, edgecolor="black"))
        axis.text(8.7, y, f"$v_{{{n + 1},1}} \\ldots v_{{{n + 1},M}}$  name .", ha="center", va="center", fontsize=9)
        axis.text(10.5, y, f"$G_{n + 1}$", va="center", fontsize=11)
    axis.text(1.6 + step * (side - 1) / 2, 4.2, "P local features F (frozen)", ha="center")
    axis.text(8.7, 4.2, "N prompts of one class", ha="center")
    axis.text(5.9, 4.2, "plan T", ha="center")
    score = "score of the class\n$\\langle T, F G^{\\top}\\rangle$"
    axis.text(12.0, 1.9, score, ha="center", va="center", fontsize=10)
    return figure


def small_plans_figure(plans: Mapping[str, Tensor], cost: Tensor) -> Figure:
    """A cost matrix (P, N) and beside it one plan (P, N) per title, with the numbers in the cells."""
    shown = {"cost C": cost, **plans}
    top = max(float(torch.as_tensor(plan).max()) for plan in plans.values())  # one scale for all plans
    figure, axes = plt.subplots(1, len(shown), figsize=(2.3 * len(shown), 0.9 + 0.42 * len(cost)), sharey=True)
    for axis, (title, matrix) in zip(axes, shown.items()):
        values = torch.as_tensor(matrix).float().numpy()
        high = float(values.max()) if title == "cost C" else top
        axis.imshow(values, cmap="Greys", vmin=0, vmax=1.4 * high, aspect="auto")
        axis.grid(False)
        for row, column in np.ndindex(values.shape):
            axis.text(column, row, f"{values[row, column]:.2f}", ha="center", va="center", fontsize=8)
        axis.set(title=title, xlabel="prompt n")
        axis.set_xticks(range(values.shape[1]), [str(n + 1) for n in range(values.shape[1])])
        axis.set_yticks(range(values.shape[0]), [str(p + 1) for p in range(values.shape[0])])
    axes[0].set_ylabel("position p")
    return figure


def shares(plans: Tensor) -> Tensor:
    """Plans (..., P, N) with even margins as shares N P T: 1 where a prompt takes what an even plan would give it."""
    return plans * plans.shape[-1] * plans.shape[-2]


def plans_figure(images: Tensor, plans: Tensor, titles: Sequence[str]) -> Figure:
    """images (R, 3, S, S) uint8, plans (R, P, N) of one class each, P a square; a row per image, a column per prompt"""
    titles_of_columns = [f"prompt {n + 1}" for n in range(plans.shape[2])]
    return maps_figure(
        images, shares(plans).transpose(1, 2), titles, titles_of_columns, "share of the prompt (1 = even)"
    )


def explorer(method, split, eps: Sequence[float] = (0.01, 0.02, 0.05, 0.1, 0.5)) -> widgets.VBox:
    """Image, class and eps; the method is left as it is. Attributes: `controls` (by name), `picture`, `message`."""
    names, wide = list(method.class_names), {"style": {"description_width": "90px"}}
    names_of = [names[int(label)] for label in split.labels]
    c = {
        "image": widgets.IntSlider(0, 0, len(split) - 1, description="image", continuous_update=False, **wide),
        "class": widgets.Dropdown(options=["its own", *names], description="class", **wide),
        "eps": widgets.SelectionSlider(options=list(eps), value=eps[len(eps) // 2], description="eps", **wide),
    }

    def look(i: int, chosen: str, entropy: float) -> tuple[Figure, str]:
        own = names_of[i]
        name = own if chosen == "its own" else chosen
        plans, cosines = method.transport(split.images[i : i + 1], eps=entropy)
        k = names.index(name)
        score, even = (plans * cosines).sum((-2, -1))[0], cosines.mean((-2, -1))[0]
        return plans_figure(split.images[i : i + 1], plans[:, k], [name]), (
            f"image of {own!r}; score of {name!r}: {score[k]:.3f} with this plan, {even[k]:.3f} with an even one; "
            f"highest score: {names[int(score.argmax())]!r}"
        )

    return panel(c, look)
