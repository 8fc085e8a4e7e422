"""The checks of 19_upt accept the solutions and answer typical wrong attempts with a hint, without raising."""

import pytest

from vlmcourse.checks.upt import attention, check_attention, check_split, check_variance, inter_class_variance, split

SOLUTIONS = [(check_attention, attention), (check_split, split), (check_variance, inter_class_variance)]


@pytest.mark.parametrize(("check", "solution"), SOLUTIONS)
def test_solutions_pass(check, solution, capsys):
    assert check(solution) is True
    assert capsys.readouterr().out.startswith("✓ ")


WRONG = [
    (check_attention, lambda *a: None, "returns None"),
    (check_attention, lambda u, q, k, v: u @ v, "released code"),
    (check_attention, lambda u, q, k, v: (u @ q @ (u @ k).T).softmax(-1) @ (u @ v), "square root of d"),
    (check_attention, lambda u, q, k, v: (u @ q @ (u @ k).T / 5**0.5).softmax(0) @ (u @ v), "the last axis"),
    (check_attention, lambda u, q, k, v: (u @ q @ (u @ k).T).softmax(-1), "expected as many tokens"),
    (check_attention, lambda u, q, k, v: 2 * u, "expected softmax"),
    (check_attention, 3, "pass the function itself"),
    (check_split, lambda *a: None, "returns None"),
    (check_split, lambda y, m, w, b: y[:m], "return two things"),
    (check_split, lambda y, m, w, b: (y[m:], y[:m] @ w.T + b), "first half belongs to the text"),
    (check_split, lambda y, m, w, b: (y[:m], y[m:]), "width Dv"),
    (check_split, lambda y, m, w, b: (y[:m], y[m:] @ w.T), "bias is missing"),
    (check_split, lambda y, m, w, b: (y, y), "the first M rows"),
    (check_variance, lambda text: None, "returns None"),
    (check_variance, lambda text: text.var(0, correction=0), "per dimension"),
    (check_variance, lambda text: (text - text.mean(0)).square().mean(), "sum over them"),
    (check_variance, lambda text: (text - text.mean(0)).square().sum(), "average over the classes"),
    (check_variance, lambda text: (text - text.mean(0)).norm(dim=-1).mean(), "squared"),
    (check_variance, lambda text: 0.0, "expected the mean"),
]


@pytest.mark.parametrize(("check", "wrong", "hint"), WRONG)
def test_wrong_attempts_get_a_hint(check, wrong, hint, capsys):
    assert check(wrong) is False
    said = capsys.readouterr().out
    assert said.startswith("✗ not yet: ") and hint in said
