"""Figures and the explorer of "VPT": one prompt against a distribution, what samples do, calibration, the objective.

    idea_figure()                          CoOp's point and VPT's cloud in front of the class name
    trade_figure(results, …)               base, new and calibration, method by method
    samples_figure(single, mean, …)        accuracy and calibration error over the number of samples
    reliability_figure(panels)             accuracy over confidence, a panel per classifier
    spread_figure(text, names)             class features of sampled prompts in a plane
    image_figure(image, log_p, names, …)   what each sampled prompt says about one image
    explorer(posterior_of, …)              the width of the cloud and the number of samples
Shapes: S samples, B images, C classes; log_p (S, B, C) log-probabilities of each sampled classifier.
"""

from collections.abc import Callable, Mapping, Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, FancyBboxPatch
from torch import Tensor

from vlmcourse.evaluation.metrics import calibration_error, reliability
from vlmcourse.methods.text_prompts.vpt import log_mean_exp
from vlmcourse.show.figures import curves
from vlmcourse.show.panel import panel
from vlmcourse.show.style import COLOURS, HATCHES, MARKERS


def accuracy_and_ece(log_p: Tensor, labels: Tensor) -> tuple[float, float]:
    """Top-1 and ECE (15 bins) in % of log-probabilities (B, C)."""
    confidence, predicted = log_p.exp().max(dim=1)
    correct = (predicted == labels).double()
    return 100 * correct.mean().item(), 100 * calibration_error(confidence.clamp(max=1), correct)


def idea_figure(n_ctx: int = 4, name: str = "crown") -> Figure:
    """Two rows of tokens: CoOp's learned vectors, and the same shifted by samples of one Gaussian."""
    figure, axis = plt.subplots(figsize=(9.2, 3.1))
    axis.set(xlim=(0, 13), ylim=(-0.2, 4.3))
    axis.axis("off")

    def box(x, y, width, text, colour):
        shape = "round,pad=0.02,rounding_size=0.08"
        axis.add_patch(FancyBboxPatch((x, y), width, 0.6, shape, edgecolor="black", facecolor=colour, linewidth=0.9))
        axis.text(x + width / 2, y + 0.3, text, ha="center", va="center", fontsize=9)

    def row(y, shift):
        box(0.1, y, 0.8, "SOS", "#E6E6E6")
        for m in range(n_ctx):
            box(1.05 + 1.25 * m, y, 1.1, f"$v_{m + 1}{shift}$", COLOURS[4])
        x = 1.05 + 1.25 * n_ctx
        box(x, y, 1.5, f"{name} .", "#E6E6E6")
        box(x + 1.6, y, 0.8, "EOT", "#E6E6E6")
        axis.annotate("", (x + 3.2, y + 0.3), (x + 2.5, y + 0.3), arrowprops={"arrowstyle": "->"})
        return x + 3.3

    x = row(3.4, "")
    axis.text(x, 3.7, "CoOp: one classifier", va="center", fontsize=9)
    for i, (y, shift) in enumerate(((2.2, "+r_1"), (1.35, "+r_2"), (0.5, "+r_S"))):
        x = row(y, shift)
        axis.text(x, y + 0.3, ("$p_1(y|x)$", "$p_2(y|x)$", "$p_S(y|x)$")[i], va="center", fontsize=10)
    axis.text(x + 1.15, 1.65, "VPT: the mean\nof S classifiers", va="center", fontsize=9)
    axis.text(4.3, 0.0, r"$r_l = \mu + \sigma\,\varepsilon_l$: one shift for all tokens and classes of a sample; "
              r"$\mu$, $\sigma$ and $v$ are learned", ha="center", fontsize=9, color=COLOURS[1])  # fmt: skip
    return figure


def trade_figure(results: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """results: {method: {"base", "new", "new_ece": values over splits, in %}}; a panel per number, mean and std."""
    parts = {"base": "base: top-1 (%)", "new": "new: top-1 (%)", "new_ece": "new: calibration error (%)"}
    figure, axes = plt.subplots(1, 3, figsize=(10, 0.8 + 0.42 * len(results)), sharey=True)
    rows = np.arange(len(results))
    for axis, (part, label) in zip(axes, parts.items()):
        for row, (values, colour, hatch) in enumerate(zip(results.values(), COLOURS, HATCHES)):
            v = np.asarray(values[part])
            axis.barh(row, v.mean(), xerr=v.std(), color=colour, hatch=hatch, edgecolor="white", capsize=2)
        axis.set_xlabel(label)
    axes[0].set_yticks(rows, list(results), fontsize=9)
    axes[0].invert_yaxis()
    return figure


def samples_figure(log_p: Tensor, labels: Tensor, counts: Sequence[int]) -> Figure:
    """Accuracy and calibration error of the mean of S sampled classifiers over S, several draws of each size.

    log_p: (N, B, C) of many samples; for each S they are cut into groups of S.
    """
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3))
    points = {}
    for count in counts:
        groups = log_p.split(count)[: max(1, len(log_p) // count)]
        points[count] = [accuracy_and_ece(log_mean_exp(g), labels) for g in groups]
    for i, (axis, label) in enumerate(zip(axes, ("top-1 (%)", "calibration error (%)"))):
        for count, values in points.items():
            axis.plot([count] * len(values), [v[i] for v in values], MARKERS[0], color=COLOURS[5], markersize=4)
        curves({label: [float(np.mean([v[i] for v in points[c]])) for c in counts]}, x=counts, axis=axis, log_x=True,
               xlabel="samples S", ylabel=label)  # fmt: skip
    return figure


def reliability_figure(panels: Mapping[str, tuple[Tensor, Tensor]], bins: int = 10) -> Figure:
    """panels: {title: (log_p (B, C), labels (B,))}; bars of accuracy per bin of confidence against the diagonal."""
    figure, axes = plt.subplots(1, len(panels), figsize=(3 * len(panels), 3.1), sharey=True, squeeze=False)
    for i, (axis, (title, (log_p, labels))) in enumerate(zip(axes[0], panels.items())):
        confidence, predicted = log_p.exp().max(dim=1)
        table = reliability(confidence.clamp(max=1), (predicted == labels).double(), bins)
        edges, count, accuracy, _ = (column.numpy() for column in table)
        used, left = count > 0, edges[:-1]
        axis.bar(left[used], accuracy[used], 1 / bins, align="edge", color=COLOURS[i], hatch=HATCHES[i],
                 edgecolor="white")  # fmt: skip
        axis.plot([0, 1], [0, 1], color="#555555", linestyle="--", linewidth=1)
        axis.set(xlabel="confidence", title=f"{title}\nECE {accuracy_and_ece(log_p, labels)[1]:.0f} %")
    axes[0, 0].set_ylabel("accuracy")
    return figure


def spread_figure(text: Tensor, names: Sequence[str], centre: Tensor | None = None) -> Figure:
    """Class features of S sampled prompts (S, C, E) in the plane of their two largest principal components.

    One colour and marker per class, an ellipse of two standard deviations; centre (C, E): a classifier to mark (black).
    """
    S, C, _ = text.shape
    flat = text.reshape(S * C, -1)
    mean = flat.mean(0)
    plane = torch.linalg.svd(flat - mean, full_matrices=False).Vh[:2]
    figure, axis = plt.subplots(figsize=(7, 4.4))
    for c, name in enumerate(names):
        at, colour = ((text[:, c] - mean) @ plane.T).numpy(), COLOURS[c % len(COLOURS)]
        axis.plot(*at.T, MARKERS[c % len(MARKERS)], color=colour, markersize=3, alpha=0.6)
        values, vectors = np.linalg.eigh(np.cov(at.T) + 1e-12 * np.eye(2))
        angle = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))
        size = 4 * np.sqrt(values)
        axis.add_patch(Ellipse(at.mean(0), size[1], size[0], angle=angle, fill=False, edgecolor=colour))
        axis.annotate(name, at.mean(0), fontsize=8)
        if centre is not None:
            axis.plot(*((centre[c] - mean) @ plane.T).numpy(), "x", color="black", markersize=6)
    axis.set(xlabel="first principal component", ylabel="second")
    return figure


def image_figure(image: Tensor, log_p: Tensor, names: Sequence[str], label: int) -> Figure:
    """One picture (3, H, W), the probabilities of each sample (S, C) as dots, and their mean as bars."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 0.7 + 0.24 * len(names)), width_ratios=(1, 3))
    left.imshow(image.permute(1, 2, 0).numpy())
    left.set(xticks=[], yticks=[], title=names[label])
    left.grid(False)
    p = log_p.exp().numpy()
    rows = np.arange(len(names))
    colours = [COLOURS[2] if c == label else "#BBBBBB" for c in rows]
    right.barh(rows, p.mean(0), color=colours, label="mean")
    for one in p:
        right.plot(one, rows, MARKERS[0], color=COLOURS[0], markersize=3, alpha=0.5)
    right.set_yticks(rows, names, fontsize=8)
    right.invert_yaxis()
    right.set(xlabel="probability: dots one sample each, bar their mean", xlim=(0, 1))
    return figure


def explorer(sampled: Callable[[float, int], Tensor], labels: Tensor, widths: Sequence[float],
             counts: Sequence[int] = (1, 2, 5, 10, 20)) -> widgets.VBox:  # fmt: skip
    """Width of the cloud and number of samples; shows a reliability diagram and says accuracy and calibration.

    sampled: (multiple of the learned sigma, S) -> log-probabilities (S, B, C). The box has the attributes `controls`
    (by name), `picture` and `message`. ValueError for no widths or no counts.
    """
    if not widths or not counts:
        raise ValueError(f"widths={list(widths)} and counts={list(counts)} must not be empty")
    wide = {"style": {"description_width": "110px"}, "continuous_update": False}
    c = {
        "width": widgets.SelectionSlider(options=list(widths), value=widths[-1], description="times sigma", **wide),
        "samples": widgets.SelectionSlider(options=list(counts), value=counts[-1], description="samples S", **wide),
    }

    def look(width: float, samples: int) -> tuple[Figure, str]:
        log_p = log_mean_exp(sampled(width, samples))
        accuracy, error = accuracy_and_ece(log_p, labels)
        figure = reliability_figure({"mean of the samples": (log_p, labels)})
        return figure, f"top-1 {accuracy:.1f} %, calibration error {error:.1f} %"

    return panel(c, look)
