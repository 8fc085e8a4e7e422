"""The checks of 08_kgcoop accept the solutions and answer typical wrong attempts with a hint, without raising."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.checks.kgcoop import check_choice, check_distance, check_loss


def distance(text, hand):
    return 1 - F.cosine_similarity(text, hand, dim=-1).mean()


def loss(features, labels, text, hand, scale, weight):
    return F.cross_entropy(scale * features @ text.T, labels) + weight * distance(text, hand)


def harmonic(b, n):
    return 2 * b * n / (b + n)


def mean(values):
    return sum(values) / len(values)


def choice(table):
    return max(table, key=lambda w: harmonic(mean(table[w][0]), mean(table[w][1])))


@pytest.mark.parametrize(
    ("check", "solution"), [(check_distance, distance), (check_loss, loss), (check_choice, choice)]
)
def test_solutions_pass(check, solution, capsys):
    assert check(solution) is True
    assert capsys.readouterr().out.startswith("✓ ")


def test_the_reference_is_the_packages(vit_backbone):
    from vlmcourse.methods.text_prompts.kgcoop import KgCoOp

    method = KgCoOp(vit_backbone)
    text, method.hand = (F.normalize(torch.randn(3, 16), dim=-1) for _ in range(2))
    torch.testing.assert_close(method.distance_to_hand(text), distance(text, method.hand))


def by_mean_of_h(table):
    return max(table, key=lambda w: mean([harmonic(b, n) for b, n in zip(*table[w], strict=True)]))


def unit(x):
    return F.normalize(x, dim=-1)


WRONG = [
    (check_distance, lambda t, g: None, "returns None"),
    (check_distance, lambda t, g: 1 - (t * g).sum(-1).mean(), "not normalised"),
    (check_distance, lambda t, g: 2 * distance(t, g), "mean squared distance"),
    (check_distance, lambda t, g: 1 - (unit(t) @ unit(g).T).mean(), "every class with every class"),
    (check_distance, lambda t, g: 1 - distance(t, g), "1 minus it"),
    (check_distance, lambda t, g: 1 - F.cosine_similarity(t, g, dim=-1), "take their mean"),
    (check_distance, lambda t, g: (1 - F.cosine_similarity(t, g, dim=-1)).sum(), "sum over the classes"),
    (check_distance, lambda t, g: distance(t, g).item(), "no gradient"),
    (check_distance, lambda t, g: "far", "expected one number"),
    (check_distance, 3, "pass the function itself"),
    (check_loss, lambda f, y, t, g, s, w: None, "returns None"),
    (check_loss, lambda f, y, t, g, s, w: loss(f, y, t, g, s, 1.0), "weight is missing"),
    (check_loss, lambda f, y, t, g, s, w: loss(f, y, t, g, 1.0, w), "need the scale"),
    (check_loss, lambda f, y, t, g, s, w: loss(f, y, t, g, s, -w), "penalty"),
    (check_loss, lambda f, y, t, g, s, w: loss(f, y, t, g, s, 2 * w), "twice the cosine distance"),
    (check_loss, lambda f, y, t, g, s, w: loss(f, y, g, t, s, w), "belong to the learned features"),
    (check_loss, lambda f, y, t, g, s, w: loss(f, y, t, g, s, 8.0), "with weight 0"),
    (check_loss, "loss", "pass the function itself"),
    (check_choice, lambda table: None, "returns None"),
    (check_choice, lambda table: max(table, key=lambda w: mean(table[w][0])), "base classes only"),
    (check_choice, lambda table: max(table, key=lambda w: mean(table[w][1])), "new classes only"),
    (check_choice, by_mean_of_h, "averaged the splits' H"),
    (check_choice, lambda table: 5.0, "expected the weight 8, got 5.0"),
    (check_choice, [], "pass the function itself"),
]


@pytest.mark.parametrize(("check", "wrong", "hint"), WRONG)
def test_wrong_attempts_get_a_hint(check, wrong, hint, capsys):
    assert check(wrong) is False
    said = capsys.readouterr().out
    assert said.startswith("✗ not yet: ") and hint in said
