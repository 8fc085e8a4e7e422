"""The checks of 16_tpt accept the solutions and answer typical wrong attempts with a hint, without raising."""

import pytest
import torch

from vlmcourse.checks.tpt import check_confident, check_loss, entropy_of_mean, least_sure
from vlmcourse.methods.text_prompts import tpt


def of(p):
    return -(p * p.log()).sum(-1)


def no_floor(logits, share):
    return of(logits.softmax(-1)).argsort()[: int(share * len(logits))]


def mask(logits, share):
    keep = torch.zeros(len(logits), dtype=torch.bool)
    keep[tpt.confident(logits, share)] = True
    return keep


SOLUTIONS = [
    (check_confident, tpt.confident),
    (check_confident, lambda z, share: tpt.confident(z, share).tolist()),
    (check_loss, entropy_of_mean),
    (check_loss, tpt.marginal_entropy),
]


@pytest.mark.parametrize(("check", "solution"), SOLUTIONS)
def test_solutions_pass(check, solution, capsys):
    assert check(solution) is True
    assert capsys.readouterr().out.startswith("✓ ")


WRONG = [
    (check_confident, lambda z, share: None, "returns None"),
    (check_confident, no_floor, "keep at least one"),
    (check_confident, mask, "not a mask"),
    (check_confident, lambda z, share: least_sure(z, max(1, int(share * len(z)))), "least confident"),
    (check_confident, lambda z, share: tpt.confident(z, share).flip(0), "comes first"),
    (check_confident, lambda z, share: [0], "expected views [2, 4]"),
    (check_confident, lambda z, share: "views", "expected views"),
    (check_confident, 3, "pass the function itself"),
    (check_loss, lambda z: None, "returns None"),
    (check_loss, lambda z: of(z.softmax(-1)).mean(), "mean (or sum) of the entropies"),
    (check_loss, lambda z: of(z.softmax(-1)), "one number"),
    (check_loss, lambda z: -entropy_of_mean(z), "sign is wrong"),
    (check_loss, lambda z: of(z.mean(0).softmax(-1)), "averaged the logits"),
    (check_loss, lambda z: entropy_of_mean(z).item(), "no gradient"),
    (check_loss, lambda z: z.sum(), "average the probabilities"),
    (check_loss, "loss", "pass the function itself"),
]


@pytest.mark.parametrize(("check", "wrong", "hint"), WRONG)
def test_wrong_attempts_get_a_hint(check, wrong, hint, capsys):
    assert check(wrong) is False
    said = capsys.readouterr().out
    assert said.startswith("✗ not yet: ") and hint in said
