"""The checks of 22_cavpt accept the solutions and answer typical wrong attempts with a hint, without raising."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.checks.cavpt import check_auxiliary, check_candidates, check_class_prompts


def candidates(f0, W0, T, k):
    classes = (f0 @ W0.T).topk(k).indices
    return classes, T[classes]


def prompts(q, x, G, Wq, Wk, Wv, scale=2.0, residual=1.0):
    H = torch.cat([x, G.expand(len(x), -1, -1)], dim=1)
    found = ((q @ Wq) @ (H @ Wk).transpose(1, 2) / scale).softmax(-1) @ H @ Wv
    return F.layer_norm(found + residual * q, q.shape[-1:])


def auxiliary(aux, classes, y):
    true = classes == y[:, None]
    return F.cross_entropy(aux[true], classes[true]) if true.any() else aux.new_zeros(())


@pytest.mark.parametrize(
    ("check", "solution"),
    [(check_candidates, candidates), (check_class_prompts, prompts), (check_auxiliary, auxiliary)],
)
def test_solutions_pass(check, solution, capsys):
    assert check(solution) is True
    assert capsys.readouterr().out.startswith("✓ ")


def nan_auxiliary(aux, classes, y):
    true = classes == y[:, None]
    return F.cross_entropy(aux[true], classes[true])


def summed(aux, classes, y, over=1):
    true = classes == y[:, None]
    return F.cross_entropy(aux[true], classes[true], reduction="sum") / over


WRONG = [
    (check_candidates, lambda *a: None, "returns None"),
    (check_candidates, lambda f0, W0, T, k: candidates(f0, T, T, k), "frozen CLIP ranks"),
    (check_candidates, lambda f0, W0, T, k: candidates(-f0, W0, T, k), "unlikeliest"),
    (check_candidates, lambda f0, W0, T, k: candidates(f0, W0, F.normalize(T, dim=-1), k), "without being normalised"),
    (check_candidates, lambda f0, W0, T, k: candidates(f0, W0, W0, k), "learned texts T ask"),
    (check_candidates, lambda f0, W0, T, k: candidates(f0, W0, T, k)[0], "return two tensors"),
    (check_candidates, 3, "pass the function itself"),
    (check_class_prompts, lambda *a: None, "returns None"),
    (check_class_prompts, lambda q, x, G, *W: prompts(q, x, G[:0], *W), "learned tokens G are missing"),
    (check_class_prompts, lambda *a: prompts(*a, residual=0.0), "residual is missing"),
    (check_class_prompts, lambda *a: prompts(*a, scale=1.0), "root of A"),
    (check_class_prompts, lambda q, *a: q, "expected LN"),
    (check_auxiliary, lambda *a: None, "returns None"),
    (check_auxiliary, nan_auxiliary, "not NaN"),
    (check_auxiliary, summed, "not the sum"),
    (check_auxiliary, lambda *a: summed(*a, over=3), "number of true rows"),
    (
        check_auxiliary,
        lambda aux, classes, y: F.cross_entropy(aux.flatten(0, 1), y.repeat_interleave(2)),
        "only the row of the true class",
    ),
    (check_auxiliary, lambda aux, classes, y: aux.mean(), "expected the mean cross-entropy"),
    (check_auxiliary, "loss", "pass the function itself"),
]


@pytest.mark.parametrize(("check", "wrong", "hint"), WRONG)
def test_wrong_attempts_get_a_hint(check, wrong, hint, capsys):
    assert check(wrong) is False
    said = capsys.readouterr().out
    assert said.startswith("✗ not yet: ") and hint in said
