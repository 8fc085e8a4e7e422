"""Checks of notebooks/7_other_methods/28_vt_clip.ipynb: texts that ask an image, batched logits, the start."""

import torch
import torch.nn.functional as F

from vlmcourse.checks.report import attempt, close, report


def check_cross_attention(function) -> bool:
    """function: (T (C, E), X (B, P, E), Wq, Wk, Wv, Wo (E, E)) -> T + attention (B, C, E), one head, x W products."""
    draw = torch.Generator().manual_seed(0)
    T, X = torch.randn(3, 4, generator=draw), torch.randn(2, 5, 4, generator=draw)
    W = [torch.randn(4, 4, generator=draw) for _ in range(4)]
    value, problem = attempt(function, T, X, *W)
    if problem:
        return report(False, "", problem)
    Q, K, V = T @ W[0], X @ W[1], X @ W[2]
    A = Q @ K.transpose(1, 2)
    heard = (A / 2).softmax(-1) @ V @ W[3]
    hint = "expected T + softmax(Q K^T / sqrt(E)) V Wo, with the texts as queries and the positions as keys and values"
    if close(value, heard):
        hint = "the residual is missing: add T"
    elif close(value, T + A.softmax(-1) @ V @ W[3]):
        hint = "divide by sqrt(E) before the softmax"
    elif close(value, T + (A / 2).softmax(1) @ V @ W[3]):
        hint = "the softmax runs over the positions, the last axis of Q K^T"
    elif close(value, T + (A / 2).softmax(-1) @ V):
        hint = "the output matrix Wo is missing"
    return report(close(value, T + heard), "every class has asked every image", hint)


def check_logits(function) -> bool:
    """function: (f (B, E) unit, guided (B, C, E) not normalised, scale) -> (B, C)."""
    draw = torch.Generator().manual_seed(1)
    f, guided = F.normalize(torch.randn(3, 4, generator=draw), dim=-1), 2 * torch.randn(3, 3, 4, generator=draw)
    value, problem = attempt(function, f, guided, 10.0)
    if problem:
        return report(False, "", problem)
    unit = F.normalize(guided, dim=-1)
    expected = 10 * torch.einsum("be,bce->bc", f, unit)
    hint = "expected scale times the cosine of f[b] and guided[b, c], shape (B, C)"
    if close(value, 10 * torch.einsum("be,bce->bc", f, guided)):
        hint = "normalise the texts after the residual, and once"
    elif close(value, 10 * f @ unit[0].T):
        hint = "these are the texts of the first image for all images; each image has its own"
    elif close(value, expected / 10):
        hint = "the scale is missing"
    elif close(value, 10 * torch.einsum("be,bce->bc", f, F.normalize(guided, dim=1))):
        hint = "normalise along the last axis, E"
    return report(close(value, expected), "a classifier for each image", hint)


def check_start(function) -> bool:
    """function: {name: start value} of "query", "key", "value", "out": "zero" or "random" -> starts at zero-shot."""
    cases = [("random", "random", "random", "zero"), ("random", "random", "zero", "random"),
             ("zero", "zero", "random", "random"), ("random", "random", "random", "random")]  # fmt: skip
    answers = []
    for case in cases:
        value, problem = attempt(function, dict(zip(("query", "key", "value", "out"), case, strict=True)))
        if problem:
            return report(False, "", problem)
        answers.append(bool(value))
    hint = "ask when the shift Z Wo is zero for every image and every class"
    if answers[2]:
        hint = "with zero queries and keys the attention is even, not absent: the texts still hear the mean of V"
    elif answers[:2] == [True, False]:
        hint = "zero values give a zero shift as well"
    return report(answers == [True, True, False, False], "the start is zero-shot if values or output are zero", hint)
