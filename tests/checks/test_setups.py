"""The checks of the notebook on setups: references pass, typical mistakes get their hint, nothing raises."""

import math

import pytest
import torch

from vlmcourse.checks.setups import check_average_row, check_crossing, check_select_confident


def average_row(base, new):
    b, n = sum(base) / len(base), sum(new) / len(new)
    return b, n, 2 * b * n / (b + n) if b + n else 0.0


def crossing(shots, probe, zero_shot):
    if probe[0] >= zero_shot:
        return shots[0]
    for i in range(1, len(shots)):
        if probe[i] >= zero_shot:
            share = (zero_shot - probe[i - 1]) / (probe[i] - probe[i - 1])
            return 2 ** ((1 - share) * math.log2(shots[i - 1]) + share * math.log2(shots[i]))
    return math.inf


def select_confident(probabilities, k):
    confidence, predicted = probabilities.max(1)
    chosen = []
    for c in predicted.unique():
        members = (predicted == c).nonzero().squeeze(1)
        chosen.append(members[confidence[members].argsort(descending=True, stable=True)[:k]])
    return torch.cat(chosen).sort().values


def mean_of_hs(base, new):
    hs = [2 * b * n / (b + n) for b, n in zip(base, new, strict=True)]
    return sum(base) / len(base), sum(new) / len(new), sum(hs) / len(hs)


def first_above(shots, probe, zero_shot):
    return next((k for k, p in zip(shots, probe, strict=True) if p >= zero_shot), math.inf)


def columns(probabilities, k):
    return probabilities.topk(min(k, len(probabilities)), dim=0).indices.unique()


def linear_in_k(shots, probe, zero_shot):
    i = next(i for i, p in enumerate(probe) if p >= zero_shot)
    share = (zero_shot - probe[i - 1]) / (probe[i] - probe[i - 1])
    return shots[i - 1] + share * (shots[i] - shots[i - 1])


def without_infinity(shots, probe, zero_shot):
    value = crossing(shots, probe, zero_shot)
    return shots[-1] if value == math.inf else value


def test_references_pass(capsys):
    assert check_average_row(average_row) and check_crossing(crossing) and check_select_confident(select_confident)
    assert capsys.readouterr().out.count("✓") == 3


def test_other_containers_pass():
    assert check_average_row(lambda b, n: torch.tensor(average_row(b, n)))
    assert check_select_confident(lambda p, k: select_confident(p, k).tolist())
    assert check_crossing(lambda *a: torch.tensor(crossing(*a)))


@pytest.mark.parametrize(
    "check, wrong, hint",
    [
        (check_average_row, mean_of_hs, "mean of the three Hs"),
        (check_average_row, lambda b, n: (*average_row(b, n)[:2], sum(b + n) / 6), "arithmetic mean"),
        (check_average_row, lambda b, n: average_row(b, n)[2], "three numbers"),
        (check_average_row, lambda b, n: (sum(b), sum(n), 1.0), "plain means"),
        (check_average_row, lambda b, n: (*average_row(b, n)[:2], 0.1), "h of this test case"),
        (
            check_average_row,
            lambda b, n: (sum(b) / len(b), sum(n) / len(n), 2 / (len(b) / sum(b) + len(n) / sum(n))),
            "H is 0",
        ),
        (check_crossing, first_above, "first measured point"),
        (check_crossing, linear_in_k, "interpolate in log2"),
        (check_crossing, without_infinity, "math.inf"),
        (check_crossing, lambda *_: 3.0, "halfway"),
        (check_select_confident, columns, "down each column"),
        (check_select_confident, lambda p, k: p.max(1).values.topk(min(k, len(p))).indices, "of all"),
        (check_select_confident, lambda p, k: select_confident(p, k).flip(0), "increasing order"),
        (check_select_confident, lambda p, k: "abc", "tensor or a list"),
    ],
)
def test_typical_mistakes_get_a_hint(capsys, check, wrong, hint):
    assert check(wrong) is False
    out = capsys.readouterr().out
    assert out.startswith("✗ not yet") and hint in out and out.count("\n") == 1


@pytest.mark.parametrize("check", [check_average_row, check_crossing, check_select_confident])
@pytest.mark.parametrize("thing", [None, 3, "f", lambda *_: None, lambda: 1, lambda *_: "no", lambda *_: [[1.0]]])
def test_anything_else_fails_without_an_error(capsys, check, thing):
    assert check(thing) is False
    assert capsys.readouterr().out.startswith("✗ not yet")
