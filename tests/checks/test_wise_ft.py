"""The checks of 26_wise_ft accept the solutions and answer typical wrong attempts with a hint, without raising."""

import pytest
import torch

from vlmcourse.checks.wise_ft import check_alpha, check_effective, check_merge
from vlmcourse.methods.weight_average import merge


def smallest(alphas, accuracies, points):
    return next(a for a, acc in zip(alphas, accuracies, strict=True) if acc >= max(accuracies) - points)


def averaged(f, w0, w1, b0, b1, alpha):
    return f @ ((1 - alpha) * w0 + alpha * w1).T + (1 - alpha) * b0 + alpha * b1


def naive(a, b, alpha):
    return {k: (1 - alpha) * a[k] + alpha * b[k] for k in a}


@pytest.mark.parametrize(
    ("check", "solution"), [(check_merge, merge), (check_alpha, smallest), (check_effective, averaged)]
)
def test_solutions_pass(check, solution, capsys):
    assert check(solution) is True
    assert capsys.readouterr().out.startswith("✓ ")


@pytest.mark.parametrize(
    ("check", "wrong", "hint"),
    [
        (check_merge, naive, "whole number"),
        (check_merge, lambda a, b, alpha: merge(b, a, alpha), "the ends are exchanged"),
        (check_merge, lambda a, b, alpha: {"w": a["w"]}, "expected a dict"),
        (check_alpha, lambda a, acc, p: next(x for x, y in zip(a, acc) if y >= acc[-1] - p),
         "best accuracy on the path"),
        (check_alpha, lambda a, acc, p: max(x for x, y in zip(a, acc) if y >= max(acc) - p), "stays closest"),
        (check_effective, lambda f, w0, w1, b0, b1, a: f @ ((1 - a) * w0 + a * w1).T, "the bias"),
        (check_effective, lambda f, w0, w1, b0, b1, a: averaged(f, w1, w0, b1, b0, a), "alpha is the share"),
        (check_effective, lambda f, w0, w1, b0, b1, a: (1 - a) * (f @ w0.T + b0).softmax(-1)
         + a * (f @ w1.T + b1).softmax(-1), "averaged probabilities"),
        (check_merge, lambda a, b, alpha: None, "returns None"),
        (check_alpha, "smallest", "pass the function itself"),
        (check_effective, lambda *x: torch.zeros(2) @ torch.zeros(3), "raised RuntimeError"),
    ],
)  # fmt: skip
def test_wrong_attempts_get_a_hint(check, wrong, hint, capsys):
    assert check(wrong) is False
    said = capsys.readouterr().out
    assert said.startswith("✗ not yet: ") and hint in said
