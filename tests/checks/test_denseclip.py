"""The checks of 13_denseclip accept the solutions and answer typical wrong attempts with a hint, without raising."""

import pytest
import torch.nn.functional as F

from vlmcourse.checks.denseclip import check_context_aware, check_score_loss
from vlmcourse.methods.dense import enlarge


def score_loss(scores, labels, tau):
    return F.cross_entropy(enlarge(scores, labels.shape[-2:]) / tau, labels, ignore_index=255)


def context_aware(text, delta, gamma):
    return F.normalize(text + gamma * delta, dim=-1)


@pytest.mark.parametrize(("check", "solution"), [(check_score_loss, score_loss), (check_context_aware, context_aware)])
def test_solutions_pass(check, solution, capsys):
    assert check(solution) is True and capsys.readouterr().out.startswith("✓ ")


@pytest.mark.parametrize(
    ("check", "wrong", "hint"),
    [
        (check_score_loss, lambda s, y, tau: score_loss(s, y, 1.0), "divide by tau"),
        (check_score_loss, lambda s, y, tau: score_loss(s, y, 1 / tau), "do not multiply"),
        (check_score_loss, lambda s, y, tau: score_loss(s, y, tau).item(), "no gradient"),
        (check_score_loss, lambda s, y, tau: F.cross_entropy(s / tau, y), "raised"),
        (check_context_aware, lambda t, d, g: t + g * d, "unit vectors"),
        (check_context_aware, lambda t, d, g: F.normalize(t + d, dim=-1), "gamma scales"),
        (check_context_aware, lambda t, d, g: F.normalize(g * d, dim=-1), "added to the text"),
        (check_context_aware, "text", "function itself"),
    ],
)
def test_wrong_attempts_get_a_hint(check, wrong, hint, capsys):
    assert check(wrong) is False
    assert hint in capsys.readouterr().out
