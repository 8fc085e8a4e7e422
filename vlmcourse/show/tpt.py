"""Figures and the explorer of "TPT": the views of one image, what is kept, how the answer moves.

    episode_figure()                          the method as a picture
    views_figure(pixels, entropies, kept, …)  the views of one image in the order of their entropy
    kept_figure(entropies, right)             entropy of right and of wrong views
    answer_figure(before, after, names, …)    class probabilities of one image, before and after
    domains_figure(results)                   accuracy by domain and method, with error bars
    explorer(look, images, …)                 another image, another share of views, another rate
Shapes: V views, C classes; entropies in nats.
"""

from collections.abc import Callable, Mapping, Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import Tensor

from vlmcourse.show.figures import bars, grid
from vlmcourse.show.playground import png
from vlmcourse.show.style import COLOURS, HATCHES

KEPT, WRONG = COLOURS[2], COLOURS[1]


def episode_figure() -> Figure:
    """One image, its views, the confident ones, the mean prediction, the step, the answer, the reset."""
    steps = [
        ("one test\nimage", "#FFFFFF"),
        ("V views", "#FFFFFF"),
        ("predictions\n$p_v$, entropies", "#E6E6E6"),
        ("keep the most\nconfident 10 %", "#FFFFFF"),
        ("mean $\\bar p$,\nloss $H(\\bar p)$", "#FFFFFF"),
        ("one step on\nthe context $v$", COLOURS[4]),
        ("answer for\nview 0", "#E6E6E6"),
    ]
    figure, axis = plt.subplots(figsize=(9.6, 2.1))
    axis.set(xlim=(0, 2 * len(steps)), ylim=(-0.75, 1.3))
    axis.axis("off")
    for i, (text, colour) in enumerate(steps):
        box = FancyBboxPatch(
            (2 * i + 0.1, 0.2), 1.55, 0.9, "round,pad=0.02,rounding_size=0.08", facecolor=colour, ec="black"
        )
        axis.add_patch(box)
        axis.text(2 * i + 0.87, 0.65, text, ha="center", va="center", fontsize=8)
        if i + 1 < len(steps):
            axis.annotate("", (2 * i + 2.05, 0.65), (2 * i + 1.72, 0.65), arrowprops={"arrowstyle": "->"})
    axis.annotate("", (0.9, 0.1), (12.9, 0.1), arrowprops={
        "arrowstyle": "->", "linestyle": "--", "connectionstyle": "bar,angle=180,fraction=-0.035", "color": WRONG
    })  # fmt: skip
    axis.text(
        6.9,
        -0.62,
        "next image: v is put back to its start, the optimiser forgets",
        ha="center",
        fontsize=9,
        color=WRONG,
    )
    return figure


def views_figure(
    pixels: Tensor,
    entropies: Tensor,
    kept: Tensor,
    predicted: Sequence[str],
    columns: int = 8,
    shown: int | None = None,
) -> Figure:
    """The views (V, 3, S, S) in [0, 1] from the least entropy to the most; kept ones in a green frame, with a star.

    entropies (V,) in nats; kept: numbers of views; predicted: a class name for each view. View 0 is called "test view".
    """
    order = entropies.argsort(stable=True).tolist()[:shown]
    kept = set(kept.tolist())
    titles = [
        f"{'★ ' if v in kept else ''}{'test view: ' if v == 0 else ''}{predicted[v]}\nH = {entropies[v]:.2f}"
        for v in order
    ]
    images = (255 * pixels[order]).round().byte()
    return grid(images, titles, columns=columns, size=1.25, borders=[KEPT if v in kept else None for v in order])


def kept_figure(entropies: Tensor, right: Tensor, bins: int = 24) -> Figure:
    """How sure views are that are right and views that are wrong. entropies and right (bool): same shape, any."""
    entropies, right = entropies.flatten().numpy(), right.flatten().numpy()
    figure, axis = plt.subplots(figsize=(6.4, 3))
    edges = np.linspace(0, max(1e-3, float(entropies.max())), bins + 1)
    for chosen, name, colour, hatch in ((right, "right", KEPT, ""), (~right, "wrong", WRONG, "//")):
        style = {"alpha": 0.55, "color": colour, "hatch": hatch, "edgecolor": "white"}
        axis.hist(entropies[chosen], edges, label=f"views that are {name}", **style)
    axis.set(xlabel="entropy of the view's prediction in nats", ylabel="views")
    axis.legend(fontsize=8)
    return figure


def answer_figure(before: Tensor, after: Tensor, names: Sequence[str], right: str, top: int = 6) -> Figure:
    """Probabilities (C,) of one image, before and after its step: the `top` classes and the right one, marked."""
    order = torch.maximum(before, after).argsort(descending=True)[:top].tolist()
    order += [list(names).index(right)] if right in names and right not in [names[c] for c in order] else []
    figure, axis = plt.subplots(figsize=(6.4, 2.8))
    labels = [f"→ {names[c]}" if names[c] == right else names[c] for c in order]
    at = np.arange(len(order))
    for i, (name, values) in enumerate((("before", before), ("after one step", after))):
        heights = 100 * values[order].numpy()
        axis.barh(at - 0.2 + 0.4 * i, heights, 0.38, label=name, color=("#999999", COLOURS[0])[i], hatch=HATCHES[i])
    axis.set_yticks(at, labels)
    axis.invert_yaxis()
    axis.set(xlabel="probability in %", xlim=(0, 100))
    axis.legend(fontsize=8, loc="lower right")
    return figure


def domains_figure(results: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """results: {method: {domain: top-1 in % per seed}}: mean and standard deviation, grouped by domain."""
    domains = list(next(iter(results.values())))
    figure, axis = plt.subplots(figsize=(8.4, 3.4))
    mean, std = (
        {name: [float(f(values[d])) for d in domains] for name, values in results.items()} for f in (np.mean, np.std)
    )
    bars(mean, domains, "top-1 in %", errors=std, axis=axis)
    axis.set_ylim(0, 118)
    axis.legend(fontsize=8, ncols=len(results), loc="upper center")
    return figure


def explorer(
    look: Callable[[int, float, float], Mapping], count: int, shares: Sequence[float], rates: Sequence[float]
) -> widgets.VBox:
    """Choose an image, the share of views that is kept, and the rate; see the views and the answer.

    look: (image, share, rate) -> {"pixels", "entropies", "kept", "predicted", "before", "after", "names", "right"}. The
    box has the attributes `controls` (by name), `pictures` and `message`. ValueError if there is nothing to choose.
    """
    if count < 1 or not shares or not rates:
        raise ValueError(f"count={count}, shares={list(shares)} and rates={list(rates)} must not be empty")
    wide = {"style": {"description_width": "90px"}, "continuous_update": False}
    c = {
        "image": widgets.IntSlider(value=0, min=0, max=count - 1, description="image", **wide),
        "share": widgets.SelectionSlider(options=list(shares), value=shares[0], description="share kept", **wide),
        "rate": widgets.SelectionSlider(options=list(rates), value=rates[0], description="rate", **wide),
    }
    pictures, message = [widgets.Image(format="png") for _ in range(2)], widgets.Label()

    def update(_=None) -> None:
        seen = look(*(control.value for control in c.values()))
        views = (seen["pixels"], seen["entropies"], seen["kept"], seen["predicted"])
        pictures[0].value = png(views_figure(*views, shown=16))
        pictures[1].value = png(answer_figure(seen["before"], seen["after"], seen["names"], seen["right"]))
        first, last = (seen["names"][int(seen[when].argmax())] for when in ("before", "after"))
        message.value = f"right: {seen['right']}; before: {first}; after: {last}"

    for control in c.values():
        control.observe(update, names="value")
    update()
    box = widgets.VBox([widgets.HBox(list(c.values())), message, *pictures])
    box.controls, box.pictures, box.message = c, pictures, message
    return box
