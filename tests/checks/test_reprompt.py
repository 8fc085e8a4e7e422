"""The checks of 18_reprompt accept the solutions and answer typical wrong attempts with a hint, without raising."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.checks.reprompt import check_loss, check_mix, check_search


def search(queries, keys, own, k):
    similarity = queries @ keys.T
    similarity[torch.arange(len(own)), own] = -torch.inf
    return similarity.topk(k).indices


def surprise(votes, labels, clamp):
    return (-votes[torch.arange(len(labels)), labels].clamp_min(1e-9).log()).clamp(max=clamp)


def loss(logits, labels, votes, beta, clamp):
    return (F.cross_entropy(logits, labels, reduction="none") * (1 + beta * surprise(votes, labels, clamp))).mean()


def mix(logits, votes, share):
    return share * votes + (1 - share) * logits.softmax(-1)


@pytest.mark.parametrize(("check", "solution"), [(check_search, search), (check_loss, loss), (check_mix, mix)])
def test_solutions_pass(check, solution, capsys):
    assert check(solution) is True
    assert capsys.readouterr().out.startswith("✓ ")


def test_the_references_are_the_packages():
    from vlmcourse.methods.retrieval import FeatureStore
    from vlmcourse.methods.visual_prompts.reprompt import guided_loss, mixed

    keys = F.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    found = FeatureStore(keys, torch.zeros(6).long()).search(keys, 3, exclude=torch.arange(6))
    assert torch.equal(found.index, search(keys, keys, torch.arange(6), 3))
    logits, votes, labels = torch.randn(2, 3), torch.tensor([[0.5, 0.5, 0], [0, 0, 1.0]]), torch.tensor([0, 1])
    torch.testing.assert_close(guided_loss(logits, labels, votes, 0.3)[0], loss(logits, labels, votes, 0.3, 4.6))
    torch.testing.assert_close(mixed(votes, logits, 0.3), mix(logits, votes, 0.3))


def two_means(logits, labels, votes, beta, clamp):
    return F.cross_entropy(logits, labels) * (1 + beta * surprise(votes, labels, clamp).mean())


WRONG = [
    (check_search, lambda q, x, o, k: None, "returns None"),
    (check_search, lambda q, x, o, k: (q @ x.T).topk(k).indices, "finds itself first"),
    (check_search, lambda q, x, o, k: search(q, x, o, k).sort(dim=1).values, "order is lost"),
    (check_search, lambda q, x, o, k: search(-q, x, o, k), "farthest"),
    (check_search, lambda q, x, o, k: torch.zeros(3, 2), "expected indices of shape (3, 3)"),
    (check_search, 3, "pass the function itself"),
    (check_loss, lambda z, y, v, b, c: None, "returns None"),
    (check_loss, two_means, "multiplied the two means"),
    (check_loss, lambda z, y, v, b, c: loss(z, y, v, b, 1e9), "clamp it"),
    (check_loss, lambda z, y, v, b, c: loss(z, y, v, b, c) / 3, "twice"),
    (check_loss, lambda z, y, v, b, c: F.cross_entropy(z, y), "votes are missing"),
    (check_loss, lambda z, y, v, b, c: F.cross_entropy(z, y) + b * surprise(v, y, c).mean(), "no gradient"),
    (check_loss, lambda z, y, v, b, c: "big", "expected the mean"),
    (check_mix, lambda z, v, m: None, "returns None"),
    (check_mix, lambda z, v, m: mix(z, v, 1 - m), "share of the votes"),
    (check_mix, lambda z, v, m: m * v + (1 - m) * z, "no probabilities"),
    (check_mix, lambda z, v, m: mix(z, v, 0.5), "expected mix"),
    (check_mix, "mix", "pass the function itself"),
]


@pytest.mark.parametrize(("check", "wrong", "hint"), WRONG)
def test_wrong_attempts_get_a_hint(check, wrong, hint, capsys):
    assert check(wrong) is False
    said = capsys.readouterr().out
    assert said.startswith("✗ not yet: ") and hint in said
