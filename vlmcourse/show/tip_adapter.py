"""Figures and the explorer of the Tip-Adapter notebook (Zhang et al., ECCV 2022, arXiv 2207.09519).

One object carries what they need: `Cache`, a fitted TipAdapter or TipAdapterF seen from the images of one split, with

    Z (B, C) zero-shot logits     A (B, N) affinities to the keys     V (N, C) one-hot labels of the cached images
    logits(alpha, beta) = Z + alpha exp(-beta (1 - A)) V

so that other alpha and beta cost no encoding. Figures return a matplotlib Figure, the explorer an ipywidgets box.
"""

from typing import NamedTuple

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from vlmcourse.methods.cache_model import cache_vote
from vlmcourse.show.figures import scatter_text
from vlmcourse.show.panel import panel
from vlmcourse.show.style import COLOURS

RIGHT, WRONG = COLOURS[2], COLOURS[1]


class Cache(NamedTuple):
    """A fitted method as the images of one split see it. images, cached: uint8 pictures of queries and of keys."""

    zero_shot: Tensor  # (B, C)
    affinity: Tensor  # (B, N)
    values: Tensor  # (N, C)
    labels: Tensor  # (B,)
    images: Tensor  # (B, 3, H, W)
    cached: Tensor  # (N, 3, H, W)
    names: tuple[str, ...]
    alpha: float
    beta: float

    @classmethod
    def of(cls, method, train, split):
        """method: fitted on `train`; split: whose images ask."""
        zero_shot = method.scale * method.inputs(split) @ method.text.T
        affinity = method.affinity(split)
        return cls(
            *(t.detach().cpu() for t in (zero_shot, affinity, method.values)), split.labels, split.images, train.images,
            tuple(train.class_names), float(method.alpha), float(method.beta),
        )  # fmt: skip

    def logits(self, alpha: float | None = None, beta: float | None = None) -> Tensor:
        """(B, C); None takes what the method uses."""
        alpha, beta = self.alpha if alpha is None else alpha, self.beta if beta is None else beta
        return self.zero_shot + alpha * cache_vote(self.affinity, self.values, beta)

    def accuracy(self, alpha: float | None = None, beta: float | None = None) -> float:
        """Top-1, a fraction."""
        return (self.logits(alpha, beta).argmax(1) == self.labels).double().mean().item()


def _picture(axis, image, title: str = "", colour: str | None = None) -> None:
    axis.imshow(image.permute(1, 2, 0).numpy())
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    axis.set_title(title, fontsize=7)
    for spine in axis.spines.values():
        spine.set(visible=colour is not None, color=colour, linewidth=2.5)


def votes(cache: Cache, i: int, alpha: float | None = None, beta: float | None = None, classes: int = 5) -> Figure:
    """Image i: its six nearest cached images with affinity A and weight w = exp(-beta (1 - A)), and how they change the
    logits of the leading classes. Frames are green where a cached image has the right class."""
    alpha, beta = cache.alpha if alpha is None else alpha, cache.beta if beta is None else beta
    logits, truth = cache.logits(alpha, beta)[i], int(cache.labels[i])
    order = logits.argsort(descending=True)[:classes].tolist()
    shown = order if truth in order else [*order[:-1], truth]
    figure = plt.figure(figsize=(9.6, 2.9))
    left, right = figure.subfigures(1, 2, width_ratios=(1.25, 1))
    frame = left.subplot_mosaic("qqabc;qqdef")
    _picture(frame["q"], cache.images[i], f"the image: {cache.names[truth]}")
    for key, n in zip("abcdef", cache.affinity[i].argsort(descending=True)[:6].tolist()):
        a, label = cache.affinity[i, n].item(), int(cache.values[n].argmax())
        title = f"{cache.names[label]}\nA {a:.2f}, w {np.exp(-beta * (1 - a)):.2g}"
        _picture(frame[key], cache.cached[n], title, RIGHT if label == truth else WRONG)
    panels = right.subplots(1, 3, sharey=True)
    for axis, part, title in zip(
        panels,
        (cache.zero_shot[i], logits - cache.zero_shot[i], logits),
        ("zero-shot", "+ cache", "= sum"),
        strict=True,
    ):
        centred = (part - part.mean())[shown].numpy()
        axis.barh(range(len(shown)), centred, color=[RIGHT if c == truth else "#999999" for c in shown])
        axis.axvline(0, color="#555555", linewidth=0.8)
        axis.set_title(title, fontsize=9)
        axis.set_yticks(range(len(shown)), [cache.names[c] for c in shown], fontsize=8)
    panels[0].invert_yaxis()
    panels[1].set_xlabel("logit minus its mean over the classes", fontsize=8)
    return figure


def matrices(cache: Cache, rows, alpha: float | None = None, beta: float | None = None) -> Figure:
    """The formula as pictures for the images `rows`: A, its weights, V, and the vote."""
    alpha, beta = cache.alpha if alpha is None else alpha, cache.beta if beta is None else beta
    rows = list(rows)
    a = cache.affinity[rows]
    parts = {
        "A = f · keysᵀ": (a, "cached image n", "query"),
        f"exp(−β(1−A)), β = {beta:.2g}": (torch.exp(-beta * (1 - a)), "cached image n", "query"),
        "values": (cache.values, "class", "cached image n"),
        f"vote, α = {alpha:.2g}": (alpha * cache_vote(a, cache.values, beta), "class", "query"),
    }
    figure, axes = plt.subplots(1, 4, figsize=(9.6, 2.9), width_ratios=(1.5, 1.5, 0.8, 1))
    for axis, (title, (matrix, xlabel, ylabel)) in zip(axes, parts.items(), strict=True):
        shown = axis.imshow(matrix.numpy(), aspect="auto", cmap="viridis")
        axis.grid(False)
        axis.set(xlabel=xlabel, ylabel=ylabel)
        for ticks in (axis.xaxis, axis.yaxis):
            ticks.set_major_locator(MaxNLocator(5, integer=True))
        axis.set_title(title, fontsize=9)
        figure.colorbar(shown, ax=axis, location="bottom", fraction=0.07)
    axes[3].plot(cache.labels[rows], range(len(rows)), "o", markersize=9, markerfacecolor="none", color=WRONG)
    return figure


def weight_curves(cache: Cache, betas) -> Figure:
    """Left: the weight exp(-beta (1 - A)), relative to that of the nearest possible key, over A, for several beta.
    Right: the affinities that occur, for cached images of the right class and of another."""
    same = cache.values[:, cache.labels].T.bool()  # (B, N)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.1))
    low = min(0.0, cache.affinity.min().item())
    a = np.linspace(low, 1, 200)
    for beta, colour, style in zip(betas, COLOURS, ("-", "--", "-.", ":", "-", "--"), strict=False):
        left.plot(a, np.exp(-beta * (1 - a)), style, color=colour, label=f"β = {beta:g}")
    left.set(xlabel="affinity A (cosine)", ylabel="weight exp(−β(1−A))", title="how loud one cached image is")
    left.legend(fontsize=8)
    bins = np.linspace(low, 1, 60)
    for mask, label, colour in ((~same, "another class", WRONG), (same, "the right class", RIGHT)):
        right.hist(cache.affinity[mask].numpy(), bins, density=True, alpha=0.55, color=colour, label=label)
    right.set(xlabel="affinity A (cosine)", ylabel="density", title="the affinities that occur")
    right.legend(fontsize=8)
    return figure


def search_maps(maps: dict[str, np.ndarray], betas, alphas, chosen: tuple[float, float]) -> Figure:
    """Accuracy (betas, alphas) over the grid, one panel per name, one colour scale. Cross: `chosen`; circle: the
    best of each map."""
    figure, axes = plt.subplots(1, len(maps), figsize=(4.6 * len(maps), 3.3), sharey=True, squeeze=False)
    everything = 100 * np.stack(list(maps.values()))
    for axis, (name, accuracy) in zip(axes[0], maps.items(), strict=True):
        limits = {"vmin": everything.min(), "vmax": everything.max()}
        shown = axis.pcolormesh(betas, alphas, 100 * accuracy.T, cmap="viridis", shading="nearest", **limits)
        i, j = np.unravel_index(accuracy.argmax(), accuracy.shape)
        axis.plot(betas[i], alphas[j], "o", color="white", markersize=11, markerfacecolor="none", markeredgewidth=2)
        axis.plot(*chosen, "x", color="black", markersize=9, markeredgewidth=2.5)
        axis.grid(False)
        axis.set(xlabel="β (sharpness)", title=name)
    axes[0, 0].set_ylabel("α (weight of the cache)")
    figure.colorbar(shown, ax=axes[0].tolist(), label="accuracy (%)")
    return figure


def affinity_matrix(cache: Cache) -> Figure:
    """(queries, keys), both ordered by class, and beside it its mean over each block (C, C)."""
    key_labels = cache.values.argmax(1)
    rows, columns = cache.labels.argsort(stable=True), key_labels.argsort(stable=True)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4.2))
    shown = left.imshow(
        cache.affinity[rows][:, columns].numpy(), aspect="auto", cmap="viridis", interpolation="antialiased"
    )
    left.set(xlabel="cached image, by class", ylabel="query, by class", title="every pair")
    figure.colorbar(shown, ax=left, label="affinity A")
    _by_class(right, _mean_affinity(cache), cache.names, "mean over each block", "affinity A", "viridis")
    return figure


def key_motion(before: Cache, after: Cache, keys: Tensor) -> Figure:
    """What training did to the keys, seen by the same queries; keys (N, E): as they were before. Left: mean affinity of
    the queries of a class to the keys of a class, after minus before. Right: `loudness`, with names."""
    change = _mean_affinity(after) - _mean_affinity(before)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4.2))
    top = change.abs().max().item() or 1.0
    _by_class(left, change, before.names, "affinity after − before", "change of A", "RdBu_r", (-top, top))
    scatter_text(torch.stack(loudness(before, after, keys), dim=1), before.names, axis=right)
    right.axhline(0, color="#555555", linewidth=0.8)
    right.set(xlabel="mean affinity among the keys of a class, before", ylabel="mean change of A to its keys")
    right.set_title("compact classes and diverse ones")
    right.margins(x=0.2, y=0.1)
    return figure


def loudness(before: Cache, after: Cache, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Per class (C,): mean affinity among its own keys before training, and the mean change of the affinity to its keys
    over the queries (classes weigh equally)."""
    members = _means(before.values)
    keys = keys.detach().cpu()
    own = (members.T @ keys @ keys.T @ members).diagonal()
    return own, (_mean_affinity(after) - _mean_affinity(before)).mean(0)


def _means(one_hot: Tensor) -> Tensor:
    """Columns that average over the members of a class; zeros for a class without any."""
    return one_hot / one_hot.sum(0).clamp(min=1)


def _mean_affinity(cache: Cache) -> Tensor:
    """(C, C), from the queries of a class to the keys of a class."""
    queries = torch.nn.functional.one_hot(cache.labels, len(cache.names)).float()
    return _means(queries).T @ cache.affinity @ _means(cache.values)


def _by_class(axis, block, names, title: str, label: str, cmap: str, limits=(None, None)) -> None:
    shown = axis.imshow(block.numpy(), cmap=cmap, vmin=limits[0], vmax=limits[1])
    axis.grid(False)
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axis.set_yticks(range(len(names)), names, fontsize=7)
    axis.set(xlabel="class of the keys", ylabel="class of the queries", title=title)
    axis.figure.colorbar(shown, ax=axis, label=label)


def explorer(cache: Cache, val: Cache | None = None, alpha_max: float = 10.0, beta_max: float = 100.0):
    """Sliders for the image, alpha and beta; below them the accuracies and the votes for that image."""
    options = {"continuous_update": False, "style": {"description_width": "90px"}, "layout": {"width": "420px"}}
    alpha, beta = min(cache.alpha, alpha_max), min(max(cache.beta, 0.1), beta_max)
    c = {
        "image": widgets.IntSlider(0, 0, len(cache.labels) - 1, description="test image", **options),
        "alpha": widgets.FloatSlider(alpha, min=0, max=alpha_max, step=0.1, description="α", **options),
        "beta": widgets.FloatLogSlider(beta, min=-1, max=np.log10(beta_max), step=0.05, description="β", **options),
    }

    def look(image: int, *now: float) -> tuple[Figure, str]:
        right = cache.logits(*now)[image].argmax() == cache.labels[image]
        shares = [f"test {100 * cache.accuracy(*now):.1f} %", f"zero-shot {100 * cache.accuracy(0.0):.1f} %"]
        if val is not None:
            shares.insert(0, f"validation {100 * val.accuracy(*now):.1f} %")
        sentence = f"accuracy: {' · '.join(shares)}; this image: {'right' if right else 'wrong'}"
        return votes(cache, image, *now), sentence

    return panel(c, look)
