"""Checks of notebooks/5_text_visual_prompts/20_mvlpt.ipynb: the union loss, averaged sources, choosing a partner."""

import torch
import torch.nn.functional as F

from vlmcourse.checks.report import attempt, close, report


def union_loss(logits, task, label, sizes):
    """What `check_union_loss` expects: cross-entropy over the classes of all tasks."""
    starts = torch.tensor([0, *sizes]).cumsum(0)[:-1]
    return F.cross_entropy(logits, starts[task] + label)


def check_union_loss(function) -> bool:
    """function: (logits (B, sum C_t), task (B,), label (B,) within the task, sizes [C_t]) -> the scalar loss."""
    draw = torch.Generator().manual_seed(0)
    sizes, task, label = [3, 2, 4], torch.tensor([0, 2, 1, 0, 2]), torch.tensor([2, 3, 1, 0, 0])
    logits = 2 * torch.randn(5, 9, generator=draw)
    value, problem = attempt(function, logits.clone(), task, label, list(sizes))
    if problem:
        return report(False, "", problem)
    if close(value, union_loss(logits, task, label, sizes)):
        return report(True, "all classes of all tasks compete for every image", "")
    starts = torch.tensor([0, 3, 5])
    own = [
        F.cross_entropy(row[starts[t] : starts[t] + sizes[t]], y) for row, t, y in zip(logits, task, label, strict=True)
    ]
    hint = "expected the cross-entropy over all columns; class y of task t has column C_0 + ... + C_{t-1} + y"
    if isinstance(value, torch.Tensor) and value.ndim:
        hint = f"the loss is one number, got a tensor of shape {tuple(value.shape)}"
    elif close(value, F.cross_entropy(logits, label)):
        hint = "label counts within the task: add the number of classes of all tasks before it"
    elif close(value, sum(own) / len(own)):
        hint = "this softmax runs over the image's own task only (label_per_task); here all classes compete"
    elif close(value, len(task) * union_loss(logits, task, label, sizes)):
        hint = "take the mean over the batch"
    return report(False, "", hint)


def average(sources):
    """What `check_average` expects: the mean of each tensor over several dictionaries of tensors."""
    return {name: torch.stack([source[name] for source in sources]).mean(dim=0) for name in sources[0]}


def check_average(function) -> bool:
    """function: list of {name: tensor} -> {name: tensor}, the mean over the list; the inputs stay as they are."""
    draw = torch.Generator().manual_seed(0)
    sources = [{"ctx": torch.randn(2, 3, generator=draw), "ctx_vision": torch.randn(4, generator=draw)} for _ in "abc"]
    given = [{name: tensor.clone() for name, tensor in source.items()} for source in sources]
    value, problem = attempt(function, given)
    if problem:
        return report(False, "", problem)
    expected = average(sources)
    if not isinstance(value, dict) or set(value) != set(expected):
        return report(False, "", f"return a dictionary with the names {sorted(expected)}")
    if any(not torch.equal(g[name], s[name]) for g, s in zip(given, sources, strict=True) for name in s):
        return report(False, "", "the sources were changed: add into a new tensor, not with += into the first one")
    hint = "expected the mean over the sources, number by number"
    if all(close(value[name], expected[name]) for name in expected):
        return report(True, "averaging learned prompts is a dictionary comprehension", "")
    if all(close(value[name], 3 * expected[name]) for name in expected):
        hint = "this is the sum; divide by the number of sources"
    return report(False, "", hint)


def best_partner(change):
    """What `check_best_partner` expects: {task: its best partner, or None where every partner costs accuracy}."""
    chosen = {}
    for task, partners in change.items():
        best = max(partners, key=partners.__getitem__)
        chosen[task] = best if partners[best] > 0 else None
    return chosen


def check_best_partner(function) -> bool:
    """function: {task: {partner: points against tuning alone}} -> {task: best partner, or None if none helps}."""
    change = {"a": {"b": 1.5, "c": -1.0}, "b": {"a": -3.0, "c": -0.5}, "c": {"a": 0.2, "b": 2.0}}
    value, problem = attempt(function, {task: dict(partners) for task, partners in change.items()})
    if problem:
        return report(False, "", problem)
    expected = best_partner(change)
    hint = "expected, for each task, the partner with the largest change if that is positive, else None"
    if value == expected:
        return report(True, "b should stay alone: a partner is an offer, not a duty", "")
    if value == {task: max(partners, key=partners.get) for task, partners in change.items()}:
        hint = "task b loses with every partner: None"
    elif isinstance(value, dict) and value == {"a": "c", "b": "a", "c": "a"}:
        hint = "these are the worst partners"
    return report(False, "", hint)
