"""Figures and the explorer of "RePrompt": what is retrieved, and what it does to prompts, loss and answer.

    stages_figure()                          the three stages as a picture
    neighbours_figure(…)                     a query, its neighbours with weights, and the vote
    prompts_figure(shifts, labels, names)    how alike the changes of the prompts are, image by image
    surprise_figure(surprise, labels, …)     p_knn of the right class over the training images, and the loss weights
    mix_figure(mixes, curves, chosen)        accuracy over lambda
    explorer(…)                              choose an image, k and tau
Shapes: B queries, N entries of the store, C classes. Pictures are uint8 (3, S, S).
"""

from collections.abc import Callable, Mapping, Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from vlmcourse.show.figures import bars, curves
from vlmcourse.show.panel import panel
from vlmcourse.show.playground import bare_image
from vlmcourse.show.style import COLOURS

RIGHT, WRONG = COLOURS[2], COLOURS[1]


def stages_figure() -> Figure:
    """Boxes and arrows: one store, three uses."""
    figure, axis = plt.subplots(figsize=(8.6, 3.9))

    def box(x, y, width, text, colour):
        axis.add_patch(plt.Rectangle((x, y), width, 0.72, facecolor=colour, alpha=0.2, edgecolor=colour))
        axis.text(x + width / 2, y + 0.36, text, ha="center", va="center", fontsize=9)

    def arrow(x0, y0, x1, y1, text=""):
        axis.annotate("", (x1, y1), (x0, y0), arrowprops={"arrowstyle": "->", "color": "#333333"})
        axis.text((x0 + x1) / 2 + 0.05, (y0 + y1) / 2, text, fontsize=8)

    box(0, 2.2, 1.5, "image", COLOURS[6])
    box(2.2, 3.2, 2.3, "frozen tower: query $q$", COLOURS[0])
    box(5.3, 3.2, 2.4, "store: $k$ neighbours", COLOURS[0])
    box(2.2, 1.2, 2.3, "tower with prompts: $f$", COLOURS[1])
    box(5.3, 1.2, 2.4, "softmax$(s\\,fW^{T})$", COLOURS[1])
    box(5.3, 0, 2.4, "cross-entropy × weight", COLOURS[3])
    box(8.5, 2.2, 1.7, "answer $p$", COLOURS[2])
    arrow(1.5, 2.7, 2.2, 3.4)
    arrow(1.5, 2.4, 2.2, 1.7)
    arrow(4.5, 3.56, 5.3, 3.56)
    arrow(4.5, 1.56, 5.3, 1.56)
    arrow(5.5, 3.2, 4.0, 1.92, "1: prompts")
    axis.plot([7.7, 7.95, 7.95], [3.35, 3.35, 0.36], color="#333333", linewidth=1)
    arrow(7.95, 0.36, 7.7, 0.36)
    axis.text(8.0, 0.5, "2: loss weight", fontsize=8)
    arrow(7.7, 3.7, 8.8, 2.92, "  3: $\\lambda$")
    arrow(7.7, 1.5, 8.8, 2.2, "    $1-\\lambda$")
    arrow(6.2, 1.2, 6.2, 0.72)
    axis.set(xlim=(-0.1, 10.3), ylim=(-0.1, 4.1))
    axis.axis("off")
    return figure


def neighbours_figure(
    query: Tensor, label: int, found: Tensor, labels: Tensor, weights: Tensor, votes: Tensor, names: Sequence[str]
) -> Figure:
    """query (3, S, S); found (k, 3, S, S), labels (k,), weights (k,) of its neighbours, nearest first; votes (C,).

    Neighbours of the right class have a green frame, others an orange one. At most eight are shown.
    """
    shown = min(8, len(found))
    figure = plt.figure(figsize=(9.6, 2.7))
    left, right = figure.subfigures(1, 2, width_ratios=(1.9, 1))
    axes = left.subplots(2, 5)
    bare_image(axes[0, 0], query, f"query: {names[label]}")
    for axis in axes.flat[1:]:
        axis.axis("off")
    for axis, i in zip([*axes[0, 1:], *axes[1, 1:]], range(shown), strict=False):
        axis.axis("on")
        bare_image(axis, found[i], f"w = {float(weights[i]):.2f}")
        for spine in axis.spines.values():
            spine.set(visible=True, color=RIGHT if int(labels[i]) == label else WRONG, linewidth=2.5)
    axis = right.subplots()
    bars({"p_knn": votes.tolist()}, [f"→ {n}" if c == label else n for c, n in enumerate(names)], "vote", axis=axis)
    axis.set_ylim(0, 1.05)
    axis.tick_params(axis="x", labelsize=7)
    return figure


def prompts_figure(shifts: Tensor, labels: Tensor, names: Sequence[str]) -> Figure:
    """Cosine between the changes of the prompts (B, D) of any two images, ordered by class; lines between classes."""
    order = labels.argsort(stable=True)
    unit = torch.nn.functional.normalize(shifts[order].float(), dim=-1)
    figure, axis = plt.subplots(figsize=(5.6, 4.6))
    shown = axis.imshow((unit @ unit.T).cpu().numpy(), cmap="viridis", vmin=-1, vmax=1, interpolation="antialiased")
    ends = np.cumsum(np.bincount(labels.cpu().numpy(), minlength=len(names)))
    for end in ends[:-1]:
        axis.axhline(end - 0.5, color="white", linewidth=0.6)
        axis.axvline(end - 0.5, color="white", linewidth=0.6)
    middle = np.concatenate([[0], ends[:-1]]) + np.diff(np.concatenate([[0], ends])) / 2 - 0.5
    axis.set_xticks(middle, names, rotation=40, ha="right", fontsize=8)
    axis.set_yticks(middle, names, fontsize=8)
    axis.grid(False)
    figure.colorbar(shown, ax=axis, label="cosine of the changes")
    return figure


def surprise_figure(right: Mapping[str, Tensor], beta: float, clamp: float) -> Figure:
    """right: {name: p_knn of the right class (N,)}. Left: sorted; right: the weight 1 + beta min(-log p, clamp)."""
    figure, (left, axis) = plt.subplots(1, 2, figsize=(9, 3.3))
    ordered = {name: p.sort().values.cpu().numpy() for name, p in right.items()}
    curves(ordered, xlabel="training image, sorted", ylabel="p_knn of the right class", axis=left, markers=False)
    p = np.linspace(1e-4, 1, 400)
    axis.plot(p, 1 + beta * np.minimum(-np.log(p), clamp), color=COLOURS[3])
    axis.set(xlabel="p_knn of the right class", ylabel=f"weight of the image in the loss, β = {beta:g}")
    axis.set_ylim(0.9, None)
    return figure


def mix_figure(mixes: Sequence[float], accuracies: Mapping[str, Sequence[float]], chosen: float) -> Figure:
    """Accuracy in % over lambda by name; a dotted line at the chosen one."""
    figure = curves(accuracies, x=mixes, xlabel="λ, the share of the neighbours' vote", ylabel="top-1 in %")
    figure.axes[0].axvline(chosen, color="#555555", linestyle=":", linewidth=1.5)
    return figure


def explorer(
    images: Tensor, labels: Tensor, names: Sequence[str], stored: Tensor, stored_labels: Tensor,
    look: Callable[[int, int, float], tuple[Tensor, Tensor, Tensor]],
    ks: Sequence[int] = (1, 4, 16, 64), taus: Sequence[float] = (1, 5, 20, 100),
) -> widgets.VBox:  # fmt: skip
    """look: (image, k, tau) -> (index (k,) into `stored`, weights (k,), votes (C,)).

    Attributes: `controls`, `picture`, `message`. ValueError for no ks or taus.
    """
    if not ks or not taus:
        raise ValueError(f"ks={tuple(ks)} and taus={tuple(taus)} must not be empty")
    wide = {"continuous_update": False, "style": {"description_width": "80px"}}
    c = {
        "image": widgets.IntSlider(value=0, min=0, max=len(images) - 1, description="test image", **wide),
        "k": widgets.SelectionSlider(options=list(ks), value=ks[-1], description="k", **wide),
        "tau": widgets.SelectionSlider(options=list(taus), value=taus[-1], description="sharpness τ", **wide),
    }

    def show(i: int, k: int, tau: float) -> tuple[Figure, str]:
        index, weights, votes = (t.cpu() for t in look(i, k, tau))
        label = int(labels[i])
        figure = neighbours_figure(images[i], label, stored[index], stored_labels[index], weights, votes, names)
        said = names[int(votes.argmax())]
        return figure, f"right: {names[label]}; the neighbours say: {said}, with {100 * float(votes.max()):.0f} %"

    return panel(c, show)
