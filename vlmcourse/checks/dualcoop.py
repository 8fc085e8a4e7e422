"""Checks of notebooks/3_text_prompts/11_dualcoop.ipynb: average precision, pooling with one map, the partial loss."""

import torch

from vlmcourse.checks.report import attempt, close, report


def check_average_precision(function) -> bool:
    """function: (scores (N,), labels (N,) of 1 and 0) -> mean over the positives of the precision at their rank."""
    draw = torch.Generator().manual_seed(0)
    scores, labels = torch.rand(12, generator=draw), torch.tensor([0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1])
    value, problem = attempt(function, scores.clone(), labels.clone())
    if problem:
        return report(False, "", problem)
    y = labels[scores.argsort(descending=True)].double()
    precision = y.cumsum(0) / torch.arange(1, 13)
    expected = (precision * y).sum() / y.sum()
    hint = "sort by score, best first; at each positive take hits so far / rank; average over the positives"
    upwards = labels[scores.argsort()].double()
    if close(value, (precision * y).sum() / len(y)):
        hint = "divide by the number of positives, not by the number of images"
    elif close(value, precision.mean()):
        hint = "only the ranks of positives count, not every rank"
    elif close(value, (upwards.cumsum(0) / torch.arange(1, 13) * upwards).sum() / upwards.sum()):
        hint = "the highest score comes first: sort descending"
    return report(close(value, expected), "1 where all positives come first", hint)


def check_pooling(function) -> bool:
    """function: (present (B, C, N), absent (B, C, N), beta) -> (pooled present, pooled absent), (B, C) each.

    One map, the softmax of beta times `present`, weighs both.
    """
    draw = torch.Generator().manual_seed(1)
    present, absent = torch.rand(2, 3, 5, generator=draw), torch.rand(2, 3, 5, generator=draw)
    value, problem = attempt(function, present.clone(), absent.clone(), 10.0)
    if problem:
        return report(False, "", problem)
    if not isinstance(value, tuple | list) or len(value) != 2:
        return report(False, "", "return two tensors: pooled present, pooled absent")
    a, own = (10.0 * present).softmax(dim=-1), (10.0 * absent).softmax(dim=-1)
    hint = "expected (a * present).sum(-1) and (a * absent).sum(-1) with a = softmax(beta * present) over the regions"
    if close(value[0], (a * present).sum(-1)) and close(value[1], (own * absent).sum(-1)):
        hint = "this gives the negative prompt a map of its own; the map of the positive prompt weighs both"
    elif close(value[0], present.mean(-1)):
        hint = "this is the plain mean over regions; weigh them by the softmax"
    elif close(value[0], ((10.0 * present).softmax(dim=1) * present).sum(-1)):
        hint = "the softmax runs over the regions (last axis), not over the classes"
    passed = close(value[0], (a * present).sum(-1)) and close(value[1], (a * absent).sum(-1))
    return report(passed, "both prompts are asked at the same place", hint)


def check_partial_loss(function) -> bool:
    """function: (probabilities (B, C), labels (B, C) of 1, 0, -1) -> sum of binary cross-entropies of known labels."""
    draw = torch.Generator().manual_seed(2)
    p, labels = (
        0.05 + 0.9 * torch.rand(4, 3, generator=draw),
        torch.tensor([[1, 0, -1], [-1, 1, 0], [0, 0, -1], [1, 1, 0]]),
    )
    value, problem = attempt(function, p.clone().requires_grad_(), labels.clone())
    if problem:
        return report(False, "", problem)
    each = -torch.where(labels == 1, p, 1 - p).log()
    known = labels >= 0
    hint = "expected the sum of -log p where the label is 1 and of -log(1 - p) where it is 0; where it is -1, nothing"
    if close(value, each.sum()):
        hint = "unknown labels are treated as absent; leave them out"
    elif close(value, each[known].mean()):
        hint = "this is the mean; DualCoOp takes the sum, which is why the learning rate depends on C and on the share"
    elif close(value, each[labels == 1].sum()):
        hint = "known absences teach as well"
    return report(close(value, each[known].sum()), "what nobody said teaches nothing", hint)
