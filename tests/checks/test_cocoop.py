"""The checks of 04_cocoop accept the solutions and answer typical wrong attempts with a hint, without raising."""

import pytest
import torch

from vlmcourse.checks.cocoop import check_conditional, check_logits, check_tokens


def conditional(ctx, shifts):
    return ctx + shifts[:, None]


def logits(features, text, scale):
    return scale * torch.einsum("be,bce->bc", features, text)


def tokens(B, C, M, tail, L):
    return B * C * L, B * C * (1 + M + tail), B * (1 + M) + B * C * tail


@pytest.mark.parametrize(
    ("check", "solution"), [(check_conditional, conditional), (check_logits, logits), (check_tokens, tokens)]
)
def test_solutions_pass(check, solution, capsys):
    assert check(solution) is True
    assert capsys.readouterr().out.startswith("✓ ")


def guess_from_shape(ctx, shifts):  # right for B != M only
    return ctx + shifts if len(ctx) == len(shifts) else ctx + shifts[:, None]


WRONG = [
    (check_conditional, lambda c, s: None, "returns None"),
    (check_conditional, lambda c, s: c + s, "axis of length 1"),
    (check_conditional, guess_from_shape, "gives vector m the shift of image m"),
    (check_conditional, lambda c, s: s[:, None].expand(-1, len(c), -1), "does not replace"),
    (check_conditional, lambda c, s: conditional(c, -s), "is not ctx + shifts[b]"),
    (check_conditional, lambda c, s: conditional(c.detach(), s), "no gradient"),
    (check_conditional, lambda c, s: "ctx", "got str"),
    (check_conditional, 3, "pass the function itself"),
    (check_logits, lambda f, w, s: None, "returns None"),
    (check_logits, lambda f, w, s: logits(f, w, 1.0), "scale is missing"),
    (check_logits, lambda f, w, s: s * f @ w[0].T, "classifier of image 0"),
    (check_logits, lambda f, w, s: s * f @ w.transpose(1, 2), "every image with every classifier"),
    (check_logits, lambda f, w, s: logits(f, w, s).T, "expected logits (B, C)"),
    (check_logits, lambda f, w, s: logits(f, w, s) + 1, "logits[b, c] must be"),
    (check_logits, "logits", "pass the function itself"),
    (check_tokens, lambda *a: None, "returns None"),
    (check_tokens, lambda *a: 7, "three numbers"),
    (check_tokens, lambda B, C, M, tail, L: (B * L, 0, 0), "padded"),
    (check_tokens, lambda B, C, M, tail, L: (B * C * L, B * C * (M + tail), 0), "trimmed"),
    (check_tokens, lambda B, C, M, tail, L: (*tokens(B, C, M, tail, L)[:2], 1 + M + B * C * tail), "shared"),
    (check_tokens, {}, "pass the function itself"),
]


@pytest.mark.parametrize(("check", "wrong", "hint"), WRONG)
def test_wrong_attempts_get_a_hint(check, wrong, hint, capsys):
    assert check(wrong) is False
    said = capsys.readouterr().out
    assert said.startswith("✗ not yet: ") and hint in said


def test_the_token_count_is_that_of_the_package(vit_backbone):
    """The trimmed and shared counts are the shapes that the text tower gets from the package."""
    from vlmcourse.methods.context import ClassPrompts

    prompts = ClassPrompts(vit_backbone, ["cat", "hot air balloon"], 4)
    tail = prompts.embeddings.shape[1] - 5
    _, trimmed, shared = tokens(3, 2, 4, tail, vit_backbone.context_length)
    assert trimmed == 3 * prompts.embeddings[..., 0].numel() and shared == 3 * 5 + 3 * 2 * tail
