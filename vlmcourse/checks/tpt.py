"""Checks of notebooks/3_text_prompts/16_tpt.ipynb: confident views, the entropy of the mean prediction."""

import torch

from vlmcourse.checks.report import attempt, close, report

LOGITS = torch.tensor([[2, 0, -1], [0, 0, 0], [5, 1, 0], [1, 3, 0], [0.2, 0.1, 4]])


def check_confident(function) -> bool:
    """function: (logits (V, C), share) -> the numbers of the max(1, int(share V)) views of least entropy, in order."""
    for logits, share, expected in (
        (LOGITS, 0.4, [2, 4]),
        (LOGITS, 0.2, [2]),
        (LOGITS[[1, 0, 4]], 0.1, [2]),
        (LOGITS, 1.0, None),
    ):
        value, problem = attempt(function, logits.clone(), share)
        if problem:
            return report(False, "", problem)
        got = torch.as_tensor(value).tolist() if not isinstance(value, str) else value
        case = f"{len(logits)} views, share {share}"
        if expected is None and isinstance(got, list) and len(got) == 5:
            continue
        if got == expected:
            continue
        hint = f"{case}: expected views {expected}, got {got}"
        if got == []:
            hint = f"{case}: int(share V) is 0, and without a view the loss is nan: keep at least one"
        elif isinstance(got, list) and len(got) == len(logits) and all(isinstance(g, bool) for g in got):
            hint = f"{case}: return the numbers of the views, not a mask"
        elif isinstance(got, list) and expected and got == least_sure(logits, len(expected)):
            hint = f"{case}: these are the least confident views; sort the entropies from small to large"
        elif isinstance(got, list) and expected and sorted(map(str, got)) == sorted(map(str, expected)):
            hint = f"{case}: the right views, but the most confident one comes first: {expected}"
        return report(False, "", hint)
    return report(True, "the confident views, and never none of them", "")


def least_sure(logits, count):
    """The `count` views of most entropy."""
    p = logits.softmax(-1)
    return (p * p.clamp(min=1e-30).log()).sum(-1).argsort()[:count].tolist()


def entropy_of_mean(logits):
    """What `check_loss` expects."""
    p = logits.softmax(-1).mean(0)
    return -(p * p.log()).sum()


def check_loss(function) -> bool:
    """function: logits (k, C) of the kept views -> the entropy of the mean prediction, in nats, differentiable."""
    z = LOGITS[[2, 4]].clone().requires_grad_()
    value, problem = attempt(function, z)
    if problem:
        return report(False, "", problem)
    p = LOGITS[[2, 4]].softmax(-1)
    each = -(p * p.log()).sum(-1)
    if close(value, entropy_of_mean(LOGITS[[2, 4]]), 1e-5):
        if not isinstance(value, torch.Tensor) or not value.requires_grad:
            return report(False, "", "no gradient can reach the logits: keep the result a tensor, do not detach it")
        return report(True, "sure and in agreement: only both together make this loss small", "")
    hint = "average the probabilities over the views first, then take the entropy -sum p log p of that mean"
    if close(value, each.mean()) or close(value, each.sum()):
        hint = "this is the mean (or sum) of the entropies; it is small for views that are sure of different classes"
    elif close(value, -entropy_of_mean(LOGITS[[2, 4]])):
        hint = "the sign is wrong: an entropy is not negative"
    elif close(value, entropy_of_mean(LOGITS[[2, 4]].mean(0, keepdim=True))):
        hint = "you averaged the logits; average the probabilities"
    elif isinstance(value, torch.Tensor) and value.ndim:
        hint = f"the loss is one number, got a tensor of shape {tuple(value.shape)}"
    return report(False, "", hint)
