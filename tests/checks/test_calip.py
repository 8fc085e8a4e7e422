"""The checks of 29_calip accept the solutions and answer typical wrong attempts with a hint, without raising."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.checks.calip import check_attention, check_logits, check_search


def attend(X, T, t):
    A = X @ T.T / t
    return A.softmax(0).T @ X, A.softmax(1) @ T


def logits(f, T, T_a, X_a, b2, b3):
    return f @ T.T + b2 * torch.einsum("be,bce->bc", f, T_a) + b3 * (X_a.mean(1) + X_a.amax(1)) @ T.T


def search(val, test):
    return test[max(val, key=val.get)]


@pytest.mark.parametrize(
    ("check", "solution"), [(check_attention, attend), (check_logits, logits), (check_search, search)]
)
def test_solutions_pass(check, solution, capsys):
    assert check(solution) is True
    assert capsys.readouterr().out.startswith("✓ ")


def swapped_axes(X, T, t):
    A = X @ T.T / t
    return A.softmax(1).T @ X, A.softmax(0) @ T


WRONG = [
    (check_attention, lambda X, T, t: None, "returns None"),
    (check_attention, swapped_axes, "axes are swapped"),
    (check_attention, lambda X, T, t: attend(X, T, 1.0), "temperature divides"),
    (check_attention, lambda X, T, t: attend(X, T, 1 / t), "temperature divides"),
    (check_attention, lambda X, T, t: [F.normalize(v, dim=-1) for v in attend(X, T, t)], "not normalise them"),
    (check_attention, lambda X, T, t: attend(X, T, t)[::-1], "the order"),
    (check_attention, lambda X, T, t: attend(X, T, t)[0], "return two tensors"),
    (check_attention, 3, "pass the function itself"),
    (check_logits, lambda *a: None, "returns None"),
    (check_logits, lambda f, T, T_a, X_a, b2, b3: logits(f, T, T_a, X_a, b3, b2), "betas are swapped"),
    (check_logits, lambda f, T, T_a, X_a, b2, b3: logits(f, T, T_a, X_a, b2, 0) + b3 * X_a.mean(1) @ T.T, "maximum"),
    (check_logits, lambda f, T, T_a, X_a, b2, b3: logits(f, T, T_a, X_a, b2, 0) + b3 * X_a.amax(1) @ T.T, "mean over"),
    (
        check_logits,
        lambda f, T, T_a, X_a, b2, b3: (
            logits(f, T, T_a, X_a, b2, 0) + b3 * F.normalize(X_a.mean(1) + X_a.amax(1), dim=-1) @ T.T
        ),
        "f_a is not normalised",
    ),
    (check_logits, lambda f, T, T_a, X_a, b2, b3: f @ T.T, "expected f T^T"),
    (check_search, lambda val, test: None, "returns None"),
    (check_search, lambda val, test: max(test.values()), "test labels to choose"),
    (check_search, lambda val, test: max(val.values()), "accuracy on validation"),
    (check_search, lambda val, test: test[0.0, 0.0], "expected the test accuracy"),
    (check_search, [], "pass the function itself"),
]


@pytest.mark.parametrize(("check", "wrong", "hint"), WRONG)
def test_wrong_attempts_get_a_hint(check, wrong, hint, capsys):
    assert check(wrong) is False
    said = capsys.readouterr().out
    assert said.startswith("✗ not yet: ") and hint in said
