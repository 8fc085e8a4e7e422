"""The checks of the Tip-Adapter notebook: references pass, typical mistakes get their hint, nothing raises."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.checks.tip_adapter import check_leave_one_out, check_prototypes, check_tip_adapter


def logits(f, W, keys, labels, alpha, beta, scale):
    votes = torch.zeros(len(f), len(W)).index_add(1, labels, torch.exp(-beta * (1 - f @ keys.T)))
    return scale * f @ W.T + alpha * votes


def prototypes(keys, labels, num_classes):
    return torch.stack([keys[labels == c].mean(0) for c in range(num_classes)])


def leave_one_out(W, keys, labels, alpha, beta, scale):
    weights = torch.exp(-beta * (1 - keys @ keys.T)).fill_diagonal_(0)
    result = scale * keys @ W.T + alpha * weights @ F.one_hot(labels, len(W)).float()
    return (result.argmax(1) == labels).float().mean().item()


def with_own_vote(W, keys, labels, alpha, beta, scale):
    return (logits(keys, W, keys, labels, alpha, beta, scale).argmax(1) == labels).float().mean()


def test_references_pass(capsys):
    assert check_tip_adapter(logits) and check_prototypes(prototypes) and check_leave_one_out(leave_one_out)
    assert capsys.readouterr().out.count("✓") == 3


def test_the_class_of_the_course_passes():
    from vlmcourse.methods.cache_model import cache_values, cache_vote

    def from_the_package(f, W, keys, labels, alpha, beta, scale):
        return scale * f @ W.T + alpha * cache_vote(f @ keys.T, cache_values(labels, len(W), keys), beta)

    assert check_tip_adapter(from_the_package)


@pytest.mark.parametrize(
    "check, wrong, hint",
    [
        (check_tip_adapter, lambda f, W, k, y, a, b, s: logits(f, W, k, y, 0, b, s), "votes of the cache are missing"),
        (check_tip_adapter, lambda f, W, k, y, a, b, s: logits(f, W, k, y, 1, b, s), "factor `alpha`"),
        (check_tip_adapter, lambda f, W, k, y, a, b, s: logits(f, W, k, y, a, b, 1), "factor `scale`"),
        (check_tip_adapter, lambda f, W, k, y, a, b, s: logits(f, 0 * W, k, y, a, b, s), "zero-shot logits"),
        (check_tip_adapter, lambda f, W, k, y, a, b, s: logits(f, W, k, y, a, -b, s), "sign"),
        (check_tip_adapter, lambda f, W, k, y, a, b, s: logits(f, W, k, y, a, b, s).softmax(-1), "term by term"),
        (check_tip_adapter, lambda f, W, k, y, a, b, s: logits(f, W, k, y, a, b, s).T, "shape (4, 5)"),
        (check_prototypes, lambda k, y, c: F.one_hot(y, c).float().T @ k, "these are sums"),
        (check_prototypes, lambda k, y, c: F.normalize(prototypes(k, y, c), dim=-1), "do not normalise"),
        (check_prototypes, lambda k, y, c: k.mean(0), "shape (6,)"),
        (check_leave_one_out, with_own_vote, "still votes for itself"),
        (check_leave_one_out, lambda *_: 2.0, "one number"),
    ],
)
def test_typical_mistakes_get_a_hint(capsys, check, wrong, hint):
    assert check(wrong) is False
    out = capsys.readouterr().out
    assert out.startswith("✗ not yet") and hint in out and out.count("\n") == 1


@pytest.mark.parametrize("check", [check_tip_adapter, check_prototypes, check_leave_one_out])
@pytest.mark.parametrize("thing", [None, 3, "f", lambda *_: None, lambda: 1, lambda *_: "no", lambda *_: [[1.0]]])
def test_anything_else_fails_without_an_error(capsys, check, thing):
    assert check(thing) is False
    assert capsys.readouterr().out.startswith("✗ not yet")
