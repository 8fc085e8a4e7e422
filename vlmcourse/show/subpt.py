"""Figures and the explorer of "SubPT": two stages in a picture, spectra of trajectories, curves over epochs, paths.

    stages_figure()                      the method as a picture
    spectrum_figure(spectra)             cumulative variance of trajectories over the number of directions
    leaving_figure(shares, early, …)     how much of every epoch's step lies in the early subspace
    epoch_curves(curves, epochs, …)      accuracy and loss on base and new images over the epochs
    path_figure(paths, basis, start)     paths in the plane of the first two directions, and their way out of it
    explorer(fit, …)                     choose t_early and r; one fit behind each setting
Shapes: T epochs, P numbers of a context, r directions.
"""

from collections.abc import Callable, Mapping, Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from vlmcourse.show.panel import once, panel
from vlmcourse.show.style import COLOURS, MARKERS

PANELS = (("base", "accuracy"), ("new", "accuracy"), ("base", "loss"), ("new", "loss"))


def stages_figure() -> Figure:
    """Left: stage 1, a path that follows a line and then wanders off. Right: stage 2, steps projected on the line."""
    figure, axes = plt.subplots(1, 2, figsize=(9.2, 3.2), sharex=True, sharey=True)
    early = np.array([[0, 0], [1.1, 0.42], [2.0, 0.72], [2.7, 1.0], [3.2, 1.16]])
    late = np.array([[3.2, 1.16], [3.55, 1.5], [3.7, 2.0], [3.72, 2.55], [3.62, 3.05]])
    slope = 0.365
    for axis, title in zip(axes, ("stage 1: train, and keep the early contexts", "stage 2: train again, projected")):
        axis.plot([-0.4, 5.4], [-0.4 * slope, 5.4 * slope], color=COLOURS[2], linestyle="--", linewidth=1)
        axis.plot(0, 0, "*", color="black", markersize=12)
        axis.text(0.05, -0.42, "start $v_0$", ha="center", fontsize=9)
        axis.text(4.45, 1.23, "span of $U$", color=COLOURS[2], fontsize=10, rotation=16)
        axis.set(xlim=(-0.6, 5.6), ylim=(-0.8, 3.5), title=title, xlabel="context, one direction", xticks=[], yticks=[])
        axis.grid(False)
    axes[0].set_ylabel("another direction")
    axes[0].plot(*early.T, "-" + MARKERS[0], color=COLOURS[0], label="early epochs: transfer")
    axes[0].plot(*late.T, "-" + MARKERS[1], color=COLOURS[1], label="late epochs: fit the few images")
    axes[0].legend(loc="upper left", fontsize=8)
    along = np.array([[x, slope * x] for x in (0, 1.1, 2.0, 2.7, 3.2, 3.6)])
    axes[1].plot(*along.T, "-" + MARKERS[0], color=COLOURS[0])
    foot, tip = along[3], along[3] + np.array([0.45, 1.35])
    shadow = foot + np.array([1, slope]) * ((tip - foot) @ np.array([1, slope])) / (1 + slope**2)
    for end, colour, text, offset in (
        (tip, COLOURS[1], "$-g$", (-0.32, 0.05)),
        (shadow, "black", "$-U^⊤U g$", (0.1, -0.5)),
    ):
        axes[1].annotate("", end, foot, arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.8})
        axes[1].text(*(end + offset), text, color=colour, fontsize=11)
    axes[1].plot(*np.array([tip, shadow]).T, ":", color="#555555")
    return figure


def spectrum_figure(spectra: Mapping[str, Sequence[Sequence[float]]], most: int = 10) -> Figure:
    """Cumulative share of the variance in % over the number of directions; one thin line per seed, by name."""
    figure, axis = plt.subplots(figsize=(6.4, 3.3))
    for i, (name, rows) in enumerate(spectra.items()):
        for j, shares in enumerate(rows):
            total = 100 * np.cumsum(np.asarray(shares))[:most]
            label = name if j == 0 else None
            at = np.arange(1, len(total) + 1)
            axis.plot(at, total, marker=MARKERS[i], markersize=5, color=COLOURS[i], linewidth=1, label=label)
    axis.set(xlabel="directions kept, r", ylabel="share of the variance in %", ylim=(None, 101))
    axis.set_xticks(range(1, most + 1))
    axis.legend(fontsize=8, loc="lower right")
    return figure


def leaving_figure(shares: Sequence[Sequence[float]], lengths: Sequence[Sequence[float]], t_early: int) -> Figure:
    """Left: share in % of each epoch's squared step inside the early subspace, a line per seed. Right: its length."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
    for i, (share, length) in enumerate(zip(shares, lengths, strict=True)):
        at = np.arange(2, len(share) + 2)
        left.plot(at, 100 * np.asarray(share), color=COLOURS[i % len(COLOURS)], linewidth=1, label=f"split {i + 1}")
        right.plot(at, length, color=COLOURS[i % len(COLOURS)], linewidth=1)
    for axis in (left, right):
        axis.axvspan(1, t_early, color="#DDDDDD", zorder=0)
        axis.set_xlabel("epoch (grey: the epochs that span U)")
    left.set(ylabel="share of the step inside U in %", ylim=(0, 104))
    right.set(ylabel="length of the epoch's step", yscale="log")
    left.legend(fontsize=8, loc="lower left")
    return figure


Curves = Mapping[tuple[str, str], np.ndarray]  # {("base", "loss"): (seeds, points), ...}


def epoch_curves(curves: Mapping[str, Curves], epochs: Sequence[int], zero_shot: Mapping | None = None) -> Figure:
    """Mean ± standard deviation over the seeds, four panels: accuracy in % and loss in nats on base and new images.

    zero_shot: {(part, quantity): number}, drawn as dashed lines.
    """
    figure, axes = plt.subplots(2, 2, figsize=(9.2, 5.6), sharex=True)
    for axis, (part, quantity) in zip(axes.flat, PANELS):
        for i, (name, by_panel) in enumerate(curves.items()):
            values = np.asarray(by_panel[part, quantity]) * (100 if quantity == "accuracy" else 1)
            mean, std = values.mean(0), values.std(0)
            axis.plot(epochs, mean, marker=MARKERS[i], markersize=4, color=COLOURS[i], label=name)
            axis.fill_between(epochs, mean - std, mean + std, alpha=0.09, color=COLOURS[i])
        if zero_shot is not None:
            level = zero_shot[part, quantity] * (100 if quantity == "accuracy" else 1)
            axis.axhline(level, color="#555555", linestyle="--", linewidth=1, label="zero-shot")
        unit = "top-1 in %" if quantity == "accuracy" else "test loss in nats"
        axis.set(title=f"{part} classes", ylabel=unit, xscale="log")
        ticks = [e for e in (1, 2, 5, 10, 20, 50, 100, 200) if epochs[0] <= e <= epochs[-1]]
        axis.set_xticks(ticks, [str(e) for e in ticks])
        axis.minorticks_off()
    for axis in axes[1]:
        axis.set_xlabel("epoch")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=9)
    return figure


def path_figure(paths: Mapping[str, Tensor], basis: Tensor, start: Tensor) -> Figure:
    """paths: {name: contexts (T, P)}. Left: in the plane of the first two rows of basis (r, P), from start (P,).

    Right: distance from start + span(basis), over the epochs.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
    for i, (name, path) in enumerate(paths.items()):
        moved = torch.cat([torch.zeros(1, len(start)), (path - start).float().cpu()])  # (1 + T, P)
        flat = moved @ basis.float().cpu().T  # (1 + T, r)
        outside = (moved - flat @ basis.float().cpu()).norm(dim=1)
        plane = flat[:, :2] if flat.shape[1] > 1 else torch.cat([flat, torch.zeros_like(flat)], 1)
        left.plot(*plane.T.numpy(), marker=MARKERS[i], markersize=3, linewidth=1, color=COLOURS[i], label=name)
        style = {"linestyle": ("-", "--", ":", "-.")[i % 4]}
        right.plot(
            np.arange(1, len(outside)), outside[1:].clamp(min=1e-9).numpy(), color=COLOURS[i], label=name, **style
        )
    left.plot(0, 0, "*", color="black", markersize=11)
    left.set(xlabel="along the first direction of U", ylabel="along the second")
    right.set(xlabel="epoch", ylabel="distance outside U", yscale="log")
    right.legend(fontsize=8)
    return figure


def setting_figure(outcome: Mapping, reference: Mapping, title: str) -> Figure:
    """One fit beside CoOp: training loss over the epochs; base and new accuracy and loss after the last one."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9.6, 2.9))
    for i, (name, fit) in enumerate((("CoOp", reference), ("SubPT", outcome))):
        at = np.arange(1, len(fit["train"]) + 1)
        left.plot(at, fit["train"], color=COLOURS[i], linestyle=("--", "-")[i], label=name)
        for axis, quantity, scale in ((middle, "accuracy", 100), (right, "loss", 1)):
            heights = [scale * fit[part, quantity] for part in ("base", "new")]
            drawn = axis.bar(
                np.arange(2) + 0.4 * i - 0.2, heights, 0.38, color=COLOURS[i], hatch=("//", "")[i], label=name
            )
            axis.bar_label(drawn, fmt="%.0f" if scale == 100 else "%.2f", fontsize=8)
    left.set(xlabel="epoch", ylabel="training loss in nats", yscale="log", title=title)
    middle.set(ylabel="top-1 in %", ylim=(0, 110)), right.set(ylabel="test loss in nats")
    for axis in (middle, right):
        axis.set_xticks([0, 1], ["base", "new"])
    left.legend(fontsize=8)
    return figure


def explorer(
    fit: Callable[[int, int], Mapping], reference: Mapping, early: Sequence[int], ranks: Sequence[int],
    known: Mapping[tuple[int, int], Mapping] | None = None,
) -> widgets.VBox:  # fmt: skip
    """Sliders for t_early and r; each setting is fitted once. fit: (t_early, r) -> outcome as in `setting_figure`.

    The box has the attributes `controls` (by name), `picture`, `message` and `known`. A setting with r >= t_early is
    refused in words. ValueError for no choices.
    """
    if not early or not ranks:
        raise ValueError(f"early={list(early)} and ranks={list(ranks)} must not be empty")
    known, wide = dict(known or {}), {"style": {"description_width": "130px"}, "continuous_update": False}
    c = {
        "early": widgets.SelectionSlider(options=list(early), value=early[-1], description="early epochs", **wide),
        "rank": widgets.SelectionSlider(options=list(ranks), value=ranks[-1], description="directions r", **wide),
    }
    fitted = once(fit, known)

    def look(t_early: int, r: int) -> tuple[Figure | None, str]:
        if r >= t_early:
            return None, f"{t_early} epochs span at most {t_early - 1} directions: choose a smaller r"
        outcome = fitted(t_early, r)
        figure = setting_figure(outcome, reference, f"t_early = {t_early}, r = {r}")
        return figure, f"{100 * outcome['kept']:.2f} % of the early variance kept"

    box = panel(c, look)
    box.known = known
    return box
