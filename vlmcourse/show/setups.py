"""Figures and the explorer of the notebook on setups, protocols and baselines.

    whole_split_features(backbone, split)   features of a draw, as rows of those of the split that it was drawn from
    setups_figure(task, ...)                what a learner is given in each setup, on the same pictures
    few_shot_figure(...)                    a few-shot draw beside the accuracies of two baselines
    reliability_figure(...)                 accuracy against confidence, bin by bin, for several classifiers
    purity(probabilities, labels)           how good pseudo-labels are if only the most confident ones are kept
    explorer(backbone, tasks, fit_probe)    task, shots and seed to choose -> few_shot_figure
Shapes: N images, C classes, E joint width.
"""

from collections.abc import Callable, Mapping, Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from vlmcourse.backbone.features import image_features
from vlmcourse.evaluation.metrics import calibration_error, reliability, top1
from vlmcourse.methods.class_text import class_features
from vlmcourse.show.panel import panel
from vlmcourse.show.playground import bare_image
from vlmcourse.show.style import COLOURS, HATCHES, MARKERS
from vlmcourse.tasks import Split, Task, get_task

FitProbe = Callable[[Tensor, Tensor, Tensor, Tensor, int], Callable[[Tensor], Tensor]]


def whole_split_features(backbone, split: Split) -> Tensor:
    """(N, E), L2-normalised, on the CPU. A subset takes its rows from the features of the split it was made from, which
    are computed once: a hundred draws cost no more encoding than one."""
    root, rows = split.origin
    return image_features(backbone, root).float().cpu()[rows]


def setups_figure(task: Task, classes: Sequence[int] = (0, 1, 2), per_class: int = 4, shots: int = 1) -> Figure:
    """The same pictures of a few classes in four setups: with all labels, `shots` labels, no labels, and one alone."""
    labels = task.train.labels
    rows = torch.cat([(labels == c).nonzero().squeeze(1)[:per_class] for c in classes])
    images, names = task.train.images[rows], [task.class_names[c] for c in labels[rows]]
    n = len(rows)
    place = np.arange(n) % per_class  # of a picture within its class
    setups = {
        "supervised": [(True, name) for name in names],
        f"few-shot, K = {shots}": [(place[i] < shots, names[i]) for i in range(n)],
        "unsupervised": [(True, "?")] * n,
        "test time": [(i == 0, "?") for i in range(n)],
    }
    order = np.random.default_rng(0).permutation(n)  # without labels nothing says which pictures belong together
    figure, axes = plt.subplots(len(setups), n, figsize=(0.82 * n + 1.4, 1.08 * len(setups)), squeeze=False)
    for line, (setup, given) in zip(axes, setups.items(), strict=True):
        for i, axis in enumerate(line):
            known, title = given[i]
            image = images[order[i]] if title == "?" else images[i]
            bare_image(axis, image if known else torch.full_like(image, 236), _short(title) if known else "")
            axis.title.set_fontsize(7)
        line[0].set_ylabel(setup, rotation=0, ha="right", va="center", labelpad=8)
    return figure


def few_shot_figure(train: Split, scores: Mapping[str, float], columns: int = 16, title: str = "") -> Figure:
    """The images of a few-shot draw, class by class, and one bar per accuracy in `scores` (fractions of 1)."""
    names, n = train.class_names, len(train)
    rows = -(-n // columns)
    figure = plt.figure(figsize=(9.6, max(2.2, 0.62 * rows * (1.3 if n == len(names) else 1.0) + 0.5)))
    left, right = figure.subfigures(1, 2, width_ratios=(3.2, 1))
    left.suptitle(title, fontsize=10)
    for i, axis in enumerate(left.subplots(rows, columns, squeeze=False).flat):
        if i >= n:
            axis.set_visible(False)
            continue
        label = int(train.labels[i])
        first = i == 0 or int(train.labels[i - 1]) != label
        bare_image(axis, train.images[i], _short(names[label]) if first else "")
        axis.title.set_fontsize(6)
    axis = right.subplots()
    for i, (name, score) in enumerate(scores.items()):
        axis.bar(name, 100 * score, color=COLOURS[i], hatch=HATCHES[i], edgecolor="white", width=0.6)
        axis.text(i, 100 * score + 1, f"{100 * score:.1f}", ha="center", fontsize=9)
    axis.axhline(100 / len(names), color="#555555", linestyle="--", linewidth=1)
    axis.set(ylim=(0, 108), ylabel="top-1 on test in %")
    axis.set_title("dashed: chance", fontsize=8)
    return figure


def _short(name: str, limit: int = 11) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "…"


def reliability_figure(predictions: Mapping[str, tuple[Tensor, Tensor]], bins: int = 15) -> Figure:
    """predictions: {name: (probabilities (N, C), labels (N,))}. Bars: accuracy per confidence bin; line: confidence."""
    figure, axes = plt.subplots(1, len(predictions), figsize=(3.3 * len(predictions), 3.3), sharey=True, squeeze=False)
    for i, (axis, (name, (probabilities, labels))) in enumerate(zip(axes[0], predictions.items(), strict=True)):
        confidence, predicted = probabilities.max(1)
        correct = predicted == labels
        edges, count, accuracy, _ = (part.numpy() for part in reliability(confidence, correct, bins))
        middle, share = (edges[:-1] + edges[1:]) / 2, count / count.sum()
        axis.bar(middle, accuracy, 1 / bins, color=COLOURS[i], edgecolor="white", hatch=HATCHES[i], label="accuracy")
        axis.plot(middle, share, color="#333333", marker=MARKERS[i], markersize=3, linewidth=1, label="share of images")
        axis.plot([0, 1], [0, 1], "--", color="#555555", linewidth=1, label="calibrated")
        axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence (highest probability)")
        axis.set_title(f"{name}\nECE {100 * calibration_error(confidence, correct, bins):.1f} %", fontsize=10)
    axes[0, 0].set_ylabel("fraction of 1")
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, fontsize=8, ncols=len(handles[1]), loc="outside lower center")
    return figure


def purity(probabilities: Tensor, labels: Tensor, shares: Sequence[float]) -> list[float]:
    """Share of right pseudo-labels among the most confident images, for every share of images kept (0 < share <= 1)."""
    confidence, predicted = probabilities.max(1)
    right = (predicted == labels)[confidence.argsort(descending=True, stable=True)].double()
    kept = [max(1, round(share * len(right))) for share in shares]
    return [right[:k].mean().item() for k in kept]


def zero_shot_accuracy(backbone, task: Task, templates=None) -> float:
    """Top-1 on test from the class names alone."""
    text = class_features(backbone, task.class_names, templates or task.templates).float().cpu()  # (C, E)
    return top1(whole_split_features(backbone, task.test) @ text.T, task.test.labels)


def probe_accuracy(backbone, task: Task, shots: int, seed: int, fit_probe: FitProbe) -> float:
    """Top-1 on test after one draw. fit_probe(x, y, x_val, y_val, num_classes) -> (features -> logits)."""
    train, val = task.few_shot(shots, seed)
    train_x, val_x, test_x = (whole_split_features(backbone, s) for s in (train, val, task.test))
    logits = fit_probe(train_x, train.labels, val_x, val.labels, task.num_classes)
    return top1(logits(test_x), task.test.labels)


def explorer(backbone, tasks: Sequence[str], fit_probe: FitProbe, shots: Sequence[int] = (1, 2, 4, 8, 16)):
    """Choose task, shots and the seed of the draw; see the drawn images and both baselines. A `panel`, whose attribute
    `scores` holds those of the last look."""
    options = {"layout": {"width": "420px"}, "style": {"description_width": "110px"}}
    c = {
        "task": widgets.Dropdown(options=list(tasks), description="task", **options),
        "shots": widgets.SelectionSlider(options=list(shots), description="shots per class", **options),
        "seed": widgets.IntSlider(1, 1, 20, description="seed of the draw", continuous_update=False, **options),
    }
    scores: dict[str, float] = {}

    def look(name: str, k: int, seed: int) -> tuple[Figure | None, str]:
        task = get_task(name)
        try:
            train = task.few_shot(k, seed).train
            probe = probe_accuracy(backbone, task, k, seed, fit_probe)
        except ValueError as error:  # more shots than the task has
            return None, str(error)
        scores.update({"zero-shot": zero_shot_accuracy(backbone, task), "linear probe": probe})
        better = max(scores, key=scores.get)
        sentence = f"{len(train)} labelled images, {len(task.test)} test images; ahead: {better}"
        return few_shot_figure(train, scores, title=f"{task.title}: {k} per class, seed {seed}"), sentence

    box = panel(c, look)
    box.scores = scores
    return box
