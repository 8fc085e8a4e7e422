"""Figures and the explorer of "WiSE-FT": the straight path between two sets of weights.

    idea_figure()                        two landscapes over the weights, and the path between their valleys
    path_figure(paths, outputs, alphas)  accuracy on the source against mean accuracy under shift, alpha along the path
    alpha_figure(...)                    both accuracies over alpha
    domain_figure(changes, domains)      points against zero-shot, domain by domain
    depth_figure(moves)                  how far the weights of every part have gone
    explorer(...)                        a slider for alpha
Accuracies are in %. Tables of accuracies are (alphas, 1 + domains): the source first.
"""

from collections.abc import Mapping, Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from vlmcourse.show.figures import bars, curves
from vlmcourse.show.panel import panel
from vlmcourse.show.style import COLOURS, MARKERS


def idea_figure() -> Figure:
    """Schematic: contours of the source's loss and of the shifted domains' loss over two weights, path on top."""
    figure, axis = plt.subplots(figsize=(7.2, 3.6))
    x, y = np.meshgrid(np.linspace(-2, 4, 200), np.linspace(-1.6, 1.6, 150))
    source, shifted = (x - 2.2) ** 2 / 3 + y**2, (x - 0.5) ** 2 / 2 + (y - 0.1) ** 2
    for z, colour in ((source, COLOURS[0]), (shifted, COLOURS[1])):
        axis.contour(x, y, z, levels=[0.12, 0.4, 0.9], colors=colour, linewidths=1.2)
    ends = np.array([[-0.9, -0.15], [2.6, 0.12]])
    path = ends[0] + np.linspace(0, 1, 11)[:, None] * (ends[1] - ends[0])
    axis.plot(*path.T, "o-", color="black", markersize=4)
    for at, text, shift in ((path[0], "zero-shot θ₀", (-10, -18)), (path[-1], "fine-tuned θ₁", (-6, -18)),
                            (path[5], "α = 0.5", (-16, 9))):  # fmt: skip
        axis.annotate(text, at, textcoords="offset points", xytext=shift, fontsize=10)
    handles = [plt.Line2D([], [], color=COLOURS[0], label="loss on the source"),
               plt.Line2D([], [], color=COLOURS[1], label="loss under shift")]  # fmt: skip
    axis.legend(handles=handles, fontsize=9, loc="upper left")
    axis.set(xticks=[], yticks=[], xlabel="one direction among millions of weights")
    axis.grid(False)
    return figure


def path_figure(
    weights: Sequence,
    outputs: Sequence,
    alphas: Sequence[float],
    chosen: float = 0.5,
    ylabel: str = "mean top-1 under shift in %",
) -> Figure:
    """weights, outputs: for every seed a table (alphas, 1 + domains); means as thick lines, seeds as thin ones."""
    figure, axis = plt.subplots(figsize=(7, 4.4))
    for tables, name, colour, style in ((outputs, "averaged outputs, two models", COLOURS[1], "--"),
                                        (weights, "averaged weights, one model", COLOURS[0], "-")):  # fmt: skip
        tables = np.asarray(tables)  # (seeds, alphas, 1 + domains)
        x, y = tables[..., 0], tables[..., 1:].mean(-1)
        for xs, ys in zip(x, y, strict=True):
            axis.plot(xs, ys, style, color=colour, alpha=0.25, linewidth=1)
        axis.plot(x.mean(0), y.mean(0), style, marker="o", markersize=4, color=colour, linewidth=2, label=name)
    for alpha, marker, text, shift in ((0, "s", "zero-shot", (8, -4)), (1, "D", "fine-tuned", (10, -10)),
                                       (chosen, "*", f"α = {chosen:g}", (8, 4))):  # fmt: skip
        i = int(np.argmin(np.abs(np.asarray(alphas) - alpha)))
        at = x.mean(0)[i], y.mean(0)[i]
        axis.plot(*at, marker, color="black", markersize=12 if marker == "*" else 8, zorder=3)
        axis.annotate(text, at, textcoords="offset points", xytext=shift, fontsize=9)
    axis.set(xlabel="top-1 on the source in %", ylabel=ylabel)
    axis.legend(fontsize=9, loc="lower left", bbox_to_anchor=(0.1, 0.0))
    return figure


def alpha_figure(tables: Mapping[str, Sequence], alphas: Sequence[float]) -> Figure:
    """tables: {name: for every seed a table}: source left, mean under shift right, over alpha; bands ± one std."""
    figure, axes = plt.subplots(1, 2, figsize=(9.4, 3.4))
    for axis, part, title in zip(axes, (slice(0, 1), slice(1, None)), ("source", "mean under shift"), strict=True):
        values = {name: np.asarray(t)[..., part].mean(-1) for name, t in tables.items()}  # (seeds, alphas)
        mean, std = ({n: f(v, axis=0) for n, v in values.items()} for f in (np.mean, np.std))
        curves(mean, alphas, "alpha", "top-1 in %", std, axis)
        axis.set_title(title)
    return figure


def domain_figure(changes: Mapping[str, Sequence[Sequence[float]]], domains: Sequence[str]) -> Figure:
    """changes: {name: for every seed the points above zero-shot, per domain}."""
    figure, axis = plt.subplots(figsize=(9.4, 3.6))
    mean = {name: np.mean(rows, axis=0) for name, rows in changes.items()}
    std = {name: np.std(rows, axis=0) for name, rows in changes.items()}
    bars(mean, list(domains), "points above zero-shot", std, axis)
    axis.axhline(0, color="#555555", linewidth=1)
    return figure


def depth_figure(moves: Mapping[str, float]) -> Figure:
    """moves: {part of the model: relative change of its weights}, in the order of the forward pass."""
    figure, axis = plt.subplots(figsize=(7, 3.0))
    axis.bar(range(len(moves)), [100 * v for v in moves.values()], color=COLOURS[0], edgecolor="white")
    axis.set_xticks(range(len(moves)), list(moves), rotation=30, ha="right", fontsize=8)
    axis.set_ylabel("‖θ₁ − θ₀‖ / ‖θ₀‖ in %")
    return figure


def point_figure(table, output, alphas: Sequence[float], alpha: float, domains: Sequence[str]) -> Figure:
    """One seed: the path with the point alpha, and the accuracy of that point in every domain beside both ends."""
    table, output = np.asarray(table), np.asarray(output)  # (alphas, 1 + domains)
    i = int(np.argmin(np.abs(np.asarray(alphas) - alpha)))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.4), gridspec_kw={"width_ratios": [1, 1.9]})
    for values, name, style, colour in ((output, "outputs", "--", COLOURS[1]), (table, "weights", "-", COLOURS[0])):
        left.plot(values[:, 0], values[:, 1:].mean(1), style, color=colour, marker="o", markersize=3, label=name)
    left.plot(table[i, 0], table[i, 1:].mean(), "*", color="black", markersize=14)
    left.set(xlabel="source, top-1 in %", ylabel="mean under shift, top-1 in %", title=f"alpha = {alpha:g}")
    left.legend(fontsize=8)
    series = {"zero-shot": table[0], f"alpha = {alpha:g}": table[i], "fine-tuned": table[-1]}
    for k, (name, values) in enumerate(series.items()):
        right.plot(range(len(values)), values, MARKERS[k], color=COLOURS[(6, 0, 4)[k]], label=name, markersize=7)
    right.set_xticks(range(1 + len(domains)), ["source", *domains], rotation=30, ha="right", fontsize=8)
    right.set_ylabel("top-1 in %")
    right.legend(fontsize=8)
    return figure


def explorer(weights: Mapping, outputs: Mapping, alphas: Sequence[float], domains: Sequence[str]) -> widgets.VBox:
    """weights, outputs: {seed: table (alphas, 1 + domains)}. A slider for alpha and a choice of the seed.

    ValueError for tables of another shape.
    """
    shape = (len(alphas), 1 + len(domains))
    for seed, table in (*weights.items(), *outputs.items()):
        if np.asarray(table).shape != shape:
            raise ValueError(f"the table of seed {seed} is {np.asarray(table).shape}, expected {shape}")
    controls = {
        "alpha": widgets.SelectionSlider(
            options=list(alphas), value=alphas[len(alphas) // 2], description="alpha", continuous_update=False
        ),
        "seed": widgets.Dropdown(options=list(weights), description="seed"),
    }

    def look(alpha: float, seed) -> tuple[Figure, str]:
        table = np.asarray(weights[seed])
        i = list(alphas).index(alpha)
        change = table[i] - table[0]
        said = f"against zero-shot: source {change[0]:+.1f}, mean under shift {change[1:].mean():+.1f} points"
        return point_figure(table, outputs[seed], alphas, alpha, domains), said

    return panel(controls, look)
