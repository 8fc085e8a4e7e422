"""The checks of 28_vt_clip accept the solutions and answer typical wrong attempts with a hint, without raising."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.checks.vt_clip import check_cross_attention, check_logits, check_start


def cross(T, X, Wq, Wk, Wv, Wo, residual=1.0, scale=2.0, axis=-1):
    A = (T @ Wq) @ (X @ Wk).transpose(1, 2) / scale
    return residual * T + A.softmax(axis) @ (X @ Wv) @ Wo


def logits(f, guided, scale):
    return scale * torch.einsum("be,bce->bc", f, F.normalize(guided, dim=-1))


def start(kinds):
    return "zero" in (kinds["value"], kinds["out"])


@pytest.mark.parametrize(
    ("check", "solution"), [(check_cross_attention, cross), (check_logits, logits), (check_start, start)]
)
def test_solutions_pass(check, solution, capsys):
    assert check(solution) is True
    assert capsys.readouterr().out.startswith("✓ ")


WRONG = [
    (check_cross_attention, lambda *a: None, "returns None"),
    (check_cross_attention, lambda *a: cross(*a, residual=0.0), "residual is missing"),
    (check_cross_attention, lambda *a: cross(*a, scale=1.0), "divide by sqrt"),
    (check_cross_attention, lambda *a: cross(*a, axis=1), "over the positions"),
    (check_cross_attention, lambda *a: cross(*a[:5], torch.eye(4)), "Wo is missing"),
    (check_cross_attention, lambda T, *a: T, "expected T +"),
    (check_cross_attention, 3, "pass the function itself"),
    (check_logits, lambda *a: None, "returns None"),
    (check_logits, lambda f, g, s: s * torch.einsum("be,bce->bc", f, g), "after the residual"),
    (check_logits, lambda f, g, s: s * f @ F.normalize(g, dim=-1)[0].T, "first image"),
    (check_logits, lambda f, g, s: logits(f, g, 1.0), "scale is missing"),
    (check_logits, lambda f, g, s: s * torch.einsum("be,bce->bc", f, F.normalize(g, dim=1)), "last axis"),
    (check_logits, lambda f, g, s: f, "expected scale times"),
    (check_start, lambda kinds: None, "returns None"),
    (check_start, lambda kinds: kinds["out"] == "zero", "zero values"),
    (check_start, lambda kinds: "zero" in kinds.values(), "even, not absent"),
    (check_start, lambda kinds: True, "even, not absent"),
    (check_start, lambda kinds: False, "ask when the shift"),
    (check_start, "out", "pass the function itself"),
]


@pytest.mark.parametrize(("check", "wrong", "hint"), WRONG)
def test_wrong_attempts_get_a_hint(check, wrong, hint, capsys):
    assert check(wrong) is False
    said = capsys.readouterr().out
    assert said.startswith("✗ not yet: ") and hint in said
