"""Figures and the explorer of "MaPLe": prompts in both towers, coupled layer by layer.

    coupling_figure(layers, depth)        the method as a picture
    outcome_figure(outcome, ...)          one fit: its loss, accuracy on base and new classes beside a reference
    attention_figure(shares)              how much of its attention the class token gives to the prompts, by layer
    explorer(fit, ...)                    which towers are prompted, and how deep
Shapes: J depth. Accuracies are in %.
"""

from collections.abc import Callable, Mapping, Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from vlmcourse.show.figures import bars, curves
from vlmcourse.show.panel import once, panel
from vlmcourse.show.style import COLOURS

TEXT, IMAGE, FROZEN, LEARNED = COLOURS[0], COLOURS[1], "#E6E6E6", COLOURS[4]
Outcome = Mapping[str, object]  # {"loss": per epoch, "base", "new": in %}


def coupling_figure(layers: int = 4, depth: int = 3) -> Figure:
    """Two towers of `layers` blocks; text prompts enter the first `depth`, coupled to visual prompts."""
    figure, axis = plt.subplots(figsize=(9.4, 3.7))
    axis.set(xlim=(0, 2.6 * layers + 1.4), ylim=(-0.2, 5.4))
    axis.axis("off")

    def box(x, y, width, height, text, colour, alpha=1.0):
        style = {"facecolor": colour, "edgecolor": "black", "alpha": alpha}
        axis.add_patch(FancyBboxPatch((x, y), width, height, "round,pad=0.02,rounding_size=0.08", **style))
        axis.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=9)

    def arrow(x0, y0, x1, y1, colour="black"):
        axis.annotate("", (x1, y1), (x0, y0), arrowprops={"arrowstyle": "->", "color": colour})

    for i in range(layers):
        x = 2.6 * i + 1.3
        box(x, 4.5, 1.5, 0.7, f"text block {i}", FROZEN)
        box(x, 0.0, 1.5, 0.7, f"image block {i}", FROZEN)
        if i + 1 < layers:
            for y in (4.85, 0.35):
                arrow(x + 1.55, y, x + 2.55, y)
        if i < depth:
            box(x - 1.0, 3.3, 0.9, 0.6, f"$P_{i}$", TEXT, 0.35)
            box(x - 1.0, 2.15, 0.9, 0.6, f"$F_{i}$", LEARNED, 0.6)
            box(x - 1.0, 1.05, 0.9, 0.6, f"$V_{i}$", IMAGE, 0.35)
            arrow(x - 0.55, 3.25, x - 0.55, 2.8)
            arrow(x - 0.55, 2.1, x - 0.55, 1.7)
            arrow(x - 0.2, 3.95, x + 0.3, 4.45, TEXT)
            arrow(x - 0.2, 1.0, x + 0.3, 0.75, IMAGE)
    end = 2.6 * layers + 0.3
    box(end, 2.2, 0.9, 0.6, "$f\\, W^\\top$", FROZEN)
    arrow(end - 0.05, 4.5, end + 0.45, 2.9)
    arrow(end - 0.05, 0.6, end + 0.45, 2.1)
    return figure


def outcome_figure(outcome: Outcome, reference: tuple[float, float], name: str, title: str) -> Figure:
    """Loss over the epochs, and base and new accuracy beside the reference (base, new), called `name`."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.0))
    curves({"loss": outcome["loss"]}, ylabel="cross-entropy in nats", axis=left)
    left.set(title=title, ylim=(0, None))
    bars(
        {name: reference, "this setting": (outcome["base"], outcome["new"])},
        ["base", "new"],
        "top-1 in %",
        axis=right,
    )
    right.set_ylim(0, 115)
    for container in right.containers:
        right.bar_label(container, fmt="%.0f", fontsize=8)
    return figure


def attention_figure(shares: Mapping[str, Sequence[float]], even: float) -> Figure:
    """shares: {name: % of the class token's attention on the prompts, per block}; even: of equal attention."""
    figure, axis = plt.subplots(figsize=(6.6, 3.1))
    blocks = range(len(next(iter(shares.values()))))
    bars(shares, [f"block {i}" for i in blocks], "attention of the class token\nto the prompts in %", axis=axis)
    axis.axhline(even, color="#555555", linestyle="--", linewidth=1, label="equal attention to all tokens")
    axis.legend(fontsize=8)
    return figure


def explorer(
    fit: Callable[[str, int], Outcome], reference: tuple[float, float], name: str, promptings: Sequence[str],
    depths: Sequence[int], known: Mapping[tuple[str, int], Outcome] | None = None,
) -> widgets.VBox:  # fmt: skip
    """Which prompts, and how many layers; each setting is fitted once, when it is first asked for.

    fit: (prompting, depth) -> outcome. reference: (base, new) in % of the method called `name`. Attributes: controls,
    picture, message, known. ValueError for no promptings or no depths.
    """
    if not promptings or not depths:
        raise ValueError(f"promptings={list(promptings)} and depths={list(depths)} must not be empty")
    known = dict(known or {})
    c = {
        "prompting": widgets.Dropdown(options=list(promptings), description="prompts"),
        "depth": widgets.SelectionSlider(
            options=list(depths), value=depths[-1], description="depth J", continuous_update=False
        ),
    }
    fitted = once(fit, known)

    def look(prompting: str, depth: int) -> tuple[Figure, str]:
        outcome = fitted(prompting, depth)
        figure = outcome_figure(outcome, reference, name, f"{prompting}, J = {depth}")
        return figure, f"base {outcome['base']:.1f} %, new {outcome['new']:.1f} %"

    box = panel(c, look)
    box.known = known
    return box
