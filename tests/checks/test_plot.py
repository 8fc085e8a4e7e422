"""The checks of 10_plot accept the solutions and answer typical wrong attempts with a hint, without raising."""

import pytest
import torch

from vlmcourse.checks.plot import check_positions, check_score, check_sinkhorn


def solve(cost, eps, iterations, sign=-1, sums=1.0, swap=False, last="c"):
    P, N = cost.shape
    u, v = (1 / N, 1 / P) if swap else (1 / P, 1 / N)
    kernel, r, c = torch.exp(sign * cost / eps), torch.ones(P).double(), torch.ones(N).double()
    for _ in range(iterations):
        if last == "r":
            c = sums * v / (kernel.T @ r)
        r = sums * u / (kernel @ c)
        if last == "c":
            c = sums * v / (kernel.T @ r)
    return r[:, None] * kernel * c


def score(F, G, plan):
    return (plan * torch.einsum("bpe,nce->bcpn", F, G)).sum((-2, -1))


def positions(plan):
    return torch.special.entr(plan / plan.sum(0)).sum(0).exp()


@pytest.mark.parametrize(
    ("check", "solution"), [(check_sinkhorn, solve), (check_score, score), (check_positions, positions)]
)
def test_solutions_pass(check, solution, capsys):
    assert check(solution) is True
    assert capsys.readouterr().out.startswith("✓ ")


def cosines(F, G):
    return torch.einsum("bpe,nce->bcpn", F, G)


def naive_entropy(plan):
    share = plan / plan.sum(0)
    return (-(share * share.log()).sum(0)).exp()


WRONG = [
    (check_sinkhorn, lambda c, e, i: None, "returns None"),
    (check_sinkhorn, lambda c, e, i: c[0], "a tensor (P, N)"),
    (check_sinkhorn, lambda c, e, i: solve(c, e, i, sign=1), "with the minus"),
    (check_sinkhorn, lambda c, e, i: torch.full_like(c, 1 / 18), "no influence"),
    (check_sinkhorn, lambda c, e, i: torch.softmax(-c / e, 1), "sums to 6"),
    (check_sinkhorn, lambda c, e, i: solve(c, e, i, swap=True), "mixed up"),
    (check_sinkhorn, lambda c, e, i: torch.softmax((-c / e).flatten(), 0).reshape(6, 3), "margins are not even"),
    (check_sinkhorn, lambda c, e, i: solve(c, 2 * e, i), "another plan"),
    (check_sinkhorn, lambda c, e, i: solve(c, e, 50), "with iterations = 1"),
    (check_sinkhorn, "solve", "pass the function itself"),
    (check_score, lambda F, G, T: None, "returns None"),
    (check_score, lambda F, G, T: score(F, G, T).T, "(B, C) = (2, 4)"),
    (check_score, lambda F, G, T: cosines(F, G).mean((-2, -1)), "the even plan"),
    (check_score, lambda F, G, T: cosines(F, G).sum((-2, -1)), "summed all cosines"),
    (check_score, lambda F, G, T: 1 - score(F, G, T), "transport cost"),
    (check_score, lambda F, G, T: score(F, G, T) / 15, "already sums to 1"),
    (check_score, lambda F, G, T: cosines(F, G).amax((-2, -1)), "best single pair"),
    (check_score, lambda F, G, T: 2 * score(F, G, T), "entry by entry"),
    (check_score, lambda F, G, T: F @ G, "raised RuntimeError"),
    (check_positions, lambda plan: None, "returns None"),
    (check_positions, lambda plan: torch.special.entr(plan / plan.sum(0)).sum(0), "in nats"),
    (check_positions, lambda plan: torch.special.entr(plan).sum(0).exp(), "by its sum first"),
    (check_positions, lambda plan: torch.special.entr(plan / plan.sum(1, keepdim=True)).sum(1).exp(), "dim 0"),
    (check_positions, naive_entropy, "0 log 0"),
    (check_positions, lambda plan: plan.sum(0), "expected [9.0, 9.0, 9.0]"),
    (check_positions, positions(torch.ones(2, 2)), "pass the function itself"),
]


@pytest.mark.parametrize(("check", "attempt", "hint"), WRONG)
def test_wrong_attempts_get_a_hint(check, attempt, hint, capsys):
    assert check(attempt) is False
    out = capsys.readouterr().out
    assert out.startswith("✗ not yet: ") and hint in out
