"""The protocols of multi-label recognition, in the form of protocols.py: fit, task, shots, seed of the draw.

partial_labels        DualCoOp, NeurIPS 2022: shots x C training scenes, a share of their labels -> test, all labels;
                      mAP for each share and their mean (the papers: 10 % to 90 % of the whole training set)
zero_shot_multi_label DualCoOp: training scenes with the labels of the seen classes alone -> the seen classes; the
                      unseen ones by themselves (ZSL); all together (GZSL). mAP, CF1 and OF1. "Unseen" is what
                      training labels leave out; the backbone may know it.
Test images of "seen" and "unseen" are those that show such a class.
"""

from collections.abc import Callable, Sequence

from vlmcourse.evaluation.multi_label import TOP, f1_scores, mean_average_precision
from vlmcourse.tasks.multi_label import MultiLabelTask

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
Metrics = dict[str, float]


def evaluate_multi_label(method, split, top: int = TOP, threshold: float = 0.5) -> Metrics:
    """{"map", "cf1@k", "of1@k"}, and {"cf1", "of1"} at the threshold where the method gives probabilities."""
    if tuple(method.class_names) != tuple(split.class_names):
        raise ValueError(f"split {split.name!r} has other classes than the method; use method.for_classes first")
    scores, labels = method.scores(split), split.labels
    best = f1_scores(scores, labels, top=min(top, split.num_classes))
    metrics = {"map": mean_average_precision(scores, labels), f"cf1@{top}": best.cf1, f"of1@{top}": best.of1}
    if method.gives_probabilities:
        at_threshold = f1_scores(method.probabilities(split), labels, threshold=threshold)
        metrics |= {"cf1": at_threshold.cf1, "of1": at_threshold.of1}
    return metrics


def partial_labels(
    fit: Callable, task: MultiLabelTask, shots: int, draw_seed: int, shares: Sequence[float] = SHARES
) -> Metrics:
    """{"map_10", ... for each share in percent, "map" their mean}; one fit for each share, masks nested."""
    _check(task)
    if isinstance(shares, int | float) or not shares:
        raise ValueError(f"shares must be a list of numbers above 0, at most 1, got {shares!r}")
    train, val = task.few_shot(shots, draw_seed)
    found = {}
    for share in shares:
        method = fit(train.hide_labels(share, draw_seed), val)
        found[f"map_{100 * share:g}"] = mean_average_precision(method.scores(task.test), task.test.labels)
    return found | {"map": sum(found.values()) / len(found)}


def zero_shot_multi_label(fit: Callable, task: MultiLabelTask, shots: int, draw_seed: int) -> Metrics:
    """{"seen_map", "unseen_map", "gzsl_map" ...}, each of `evaluate_multi_label`'s numbers for the three class sets."""
    _check(task)
    seen, unseen = task.seen_unseen()
    method = fit(*seen.few_shot(shots, draw_seed))
    metrics = {}
    for name, split in (("seen", seen.test), ("unseen", unseen.test), ("gzsl", task.test)):
        on = method if name == "seen" else method.for_classes(split.class_names, split.templates)
        metrics |= {f"{name}_{metric}": value for metric, value in evaluate_multi_label(on, split).items()}
    return metrics


def _check(task) -> None:
    if not isinstance(task, MultiLabelTask):
        raise ValueError(
            f"task {task.name!r} is {task.kind!r}; this protocol is for multi-label tasks, such as 'scenes'"
        )
