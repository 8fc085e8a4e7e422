"""Figures and the explorer of "CALIP": one matrix and its two softmaxes, what the added terms can do, attention.

    scheme_figure()                    the method as a picture
    spread_figure(spreads)             how far each term pulls the classes of an image apart
    sweep_figure(temperatures, …)      evenness of the attention and accuracy over the temperature
    explorer(method, split)            image, class, temperature and both betas
Shapes: P positions, C classes. Accuracies are in %.
"""

from collections.abc import Mapping, Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from vlmcourse.methods.other_methods.calip import attention, blended
from vlmcourse.show.attention import answer_figure, even_shares
from vlmcourse.show.figures import bars
from vlmcourse.show.panel import panel
from vlmcourse.show.style import COLOURS, MARKERS


def scheme_figure(positions: int = 6, classes: int = 4) -> Figure:
    """The matrix A of positions and classes, read down (texts that saw the image) and across (image that read)."""
    figure, axis = plt.subplots(figsize=(8.6, 3.4))
    axis.set(xlim=(-3.4, 9.4), ylim=(-1.9, positions + 1.6))
    axis.axis("off")
    values = np.random.default_rng(1).random((positions, classes))
    axis.imshow(values, cmap="Greys", vmin=0, vmax=1.6, extent=(0, classes, 0, positions), aspect="auto")
    axis.add_patch(plt.Rectangle((1, 0), 1, positions, fill=False, edgecolor=COLOURS[0], linewidth=2.5))
    axis.add_patch(plt.Rectangle((0, 2), classes, 1, fill=False, edgecolor=COLOURS[1], linewidth=2.5))
    axis.text(classes / 2, positions + 0.9, "C class texts $T$", ha="center")
    axis.text(-0.25, positions / 2, "P positions $X$", ha="right", va="center")
    axis.text(-1.9, positions + 0.9, "$A = X T^{\\top} / \\tau$", ha="center", fontsize=12)
    arrow = {"arrowstyle": "->", "linewidth": 2}
    axis.annotate("", (1.5, -0.8), (1.5, -0.05), arrowprops=arrow | {"color": COLOURS[0]})
    axis.text(1.5, -1.5, "softmax down: where does this text look?  $T_a$", ha="center", color=COLOURS[0])
    axis.annotate("", (classes + 0.9, 2.5), (classes + 0.05, 2.5), arrowprops=arrow | {"color": COLOURS[1]})
    text = "softmax across: which texts\nfit this position?  $X_a$,\nmean + maximum: $f_a$"
    axis.text(classes + 1.0, 2.5, text, va="center", color=COLOURS[1])
    logits = "logits\n$f T^{\\top} + \\beta_2\\, f T_a^{\\top} + \\beta_3\\, f_a T^{\\top}$"
    axis.text(classes + 1.0, positions + 0.1, logits, va="center", fontsize=11)
    return figure


def spread_figure(spreads: Mapping[str, Sequence[float]], names: Sequence[str]) -> Figure:
    """spreads: {"…": [one number per term]}, standard deviations in logits, grouped by term."""
    figure, axis = plt.subplots(figsize=(7.6, 3.2))
    bars(spreads, list(names), "standard deviation in logits", axis=axis)
    return figure


def sweep_figure(temperatures: Sequence[float], evenness: Sequence[float], accuracy: Mapping[str, Sequence[float]],
                 zero_shot: float) -> Figure:  # fmt: skip
    """Left the largest share (1 is even), right accuracy by name, both over the temperature, sharp to the left."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.4, 3.3))
    left.plot(temperatures, evenness, marker="o")
    left.axhline(1, color="#555555", linestyle="--", linewidth=1)
    left.set(xlabel="temperature τ", ylabel="largest share of a position", title="1 is an even look at all positions")
    left.set_yscale("log")
    for i, (name, values) in enumerate(accuracy.items()):
        right.plot(temperatures, values, marker=MARKERS[i], color=COLOURS[i], label=name)
    right.axhline(zero_shot, color="#555555", linestyle="--", linewidth=1, label="zero-shot")
    right.set(xlabel="temperature τ", ylabel="top-1 in %")
    right.legend(fontsize=8)
    for axis in (left, right):
        axis.set_xscale("log")
    return figure


def one_image(method, features: Tensor, temperature: float, betas: tuple[float, float]):
    """Shares (P, C), logits without and with (C,), of what the encoder made of one image (1, 1 + P, E)."""
    f, X, T = features[:, 0], features[:, 1:], method.text.to(features)
    over_positions, over_classes = attention(X, T, temperature)
    guided = (over_positions * (X @ f[:, :, None])).sum(dim=1)
    before = f @ T.T
    after = before + betas[0] * guided + betas[1] * blended(over_classes, T) @ T.T
    scale = float(method.scale)
    return over_positions[0], scale * before[0], scale * after[0]


def explorer(
    method, split, temperatures: Sequence[float] = (0.01, 0.03, 0.1, 0.5, 2.0),
    betas2: Sequence[float] = (0, 0.5, 1.12, 3, 10), betas3: Sequence[float] = (0, 0.02, 0.1, 0.3, 1),
) -> widgets.VBox:  # fmt: skip
    """Image, class, temperature and both betas; the method is left as it is. Attributes: controls, picture, message."""
    names, wide = list(method.class_names), {"style": {"description_width": "90px"}}
    features = method.inputs(split)
    c = {
        "image": widgets.IntSlider(0, 0, len(split) - 1, description="image", continuous_update=False, **wide),
        "class": widgets.Dropdown(options=["its own", *names], description="class", **wide),
        "temperature": widgets.SelectionSlider(
            options=list(temperatures), value=temperatures[0], description="temperature", **wide
        ),
        "beta2": widgets.SelectionSlider(options=list(betas2), value=betas2[1], description="β₂", **wide),
        "beta3": widgets.SelectionSlider(options=list(betas3), value=betas3[1], description="β₃", **wide),
    }

    def look(i: int, chosen: str, temperature: float, beta2: float, beta3: float) -> tuple[Figure, str]:
        right = names[int(split.labels[i])]
        looking = right if chosen == "its own" else chosen
        with torch.no_grad():
            shares, before, after = one_image(method, features[i : i + 1], temperature, (beta2, beta3))
        shown = shares[:, names.index(looking)]
        figure = answer_figure(split.images[i], shown, before, after, names, right, looking)
        answers = names[int(before.argmax())], names[int(after.argmax())]
        share = float(even_shares(shown).max())
        return (
            figure,
            f"zero-shot: {answers[0]}; with attention: {answers[1]}; largest share: {share:.2f} of an even one",
        )

    return panel(c, look)
