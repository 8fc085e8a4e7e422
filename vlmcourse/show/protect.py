"""Figures and the explorer of "ProTeCt": a taxonomy with the decisions of one image, and accuracy over label sets.

    tree_figure(tree, ...)            the tree, with the way to the true class and the wrong turns of one image
    cut_figure(tree, cut)             the tree with the nodes of one treecut marked
    granularity_figure(results, ...)  accuracy over the number of labels of a treecut, by method
    explorer(tree, images, ...)       choose image and method, see the tree
Shapes: V nodes without the root, L classes, N images.
"""

from collections.abc import Mapping, Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from vlmcourse.show.panel import panel
from vlmcourse.show.style import COLOURS, MARKERS
from vlmcourse.tasks.taxonomy import ROOT, Taxonomy

RIGHT, WRONG, QUIET = COLOURS[2], COLOURS[1], "#CCCCCC"


def places(tree: Taxonomy) -> dict[int, tuple[float, float]]:
    """{node: (x, y)}: x the depth below the root, y the mean of what is below; classes from top to bottom."""
    where: dict[int, tuple[float, float]] = {}
    row = 0

    def walk(node: int, depth: int) -> float:
        nonlocal row
        below = tree.children(node)
        if below:
            y = float(np.mean([walk(child, depth + 1) for child in below]))
        else:
            y, row = float(-row), row + 1
        where[node] = (depth, y)
        return y

    walk(ROOT, 0)
    return where


def _edges(axis, tree: Taxonomy, where: Mapping, colours: Mapping, texts: Mapping) -> None:
    """The tree in grey, some edges {(parent, child): (colour, line style)} and some names {node: colour} in colour."""
    for node, parent in enumerate(tree.parents):
        (x0, y0), (x1, y1) = where[parent], where[node]
        colour, style = colours.get((parent, node), (QUIET, "-"))
        strong = (parent, node) in colours
        axis.plot([x0, x0 + 0.45, x1], [y0, y1, y1], style, color=colour, linewidth=2.4 if strong else 0.8,
                  zorder=2 if strong else 1)  # fmt: skip
    for node, name in enumerate(tree.names):
        x, y = where[node]
        leaf = not tree.children(node)
        axis.text(
            x + (0.03 if leaf else 0), y, name, ha="left" if leaf else "center", va="center", fontsize=7, zorder=3,
            color=texts.get(node, "black" if leaf else "#555555"), fontweight="bold" if node in texts else "normal",
            bbox=None if leaf else {"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )  # fmt: skip
    axis.text(*where[ROOT], "anything", ha="center", va="center", fontsize=7, bbox={"facecolor": "white", "pad": 1.5})
    axis.set(xlim=(-0.2, tree.depth + 0.75), ylim=(-len(tree.leaves), 1))
    axis.axis("off")


def tree_figure(tree: Taxonomy, label: int, scores: Tensor, image: Tensor | None = None, title: str = "") -> Figure:
    """One image of class `label` with a score per node (V,): green where the child that leads to the class wins among
    its siblings, red dashed to the winner where it does not; the best class of all is marked in the same way."""
    where, colours, texts = places(tree), {}, {}
    leaf = tree.leaves[label]
    path = [leaf, *tree.ancestors(leaf)]
    for child, node in zip(path, path[1:], strict=False):
        siblings = tree.children(node)
        winner = siblings[int(scores[siblings].argmax())]
        colours[node, child] = (RIGHT, "-") if winner == child else (RIGHT, ":")
        if winner != child:
            colours[node, winner] = (WRONG, "--")
            texts[winner] = WRONG
    best = tree.leaves[int(scores[list(tree.leaves)].argmax())]
    texts[best] = RIGHT if best == leaf else WRONG
    texts.setdefault(leaf, RIGHT)
    figure, axis = plt.subplots(figsize=(8.6, 1.0 + 0.155 * len(tree.leaves)))
    _edges(axis, tree, where, colours, texts)
    said = f"true: {tree.names[leaf]}; best of all classes: {tree.names[best]}"
    axis.set_title(f"{title}\n{said}" if title else said, fontsize=10)
    if image is not None:
        inset = axis.inset_axes((0.0, 0.86, 0.16, 0.13))
        inset.imshow(image.permute(1, 2, 0).numpy())
        inset.axis("off")
    return figure


def cut_figure(tree: Taxonomy, cut: Tensor, title: str = "") -> Figure:
    """The tree; the nodes of a treecut (n,) in bold colour."""
    figure, axis = plt.subplots(figsize=(8.6, 1.0 + 0.155 * len(tree.leaves)))
    _edges(axis, tree, places(tree), {}, dict.fromkeys(cut.tolist(), COLOURS[0]))
    axis.set_title(title or f"{len(cut)} labels", fontsize=10)
    return figure


def granularity_figure(results: Mapping[str, Sequence[float]], sizes: Sequence[int], leaves: int) -> Figure:
    """results: {method: accuracy in % per treecut}, sizes: labels of each treecut; a line for the number of classes."""
    figure, axis = plt.subplots(figsize=(7.6, 3.8))
    for i, (name, values) in enumerate(results.items()):
        axis.plot(sizes, values, MARKERS[i % len(MARKERS)], color=COLOURS[i % len(COLOURS)], markersize=5, label=name)
    axis.axvline(leaves, color="#555555", linestyle="--", linewidth=1)
    axis.text(leaves, 2, "classes ", ha="right", fontsize=8)
    axis.set(xlabel="labels in the treecut", ylabel="top-1 in %", ylim=(0, 100))
    axis.legend(fontsize=8, loc="upper left")
    return figure


def explorer(tree: Taxonomy, images: Tensor, labels: Tensor, scores: Mapping[str, Tensor]) -> widgets.VBox:
    """images (N, 3, S, S) uint8, labels (N,), scores {method: (N, V)}: the tree for one image and one method.

    Attributes: controls, picture, message. ValueError for no scores or other lengths.
    """
    if not scores or any(len(s) != len(images) for s in scores.values()) or len(labels) != len(images):
        raise ValueError(f"scores of {list(scores)} must have a row for each of the {len(images)} images and labels")
    controls = {
        "image": widgets.IntSlider(value=0, min=0, max=len(images) - 1, description="image", continuous_update=False),
        "method": widgets.Dropdown(options=list(scores), description="method"),
    }

    def look(number: int, method: str) -> tuple[Figure, str]:
        label, row = int(labels[number]), scores[method][number].cpu()
        leaf = tree.leaves[label]
        path = [leaf, *tree.ancestors(leaf)]
        wrong = [
            tree.name(node) for child, node in zip(path, path[1:], strict=False)
            if tree.children(node)[int(row[tree.children(node)].argmax())] != child
        ]  # fmt: skip
        figure = tree_figure(tree, label, row, images[number], method)
        return figure, f"wrong turns at: {', '.join(wrong[::-1])}" if wrong else "no wrong turn"

    return panel(controls, look)
