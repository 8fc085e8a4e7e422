"""The checks of 09_softcpt accept the solutions and answer typical wrong attempts with a hint, without raising."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.checks.softcpt import check_contexts, check_loss, soft_loss


def contexts(features, P, M):
    return (features @ P).reshape(len(features), M, -1)


def over_all(logits, task, label, sizes):
    starts = torch.tensor(sizes).cumsum(0) - torch.tensor(sizes)
    return F.cross_entropy(logits, starts[task] + label)


def means(logits, task, label, sizes):
    total, first = 0.0, 0
    for t, size in enumerate(sizes):
        if (task == t).any():
            total = total + F.cross_entropy(logits[task == t, first : first + size], label[task == t])
        first += size
    return total


def nan(logits, task, label, sizes):
    return sum(F.cross_entropy(logits[task == t, : sizes[t]], label[task == t] % sizes[t]) for t in range(len(sizes)))


@pytest.mark.parametrize(("check", "solution"), [(check_contexts, contexts), (check_loss, soft_loss)])
def test_solutions_pass(check, solution, capsys):
    assert check(solution) is True
    assert capsys.readouterr().out.startswith("✓ ")


WRONG = [
    (check_contexts, lambda f, P, M: None, "returns None"),
    (check_contexts, lambda f, P, M: f @ P, "expected contexts (T, M, D)"),
    (check_contexts, lambda f, P, M: contexts(F.normalize(f, dim=-1), P, M), "not normalised"),
    (check_contexts, lambda f, P, M: (f @ P).reshape(len(f), -1, M).transpose(1, 2), "one after the other"),
    (check_contexts, lambda f, P, M: contexts(f, P.detach(), M), "no gradient"),
    (check_contexts, lambda f, P, M: contexts(f, 2 * P, M), "differ from"),
    (check_contexts, "contexts", "pass the function itself"),
    (check_contexts, lambda f, P, M: "words", "expected contexts"),
    (check_loss, lambda *a: None, "returns None"),
    (check_loss, over_all, "all classes of all tasks"),
    (check_loss, means, "mean within each task"),
    (check_loss, nan, "nan"),
    (check_loss, lambda *a: 7 * soft_loss(*a), "divide by the batch size"),
    (check_loss, lambda logits, *a: logits[:, 0], "one number"),
    (check_loss, lambda *a: torch.tensor(0.0), "sum the cross-entropy"),
    (check_loss, 3, "pass the function itself"),
]


@pytest.mark.parametrize(("check", "wrong", "hint"), WRONG)
def test_wrong_attempts_get_a_hint(check, wrong, hint, capsys):
    assert check(wrong) is False
    said = capsys.readouterr().out
    assert said.startswith("✗ not yet: ") and hint in said
