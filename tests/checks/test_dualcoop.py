"""The checks of 11_dualcoop accept the solutions and answer typical wrong attempts with a hint, without raising."""

import pytest
import torch

from vlmcourse.checks.dualcoop import check_average_precision, check_partial_loss, check_pooling


def precision(scores, labels):
    y = labels[scores.argsort(descending=True)].double()
    return (y.cumsum(0) / torch.arange(1, len(y) + 1) * y).sum() / y.sum()


def pooling(present, absent, beta):
    a = (beta * present).softmax(dim=-1)
    return (a * present).sum(-1), (a * absent).sum(-1)


def loss(p, labels):
    return -p[labels == 1].log().sum() - (1 - p[labels == 0]).log().sum()


def own_maps(present, absent, beta):
    return pooling(present, present, beta)[0], pooling(absent, absent, beta)[0]


def everything(p, labels):
    return -torch.where(labels == 1, p, 1 - p).log().sum()


@pytest.mark.parametrize(
    ("check", "solution"),
    [(check_average_precision, precision), (check_pooling, pooling), (check_partial_loss, loss)],
)
def test_solutions_pass(check, solution, capsys):
    assert check(solution) is True
    assert capsys.readouterr().out.startswith("✓ ")


WRONG = [
    (check_average_precision, lambda s, y: precision(-s, y), "sort descending"),
    (check_average_precision, lambda s, y: precision(s, y) * y.sum() / len(y), "number of positives"),
    (check_average_precision, lambda s, y: None, "returns None"),
    (check_average_precision, 3, "pass the function itself"),
    (check_pooling, own_maps, "map of its own"),
    (check_pooling, lambda p, a, b: (p.mean(-1), a.mean(-1)), "plain mean"),
    (check_pooling, lambda p, a, b: p, "return two tensors"),
    (check_partial_loss, everything, "treated as absent"),
    (check_partial_loss, lambda p, y: -p[y == 1].log().sum(), "known absences"),
    (check_partial_loss, lambda p, y: loss(p, y) / 9, "this is the mean"),
    (check_partial_loss, lambda p, y: 1 / 0, "ZeroDivisionError"),
]


@pytest.mark.parametrize(("check", "attempt", "hint"), WRONG)
def test_wrong_attempts_get_a_hint(check, attempt, hint, capsys):
    assert check(attempt) is False
    out = capsys.readouterr().out
    assert out.startswith("✗ not yet: ") and hint in out
