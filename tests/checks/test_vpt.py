"""The checks of 07_vpt accept the solutions and answer typical wrong attempts with a hint, without raising."""

import pytest
import torch

from vlmcourse.checks.vpt import check_kl, check_objective, check_shifts
from vlmcourse.methods.text_prompts.vpt import kl_divergence, log_mean_exp


def shifts(mean, log_var, noise):
    return mean + (0.5 * log_var).exp() * noise


def own(log_p, labels):
    return log_p[:, torch.arange(len(labels)), labels]


def objective(log_p, labels):
    return -log_mean_exp(own(log_p, labels)).mean()


def kl(mean, log_var):
    return kl_divergence(mean, log_var).mean()


SOLUTIONS = [(check_shifts, shifts), (check_objective, objective), (check_kl, kl)]
WRONG = [
    (check_shifts, lambda m, v, n: None, "returns None"),
    (check_shifts, lambda m, v, n: m + v.exp() * n, "square root"),
    (check_shifts, lambda m, v, n: m + v * n, "log_var is a logarithm"),
    (check_shifts, lambda m, v, n: (0.5 * v).exp() * n, "the mean is missing"),
    (check_shifts, lambda m, v, n: shifts(m, v, -n), "expected mean + sigma * noise"),
    (check_shifts, lambda m, v, n: shifts(m, v, n)[0], "one shift per sample"),
    (check_shifts, lambda m, v, n: shifts(m.detach(), v, n), "no gradient"),
    (check_shifts, lambda m, v, n: shifts(m, v, n).detach(), "no gradient"),
    (check_shifts, lambda m, v, n: 3, "got int"),
    (check_shifts, "shifts", "pass the function itself"),
    (check_objective, lambda p, y: None, "returns None"),
    (check_objective, lambda p, y: -own(p, y).mean(), "the mean of the logarithms"),
    (check_objective, lambda p, y: -own(p, y).logsumexp(0).mean(), "minus log S is missing"),
    (check_objective, lambda p, y: -objective(p, y), "the sign is wrong"),
    (check_objective, lambda p, y: -own(p.double(), y).exp().mean(1).log().mean(), "take logsumexp over the samples"),
    (check_objective, lambda p, y: -own(p, y).exp().mean(0).log().mean(), "use torch.logsumexp"),
    (check_objective, lambda p, y: p.nope, "raised AttributeError"),
    (check_kl, lambda m, v: None, "returns None"),
    (check_kl, lambda m, v: kl(m, v) * m.numel(), "the sum over the D dimensions"),
    (check_kl, lambda m, v: 2 * kl(m, v), "factor 1/2"),
    (check_kl, lambda m, v: kl(m, v) + 0.5, "the posterior is the prior"),
    (check_kl, lambda m, v: 0.5 * (m**2 + v.exp() - 1 + v).mean(), "each of the four terms"),
    (check_kl, 1.0, "pass the function itself"),
]


@pytest.mark.parametrize(("check", "solution"), SOLUTIONS)
def test_solutions_pass(check, solution, capsys):
    assert check(solution) is True
    assert capsys.readouterr().out.startswith("✓ ")


@pytest.mark.parametrize(("check", "attempt", "hint"), WRONG)
def test_wrong_attempts_get_a_hint(check, attempt, hint, capsys):
    assert check(attempt) is False
    out = capsys.readouterr().out
    assert out.startswith("✗ not yet: ") and hint in out


def test_kl_may_have_any_shape_of_one_number():
    assert check_kl(lambda m, v: kl(m, v)[None]) is True
