"""Figures and the explorer of "VP": images plus a learned frame, what the frame looks like, how its size matters.

    sum_figure(rows)                   image + prompt = what the model sees, a row per design
    borders_figure(deltas, std)        learned frames as pictures, and how strong they are where
    size_figure(sizes, runs, …)        accuracy over the prompt size, and the share of the image it covers
    predictions_figure(counts, names)  how often each class is answered
    explorer(images, labels, …)        a prompt of chosen strength on a chosen image
Pictures are (3, S, S) with pixels in [0, 1], clipped where they are not; delta (3, S, S) is in normalised pixels.
"""

from collections.abc import Callable, Mapping, Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from vlmcourse.show.figures import bars
from vlmcourse.show.panel import panel
from vlmcourse.show.playground import bare_image
from vlmcourse.show.style import COLOURS


def sum_figure(rows: Mapping[str, tuple[Tensor, Tensor, Tensor]]) -> Figure:
    """rows: {name: (image, prompt as a picture, what the model sees)}."""
    figure, axes = plt.subplots(len(rows), 3, figsize=(6.4, 2.1 * len(rows)), squeeze=False)
    for row, (name, pictures) in zip(axes, rows.items(), strict=True):
        titles = ("image", f"+ prompt ({name})", "= what the model sees")
        for axis, picture, title in zip(row, pictures, titles, strict=True):
            bare_image(axis, picture.clamp(0, 1), title)
    return figure


def as_picture(delta: Tensor, std: Tensor) -> Tensor:
    """delta (3, S, S) as a picture: grey where it is 0. std (3, 1, 1): of the model's normalisation."""
    return (0.5 + delta.detach() * std).clamp(0, 1).cpu()


def borders_figure(deltas: Mapping[str, Tensor], std: Tensor) -> Figure:
    """Above, each prompt as a picture (grey is zero); below, the mean absolute value over the colours, per pixel."""
    figure, axes = plt.subplots(2, len(deltas), figsize=(2.9 * len(deltas), 5.2), squeeze=False)
    strength = {name: delta.detach().abs().mean(0).cpu() for name, delta in deltas.items()}
    top = max(float(s.max()) for s in strength.values()) or 1.0
    for column, (name, delta) in zip(axes.T, deltas.items(), strict=True):
        bare_image(column[0], as_picture(delta, std), name)
        shown = column[1].imshow(strength[name].numpy(), cmap="viridis", vmin=0, vmax=top)
        column[1].grid(False)
        column[1].set(xticks=[], yticks=[])
    figure.colorbar(shown, ax=list(axes[1]), label="mean |δ|, normalised pixels")
    return figure


def size_figure(sizes: Sequence[int], runs: Mapping[int, Sequence[float]], zero_shot: float, side: int) -> Figure:
    """Accuracy in % over the size p of a frame, one point per run and their mean; beside it the share of the image of
    `side` pixels that the frame covers."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.3), width_ratios=(1.5, 1))
    for p in sizes:
        left.plot([p] * len(runs[p]), runs[p], "o", color=COLOURS[0], alpha=0.5, markersize=5)
    left.plot(sizes, [np.mean(runs[p]) for p in sizes], color=COLOURS[0], marker="s", label="VP, mean")
    left.axhline(zero_shot, color="#555555", linestyle="--", label="zero-shot")
    left.set(xlabel="prompt size p in pixels", ylabel="top-1 in %", xlim=(0, None))
    left.legend(fontsize=8)
    share = [100 * (1 - (1 - 2 * p / side) ** 2) for p in sizes]
    right.plot(sizes, share, marker="o", color=COLOURS[1])
    right.set(xlabel="prompt size p in pixels", ylabel="covered part of the image in %", ylim=(0, 105), xlim=(0, None))
    return figure


def predictions_figure(counts: Mapping[str, Sequence[int]], names: Sequence[str], each: float) -> Figure:
    """How often each class is answered, per method; each: how many images a class has."""
    _, axis = plt.subplots(figsize=(8.6, 3.6))
    return bars(counts, names, "images with this answer", axis=axis, line=each, line_label="true number")


def answer_figure(seen: Tensor, label: int, names: Sequence[str], answers: Mapping[str, Tensor]) -> Figure:
    """What the model sees (3, S, S), and the probabilities (C,) it answers, without and with the prompt."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.8, 3.4), width_ratios=(1, 2.6))
    bare_image(left, seen.clamp(0, 1), f"right: {names[label]}")
    values = {name: 100 * p.detach().cpu().numpy() for name, p in answers.items()}
    bars(values, [f"→ {n}" if c == label else n for c, n in enumerate(names)], "probability in %", axis=right)
    right.set_ylim(0, 100)
    return figure


def explorer(
    labels: Tensor, names: Sequence[str], look: Callable[[int, float], tuple[Tensor, Tensor]],
    strengths: Sequence[float] = (0, 0.25, 0.5, 1, 1.5, 2),
) -> widgets.VBox:  # fmt: skip
    """look: (number of an image, strength of the prompt) -> (what the model sees, probabilities (C,)).

    Attributes: `controls`, `picture`, `message`. ValueError for no strengths.
    """
    if not strengths:
        raise ValueError("strengths=() must not be empty")
    wide = {"continuous_update": False, "style": {"description_width": "110px"}}
    c = {
        "image": widgets.IntSlider(value=0, min=0, max=len(labels) - 1, description="test image", **wide),
        "strength": widgets.SelectionSlider(
            options=list(strengths), value=strengths[-1], description="strength", **wide
        ),
    }

    def show(i: int, strength: float) -> tuple[Figure, str]:
        (_, plain), (seen, prompted) = look(i, 0.0), look(i, strength)
        answers = {"without prompt": plain, f"{strength:g} × prompt": prompted}
        said = [names[int(torch.as_tensor(p).argmax())] for p in answers.values()]
        message = f"right: {names[int(labels[i])]}; without: {said[0]}; with: {said[1]}"
        return answer_figure(seen, int(labels[i]), names, answers), message

    return panel(c, show)
