"""Figures of notebooks/3_text_prompts/12_tai_dpt.ipynb: the parts of the loss, the weights of a caption's words."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from vlmcourse.show.figures import curves, heatmap


def history_figure(histories: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Global and local ranking loss over the epochs, one panel each, a line per fit."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 3))
    for axis, part in zip(axes, ("global", "local"), strict=True):
        curves({name: history[part] for name, history in histories.items()}, ylabel="ranking loss", axis=axis)
        axis.set_title(f"{part} branch", fontsize=10)
        axis.set_ylim(0, None)
    return figure


def words_figure(pieces: Sequence[str], weights: Mapping[str, Tensor]) -> Figure:
    """A caption's tokens against classes: {class: (l,) weights that sum to 1}."""
    table = torch.stack([torch.as_tensor(w) for w in weights.values()])
    if table.shape[1] != len(pieces):
        raise ValueError(f"pieces has {len(pieces)} tokens, the weights have {table.shape[1]}")
    figure = heatmap(table, list(weights), list(pieces), "weight")
    figure.axes[0].set(xlabel="token", ylabel="class")
    return figure
