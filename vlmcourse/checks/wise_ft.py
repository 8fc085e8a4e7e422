"""Checks of notebooks/7_other_methods/26_wise_ft.ipynb: the merge, the choice of alpha, the linear case."""

import torch

from vlmcourse.checks.report import attempt, close, report


def check_merge(function) -> bool:
    """function: (theta0, theta1: {name: tensor}, alpha) -> {name: (1 - alpha) theta0 + alpha theta1}, counters kept."""
    a = {"w": torch.tensor([[1.0, 2.0]]), "b": torch.tensor([0.0]), "count": torch.tensor(3)}
    b = {"w": torch.tensor([[3.0, -2.0]]), "b": torch.tensor([1.0]), "count": torch.tensor(8)}
    for alpha in (0.25, 0.0, 1.0):
        value, problem = attempt(
            function, {k: v.clone() for k, v in a.items()}, {k: v.clone() for k, v in b.items()}, alpha
        )
        if problem:
            return report(False, "", problem)
        if not isinstance(value, dict) or value.keys() != a.keys():
            return report(False, "", f"expected a dict with the keys {list(a)}, got {value!r:.60}")
        for name in ("w", "b"):
            expected = (1 - alpha) * a[name] + alpha * b[name]
            if not close(value[name], expected):
                hint = f"{name!r} at alpha = {alpha:g}: expected {expected.tolist()}, got {value[name]!r:.50}"
                if close(value[name], alpha * a[name] + (1 - alpha) * b[name]):
                    hint = "the ends are exchanged: alpha = 0 is theta0, the zero-shot model"
                return report(False, "", hint)
        if not isinstance(value["count"], torch.Tensor) or value["count"].is_floating_point() or value["count"] != 8:
            hint = (
                "'count' is a whole number, as batch norms have: keep theta1's, an average would turn it into a float"
            )
            return report(False, "", hint)
    return report(True, "one model, somewhere on the straight line between two", "")


def check_alpha(function) -> bool:
    """function: (alphas, source accuracies, most points that may be lost) -> the smallest alpha that meets it.

    The loss is counted from the best accuracy on the path.
    """
    alphas, accuracies = [0.0, 0.25, 0.5, 0.75, 1.0], [80.0, 85.0, 89.0, 91.0, 88.0]
    for points in (2.0, 0.0, 100.0, 6.0):
        value, problem = attempt(function, list(alphas), list(accuracies), points)
        if problem:
            return report(False, "", problem)
        expected = next(a for a, acc in zip(alphas, accuracies, strict=True) if acc >= max(accuracies) - points)
        if close(value, expected):
            continue
        hint = f"with at most {points:g} points below the best expected alpha = {expected:g}, got {value!r}"
        if close(value, next(a for a, acc in zip(alphas, accuracies, strict=True) if acc >= accuracies[-1] - points)):
            hint = "count from the best accuracy on the path, which need not be the fine-tuned end"
        elif close(value, max(a for a, acc in zip(alphas, accuracies, strict=True) if acc >= max(accuracies) - points)):
            hint = "this is the largest alpha that meets it; the smallest stays closest to the robust zero-shot model"
        return report(False, "", hint)
    return report(True, "as close to the robust model as your source accuracy allows", "")


def check_effective(function) -> bool:
    """function: (features (B, E), W0, W1 (C, E), b0, b1 (C,), alpha) -> logits (B, C) of the averaged linear head."""
    draw = torch.Generator().manual_seed(0)
    f, w0, w1 = (torch.randn(n, 5, generator=draw) for n in (4, 3, 3))
    b0, b1 = torch.zeros(3), torch.tensor([1.0, 2.0, 3.0])
    value, problem = attempt(function, f, w0, w1, b0, b1, 0.25)
    if problem:
        return report(False, "", problem)
    zero, one = f @ w0.T + b0, f @ w1.T + b1
    expected = 0.75 * zero + 0.25 * one
    hint = "expected features @ W.T + b with W and b averaged (1 - alpha) to alpha"
    if close(value, 0.75 * zero.softmax(-1) + 0.25 * one.softmax(-1)):
        hint = "these are averaged probabilities; the averaged head averages the logits"
    elif close(value, f @ (0.75 * w0 + 0.25 * w1).T):
        hint = "the bias belongs to the weights, too"
    elif close(value, 0.25 * zero + 0.75 * one):
        hint = "alpha is the share of the second pair"
    return report(close(value, expected), "for a linear model, averaging weights is averaging logits", hint)
