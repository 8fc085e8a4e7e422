"""Accuracy of few-shot methods: over the number of labelled images, or side by side with a mark for every seed."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from vlmcourse.show.style import COLOURS, MARKERS


def few_shot_panels(results: dict, tasks, shots, titles=None) -> Figure:
    """Accuracy over shots, a panel per task. results: {(method, task, shots): [accuracy per seed]}; one with shots 0 is
    a horizontal line. Bands are ± one standard deviation over the seeds."""
    methods = list(dict.fromkeys(key[0] for key in results))
    figure, axes = plt.subplots(1, len(tasks), figsize=(3.3 * len(tasks), 3.4), squeeze=False)
    for axis, task in zip(axes[0], tasks, strict=True):
        for i, name in enumerate(methods):
            colour = COLOURS[i % len(COLOURS)]
            if (name, task, 0) in results:
                axis.axhline(100 * np.mean(results[name, task, 0]), color="#555555", linestyle="--", label=name)
            at = [k for k in shots if (name, task, k) in results]
            if at:
                values = [100 * np.asarray(results[name, task, k]) for k in at]
                mean, std = np.array([v.mean() for v in values]), np.array([v.std() for v in values])
                axis.plot(at, mean, marker=MARKERS[i % len(MARKERS)], markersize=5, color=colour, label=name)
                axis.fill_between(at, mean - std, mean + std, alpha=0.18, color=colour)
        axis.set_xscale("log", base=2)
        axis.set_xticks(shots, [str(k) for k in shots])
        axis.set(xlabel="shots per class", title=(titles or {}).get(task, task))
    axes[0, 0].set_ylabel("test accuracy (%)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(methods))
    return figure


def seeds_figure(results: dict, zero_shot: float) -> Figure:
    """results: {name: top-1 in % per seed}: a bar for the mean, a mark for each seed; the dashed line is zero-shot."""
    figure, axis = plt.subplots(figsize=(7.6, 0.9 + 0.5 * len(results)))
    for i, values in enumerate(results.values()):
        colour = COLOURS[i % len(COLOURS)]
        axis.barh(i, np.mean(values), 0.6, color=colour, alpha=0.45)
        spots = i + np.linspace(-0.15, 0.15, len(values)) if len(values) > 1 else [i]
        axis.plot(values, spots, MARKERS[i % len(MARKERS)], color=colour, linestyle="")
    axis.axvline(zero_shot, color="#555555", linestyle="--", linewidth=1, label="zero-shot")
    axis.set_yticks(range(len(results)), list(results))
    axis.set(xlabel="top-1 in %", xlim=(0, 100))
    axis.invert_yaxis()
    figure.legend(loc="outside lower right", fontsize=8)
    return figure
