"""The checks of 15_upl accept the solutions and answer typical wrong attempts with a hint, without raising."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.checks.upl import check_one_classifier, check_teachers, check_top_k, top_k


def one_classifier(text):
    return text.mean(dim=0)


def teachers(logits):
    return logits.softmax(dim=-1).mean(dim=0).argmax(dim=-1)


def column_wise(P, k):
    return {int(i): c for c in range(P.shape[1]) for i in P[:, c].topk(k).indices}


def overall(P, k):
    order = P.max(1).values.argsort(descending=True)[: k * P.shape[1]]
    return {int(i): int(P[i].argmax()) for i in order}


def least_confident(P, k):
    confidence, label = P.max(1)
    order = confidence.argsort().tolist()
    return {i: c for c in range(P.shape[1]) for i in [i for i in order if label[i] == c][:k]}


SOLUTIONS = [(check_top_k, top_k), (check_one_classifier, one_classifier), (check_teachers, teachers)]
WRONG = [
    (check_top_k, lambda P, k: None, "returns None"),
    (check_top_k, column_wise, "under its own argmax"),
    (check_top_k, overall, "at most k = 2"),
    (check_top_k, least_confident, "most confident ones"),
    (check_top_k, lambda P, k: top_k(P, k - 1), "each predicted class gives up to k"),
    (check_top_k, lambda P, k: [0, 1], "return a dictionary"),
    (check_top_k, lambda P, k: {"a": "b"}, "whole numbers"),
    (check_top_k, lambda P, k: {99: 0}, "under its own argmax"),
    (check_top_k, 3, "pass the function itself"),
    (check_one_classifier, lambda text: None, "returns None"),
    (check_one_classifier, lambda text: F.normalize(text.mean(0), dim=-1), "normalised the mean"),
    (check_one_classifier, lambda text: text.sum(0), "R times too large"),
    (check_one_classifier, lambda text: text, "expected one classifier of shape"),
    (check_one_classifier, lambda text: text[0], "must equal the mean"),
    (check_one_classifier, lambda text: text.nope, "raised AttributeError"),
    (check_teachers, lambda logits: None, "returns None"),
    (check_teachers, lambda logits: logits.mean(0).argmax(-1), "you averaged logits"),
    (check_teachers, lambda logits: logits.softmax(-1).mean(0), "mean probabilities"),
    (check_teachers, lambda logits: logits[0].argmax(-1), "softmax, mean over teachers, argmax"),
    (check_teachers, torch.zeros(2), "pass the function itself"),
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


def test_the_reference_is_the_methods_selection():
    from vlmcourse.methods.text_prompts.upl import select

    P = (2 * torch.randn(40, 5, generator=torch.Generator().manual_seed(3))).softmax(dim=1)
    chosen = select(P, 3)
    assert top_k(P, 3) == dict(zip(chosen.indices.tolist(), chosen.labels.tolist()))
