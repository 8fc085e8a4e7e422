"""The checks of 32_vcd accept the solutions and answer typical wrong attempts with a hint, without raising."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.checks.vcd import check_phrase, check_reasons, check_scores


def words(descriptor):
    first = descriptor.split()[0]
    if first in ("a", "an", "used"):
        return f"which is {descriptor}"
    return f"which {descriptor}" if first in ("has", "often", "typically", "may", "can") else f"which has {descriptor}"


def scores(features, sentences, counts):
    return torch.stack([part.mean(1) for part in (features @ sentences.T).split(counts, dim=1)], dim=1)


def reasons(winner, other):
    m = len(winner)
    return winner.mean() - (winner.sum() - winner) / (m - 1)


@pytest.mark.parametrize(
    ("check", "solution"), [(check_phrase, words), (check_scores, scores), (check_reasons, reasons)]
)
def test_solutions_pass(check, solution, capsys):
    assert check(solution) is True
    assert capsys.readouterr().out.startswith("✓ ")


def test_the_references_are_the_packages():
    from vlmcourse.methods.descriptions import class_index, class_mean
    from vlmcourse.methods.other_methods.vcd import phrase

    assert all(words(d) == phrase(d, whole_words=True) for d in ("antlers", "a tail", "can fly", "used daily", "ears"))
    f, e, counts = torch.randn(4, 5), torch.randn(6, 5), [3, 1, 2]
    bank = class_mean(e, class_index([range(n) for n in counts]), 3)
    torch.testing.assert_close(scores(f, e, counts), f @ bank.T)


def official(descriptor):
    from vlmcourse.methods.other_methods.vcd import phrase

    return phrase(descriptor)


def renormalised(f, e, counts):
    return f @ F.normalize(torch.stack([g.mean(0) for g in e.split(counts)]), dim=-1).T


@pytest.mark.parametrize(
    ("check", "wrong", "hint"),
    [
        (check_phrase, official, "compare the first word"),
        (check_phrase, lambda d: f"which has {d}", "expected 'which is a long tail'"),
        (check_scores, renormalised, "that is CuPL"),
        (check_scores, lambda f, e, n: torch.stack([p.sum(1) for p in (f @ e.T).split(n, 1)], 1), "this is the sum"),
        (check_scores, lambda f, e, n: torch.stack([p.amax(1) for p in (f @ e.T).split(n, 1)], 1), "the maximum"),
        (check_reasons, lambda w, o: -reasons(w, o), "the sign"),
        (check_reasons, lambda w, o: w - o.mean(), "without it"),
        (check_reasons, lambda w, o: w / 3, "one fewer"),
        (check_reasons, lambda w, o: w.mean() - reasons(w, o) - o.mean(), "the margins that remain"),
        (check_reasons, lambda w, o: None, "returns None"),
        (check_scores, 3, "pass the function itself"),
        (check_phrase, lambda d: d[99], "raised IndexError"),
    ],
)
def test_wrong_attempts_get_a_hint(check, wrong, hint, capsys):
    assert check(wrong) is False
    said = capsys.readouterr().out
    assert said.startswith("✗ not yet: ") and hint in said
