"""The checks of "Why transfer? The two gaps" accept the reference, and answer typical mistakes with a hint."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.checks import motivation as check


def gap(images, texts):
    return (images.mean(dim=0) - texts.mean(dim=0)).norm().item()


def all_found(scores, present):
    worst = scores.masked_fill(~present, float("inf")).min(dim=1).values
    return (worst > scores.masked_fill(present, -float("inf")).max(dim=1).values).float().mean().item()


def recall(scores, present):
    m = present.sum(1, keepdim=True)
    rank = (-scores).argsort(1).argsort(1)
    return (((rank < m) & present).sum(1) / m[:, 0]).mean().item()


def top_two(scores, present):
    return present.gather(1, scores.topk(2, dim=1).indices).all(dim=1).float().mean().item()


def group_sum(probability, parent, groups):
    return torch.zeros(len(probability), groups).index_add(1, parent, probability)


def by_group(reduce):
    return lambda p, parent, groups: torch.stack([reduce(p[:, parent == g]) for g in range(groups)], dim=1)


def test_the_references_pass(capsys):
    assert check.check_modality_gap(gap)
    assert check.check_all_found(all_found)
    assert check.check_group_probability(group_sum)
    assert capsys.readouterr().out.count("✓") == 3


@pytest.mark.parametrize(
    "function, attempt, hint",
    [
        (check.check_modality_gap, lambda i, t: i.mean(0) - t.mean(0), "a single number"),
        (check.check_modality_gap, lambda i, t: gap(i, t) ** 2, "squared"),
        (check.check_modality_gap, lambda i, t: torch.cdist(i, t).mean(), "mean distance of pairs"),
        (
            check.check_modality_gap,
            lambda i, t: (F.normalize(i.mean(0), dim=0) - F.normalize(t.mean(0), dim=0)).norm(),
            "you normalised the means",
        ),
        (check.check_modality_gap, lambda i, t: 0.0, "one number"),
        (check.check_all_found, recall, "*all* its objects"),
        (check.check_all_found, lambda s, p: p.gather(1, s.argmax(1)[:, None]).float().mean(), "not enough"),
        (check.check_all_found, top_two, "present.sum"),
        (check.check_all_found, lambda s, p: 0.1, "yours is 0.1"),
        (check.check_group_probability, by_group(lambda p: p.amax(1)), "take the sum"),
        (check.check_group_probability, by_group(lambda p: p.mean(1)), "you took the mean"),
        (check.check_group_probability, lambda p, parent, groups: p, "shape (B, G)"),
    ],
)
def test_hints(capsys, function, attempt, hint):
    assert not function(attempt)
    assert hint in capsys.readouterr().out


@pytest.mark.parametrize("function", [check.check_modality_gap, check.check_all_found, check.check_group_probability])
def test_nothing_raises(capsys, function):
    for attempt in (None, 3, lambda *_: None, lambda: 1, lambda *_: "words"):
        assert not function(attempt)
    assert capsys.readouterr().out.count("✗ not yet") == 5
