"""The checks of 06_lasp accept the solutions and answer typical wrong attempts with a hint, without raising."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.checks.lasp import check_average, check_retrieval, check_text_to_text
from vlmcourse.methods.text_prompts.lasp import text_to_text


def retrieval(learned, hand):
    return ((hand @ learned.T).argmax(-1) == torch.arange(len(learned))).float().mean()


def average(text):
    return F.normalize(text.mean(0), dim=-1)


@pytest.mark.parametrize(
    ("check", "solution"), [(check_text_to_text, text_to_text), (check_retrieval, retrieval), (check_average, average)]
)
def test_solutions_pass(check, solution, capsys):
    assert check(solution) is True
    assert capsys.readouterr().out.startswith("✓ ")


def the_other_way(learned, hand):
    return ((learned @ hand.transpose(1, 2)).argmax(-1) == torch.arange(len(learned))).float().mean()


WRONG = [
    (check_text_to_text, lambda t, h, s: None, "returns None"),
    (check_text_to_text, lambda t, h, s: text_to_text(t, h, s, "hand"), "among hand-written ones"),
    (check_text_to_text, lambda t, h, s: 15 * text_to_text(t, h, s), "take the mean"),
    (check_text_to_text, lambda t, h, s: text_to_text(t, h, 1.0), "logit scale"),
    (check_text_to_text, lambda t, h, s: (1 - (t * h).sum(-1)).mean(), "pushes the wrong pairs apart"),
    (check_text_to_text, lambda t, h, s: text_to_text(t.detach(), h, s), "no gradient"),
    (check_text_to_text, lambda t, h, s: t @ h[0].T, "return one number"),
    (check_text_to_text, lambda t, h, s: t.sum() * 0, "not the mean cross-entropy"),
    (check_text_to_text, "loss", "pass the function itself"),
    (check_retrieval, lambda t, h: None, "returns None"),
    (check_retrieval, lambda t, h: 15 * retrieval(t, h), "divide by"),
    (check_retrieval, lambda t, h: 100 * retrieval(t, h), "not percent"),
    (check_retrieval, the_other_way, "the other way round"),
    (check_retrieval, lambda t, h: 0.77, "expected"),
    (check_average, lambda t: None, "returns None"),
    (check_average, lambda t: t.mean(0), "normalise again"),
    (check_average, lambda t: F.normalize(t.mean(0), dim=0), "along the last axis"),
    (check_average, lambda t: t[0], "first group alone"),
    (check_average, lambda t: t, "expected one feature per class"),
    (check_average, lambda t: t[1] * 2, "not the mean"),
]


@pytest.mark.parametrize(("check", "attempt", "hint"), WRONG)
def test_wrong_attempts_get_a_hint(check, attempt, hint, capsys):
    assert check(attempt) is False
    out = capsys.readouterr().out
    assert out.startswith("✗ not yet: ") and hint in out
