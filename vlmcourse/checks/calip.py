"""Checks of notebooks/7_other_methods/29_calip.ipynb: both attentions, the three logits, betas without test labels."""

import torch
import torch.nn.functional as F

from vlmcourse.checks.report import attempt, close, report


def _inputs(seed: int):
    draw = torch.Generator().manual_seed(seed)
    return (F.normalize(torch.randn(n, 6, generator=draw), dim=-1) for n in (2, 5, 3))


def check_attention(function) -> bool:
    """function: (X (P, E), T (C, E), temperature) -> (T_a (C, E), X_a (P, E)); unit rows."""
    _, X, T = _inputs(0)
    value, problem = attempt(function, X, T, 0.2)
    if problem:
        return report(False, "", problem)
    if not isinstance(value, tuple | list) or len(value) != 2:
        return report(False, "", "return two tensors: the guided texts (C, E) and the blended positions (P, E)")
    A = X @ T.T / 0.2
    guided, mixed = A.softmax(0).T @ X, A.softmax(1) @ T
    hint = "expected softmax over the positions of A, transposed, times X; and softmax over the classes of A times T"
    if close(value[0], A.softmax(1).T @ X) or close(value[1], A.softmax(0) @ T):
        hint = "the axes are swapped: a text shares itself out over the positions, a position over the classes"
    elif close(value[0], (X @ T.T).softmax(0).T @ X) or close(value[0], (A * 0.04).softmax(0).T @ X):
        hint = "the temperature divides the affinities, before the softmax"
    elif close(value[0], F.normalize(guided, dim=-1)) or close(value[1], F.normalize(mixed, dim=-1)):
        hint = "CALIP does not normalise them again"
    elif close(value[0], mixed) and close(value[1], guided):
        hint = "the order: first the texts, then the positions"
    passed = close(value[0], guided) and close(value[1], mixed)
    return report(passed, "one matrix, two softmaxes", hint)


def check_logits(function) -> bool:
    """function: (f (B, E), T (C, E), T_a (B, C, E), X_a (B, P, E), beta2, beta3) -> logits (B, C), no scale."""
    f, X, T = _inputs(1)
    draw = torch.Generator().manual_seed(2)
    T_a, X_a = torch.randn(2, 3, 6, generator=draw), torch.randn(2, 5, 6, generator=draw)
    value, problem = attempt(function, f, T, T_a, X_a, 1.5, 0.5)
    if problem:
        return report(False, "", problem)
    image = X_a.mean(1) + X_a.amax(1)
    two = torch.einsum("be,bce->bc", f, T_a)
    expected = f @ T.T + 1.5 * two + 0.5 * image @ T.T
    hint = (
        "expected f T^T + beta2 f . T_a + beta3 f_a T^T, where f_a is the mean plus the maximum of X_a over positions"
    )
    if close(value, f @ T.T + 0.5 * two + 1.5 * image @ T.T):
        hint = "the betas are swapped: beta2 belongs to the guided texts, beta3 to the blended image"
    elif close(value, f @ T.T + 1.5 * two + 0.5 * X_a.mean(1) @ T.T):
        hint = "the maximum over the positions is missing in f_a"
    elif close(value, f @ T.T + 1.5 * two + 0.5 * X_a.amax(1) @ T.T):
        hint = "the mean over the positions is missing in f_a"
    elif close(value, f @ T.T + 1.5 * two + 0.5 * F.normalize(image, dim=-1) @ T.T):
        hint = "f_a is not normalised again"
    return report(close(value, expected), "with both betas 0 it is CLIP", hint)


def check_search(function) -> bool:
    """function: (accuracies on validation, accuracies on test), {betas: number} each -> honest accuracy."""
    val = {(0.0, 0.0): 0.50, (1.0, 0.02): 0.58, (5.0, 0.1): 0.55}
    test = {(0.0, 0.0): 0.51, (1.0, 0.02): 0.52, (5.0, 0.1): 0.57}
    value, problem = attempt(function, dict(val), dict(test))
    if problem:
        return report(False, "", problem)
    hint = "expected the test accuracy of the pair that is best on validation"
    if close(value, 0.57):
        hint = "this looks at the test labels to choose, which is what the official code does"
    elif close(value, 0.58):
        hint = "this is the accuracy on validation; report the test accuracy of the same pair"
    return report(close(value, 0.52), "chosen on validation, reported on test, once", hint)
