"""The evaluation protocols as functions: what is trained on which draw, and tested on what.

Each takes `fit(train, val) -> Method` (it builds a fresh method and fits it), the task, the shots and the seed of the
draw, and returns metrics as {name: fraction}. All but the hierarchical one report top-1 over all test images and ECE
with 15 bins; nothing is selected on test data.

few_shot              CoOp, IJCV 2022: K shots of all classes -> test of all classes
base_to_new           CoCoOp, CVPR 2022: K shots of the base classes -> base and new, each with only its own names; H
domain_generalisation CoOp: K shots of the task -> its test images and every shifted domain
cross_task            CoCoOp: K shots of a source task -> other tasks, by their class names alone
hierarchical          ProTeCt, CVPR 2024: K shots of the leaves of a taxonomy -> label sets of every granularity
Those for several labels per image stand in multi_label_protocols.py, the one for masks in segmentation.py.
"""

from collections.abc import Callable, Sequence

from vlmcourse.evaluation.hierarchy import (
    hierarchical_consistent_accuracy,
    leaf_accuracy,
    mean_treecut_accuracy,
    treecut_accuracy,
)
from vlmcourse.evaluation.metrics import ece, harmonic_mean, top1
from vlmcourse.evaluation.multi_label_protocols import partial_labels, zero_shot_multi_label
from vlmcourse.evaluation.segmentation import segmentation
from vlmcourse.tasks import Split, Task, get_task
from vlmcourse.tasks.taxonomy import taxonomy_of

BINS = 15  # of the ECE
Metrics = dict[str, float]


def evaluate(method, split: Split) -> tuple[float, float]:
    """(top-1, ECE) of a fitted method on a split with the method's own classes; else ValueError."""
    if tuple(method.class_names) != tuple(split.class_names):
        raise ValueError(f"split {split.name!r} has other classes than the method; use method.for_classes first")
    probabilities = method.probabilities(split).cpu()  # (N, C)
    return top1(probabilities, split.labels), ece(probabilities, split.labels, BINS)


def few_shot(fit: Callable, task: Task, shots: int, draw_seed: int) -> Metrics:
    """{"top1", "ece"}: K shots of all classes, tested on all classes."""
    accuracy, error = evaluate(fit(*task.few_shot(shots, draw_seed)), task.test)
    return {"top1": accuracy, "ece": error}


def base_to_new(fit: Callable, task: Task, shots: int, draw_seed: int, split_seed: int | None = None) -> Metrics:
    """{"base", "new", "h", "base_ece", "new_ece"}.

    split_seed: None for the protocol's halves (by label), or the seed of a random half.
    """
    base, new = task.base_to_new(split_seed)
    method = fit(*base.few_shot(shots, draw_seed))
    on_base, base_error = evaluate(method, base.test)
    on_new, new_error = evaluate(method.for_classes(new.class_names, new.templates), new.test)
    h = harmonic_mean(on_base, on_new)
    return {"base": on_base, "new": on_new, "h": h, "base_ece": base_error, "new_ece": new_error}


def domain_generalisation(
    fit: Callable, task: Task, shots: int, draw_seed: int, domains: Sequence[str] | None = None
) -> Metrics:
    """{"source", each domain, "average" over the domains, "<each>_ece"}. A domain may have only some of the classes.

    domains: names of some of the task's domains; None: all.
    """
    if not task.domains:
        raise ValueError(f"task {task.name!r} has no shifted domains; choose a task whose `domains` are not empty")
    chosen = list(task.domains) if domains is None else list(domains)
    if not chosen or set(chosen) - set(task.domains):
        raise ValueError(f"domains must be some of {', '.join(task.domains)}, got {domains!r}")
    method = fit(*task.few_shot(shots, draw_seed))
    splits = {"source": task.test, **{name: task.domains[name] for name in chosen}}
    return _over_splits({name: (_moved(method, split), split) for name, split in splits.items()})


def cross_task(fit: Callable, task: Task, shots: int, draw_seed: int, targets: Sequence[str]) -> Metrics:
    """{"source", each target task, "average" over the targets, "<each>_ece"}. targets: names of other tasks."""
    if isinstance(targets, str) or not targets or task.name in targets:
        raise ValueError(f"targets must be a list of names of tasks other than {task.name!r}, got {targets!r}")
    splits = {"source": task.test, **{name: get_task(name).test for name in targets}}
    method = fit(*task.few_shot(shots, draw_seed))
    return _over_splits({name: (_moved(method, split), split) for name, split in splits.items()})


def hierarchical(fit: Callable, task: Task, shots: int, draw_seed: int) -> Metrics:
    """{"leaf", "hca", "mta", "top"}: leaf accuracy, HCA and MTA (see hierarchy.py), accuracy of the coarsest label set.

    The tree is the part of the concept tree above the task's classes. Every node is scored by its name, so the method
    must build its classifier from names.
    """
    tree = taxonomy_of(task.class_names)
    method = fit(*task.few_shot(shots, draw_seed))
    given = method.for_classes(tree.names, task.templates).logits(task.test), task.test.labels, tree
    return {
        "leaf": leaf_accuracy(*given),
        "hca": hierarchical_consistent_accuracy(*given),
        "mta": mean_treecut_accuracy(*given),
        "top": treecut_accuracy(*given, tree.top_cut),
    }


def _moved(method, split: Split):
    same = tuple(method.class_names) == tuple(split.class_names)
    return method if same else method.for_classes(split.class_names, split.templates)


def _over_splits(pairs: dict) -> Metrics:
    results = {name: evaluate(method, split) for name, (method, split) in pairs.items()}
    others = [accuracy for name, (accuracy, _) in results.items() if name != "source"]
    metrics = {name: accuracy for name, (accuracy, _) in results.items()}
    return (
        metrics
        | {"average": sum(others) / len(others)}
        | {f"{name}_ece": error for name, (_, error) in results.items()}
    )


PROTOCOLS: dict[str, Callable[..., Metrics]] = {
    function.__name__: function
    for function in (
        few_shot,
        base_to_new,
        domain_generalisation,
        cross_task,
        hierarchical,
        partial_labels,
        zero_shot_multi_label,
        segmentation,
    )  # fmt: skip
}
