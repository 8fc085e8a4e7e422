"""The checks of 20_mvlpt accept the solutions and answer typical wrong attempts with a hint, without raising."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.checks.mvlpt import (
    average,
    best_partner,
    check_average,
    check_best_partner,
    check_union_loss,
    union_loss,
)

SOLUTIONS = [(check_union_loss, union_loss), (check_average, average), (check_best_partner, best_partner)]


def per_task(logits, task, label, sizes):
    starts = torch.tensor([0, *sizes]).cumsum(0)
    rows = zip(logits, task, label, strict=True)
    return sum(F.cross_entropy(row[starts[t] : starts[t + 1]], y) for row, t, y in rows) / len(logits)


def in_place(sources):
    for name in sources[0]:
        for other in sources[1:]:
            sources[0][name] += other[name]
        sources[0][name] /= len(sources)
    return sources[0]


@pytest.mark.parametrize(("check", "solution"), SOLUTIONS)
def test_solutions_pass(check, solution, capsys):
    assert check(solution) is True
    assert capsys.readouterr().out.startswith("✓ ")


WRONG = [
    (check_union_loss, lambda *a: None, "returns None"),
    (check_union_loss, lambda logits, t, y, s: F.cross_entropy(logits, y), "label counts within the task"),
    (check_union_loss, per_task, "own task only"),
    (check_union_loss, lambda *a: 5 * union_loss(*a), "mean over the batch"),
    (check_union_loss, lambda logits, *a: logits, "one number"),
    (check_union_loss, lambda *a: torch.tensor(0.0), "over all columns"),
    (check_union_loss, 3, "pass the function itself"),
    (check_average, lambda sources: None, "returns None"),
    (check_average, lambda sources: 3.0, "return a dictionary"),
    (check_average, in_place, "sources were changed"),
    (check_average, lambda sources: {n: sum(s[n] for s in sources) for n in sources[0]}, "this is the sum"),
    (check_average, lambda sources: sources[0], "number by number"),
    (check_best_partner, lambda change: None, "returns None"),
    (check_best_partner, lambda change: {t: max(p, key=p.get) for t, p in change.items()}, "loses with every partner"),
    (check_best_partner, lambda change: {t: min(p, key=p.get) for t, p in change.items()}, "worst partners"),
    (check_best_partner, lambda change: {}, "largest change"),
]


@pytest.mark.parametrize(("check", "wrong", "hint"), WRONG)
def test_wrong_attempts_get_a_hint(check, wrong, hint, capsys):
    assert check(wrong) is False
    said = capsys.readouterr().out
    assert said.startswith("✗ not yet: ") and hint in said
