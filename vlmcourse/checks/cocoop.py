"""Checks of notebooks/3_text_prompts/04_cocoop.ipynb: a context per image, logits of many classifiers, token counts."""

import torch

from vlmcourse.checks.report import attempt, close, report


def check_conditional(function) -> bool:
    """function: (ctx (M, D), shifts (B, D)) -> contexts (B, M, D): image b's shift added to each of the M vectors."""
    draw = torch.Generator().manual_seed(0)
    for B, M, D in ((3, 4, 5), (4, 4, 5), (1, 2, 3)):
        ctx, shifts = torch.randn(M, D, generator=draw), torch.randn(B, D, generator=draw)
        value, problem = attempt(function, ctx.clone().requires_grad_(), shifts.clone())
        case = f"with B = {B} images and M = {M} vectors"
        if problem:
            if "size of tensor" in problem:
                problem += f" ({case}: give the shifts an axis of length 1 where the vectors are)"
            return report(False, "", problem)
        if not isinstance(value, torch.Tensor) or value.shape != (B, M, D):
            got = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            hint = f"{case}: expected contexts (B, M, D) = {(B, M, D)}, got {got}"
            if B == M and close(value, ctx + shifts):
                hint = f"{case} your sum broadcasts without an error, but gives vector m the shift of image m"
            return report(False, "", hint)
        if not close(value, ctx[None] + shifts[:, None]):
            hint = f"{case}: image b's context is not ctx + shifts[b]"
            if close(value, shifts[:, None].expand(B, M, D)):
                hint = "the shift is added to the learned context, it does not replace it"
            return report(False, "", hint)
        if not value.requires_grad:
            return report(False, "", "no gradient can reach ctx: do not detach it")
    return report(True, "one context per image, also where B = M and a wrong sum would have gone unnoticed", "")


def check_logits(function) -> bool:
    """function: (features (B, E), text (B, C, E), scale) -> logits (B, C); image b is compared with its own text[b]."""
    draw = torch.Generator().manual_seed(0)
    for B, C, E in ((2, 3, 5), (3, 3, 4)):
        features, text, scale = torch.randn(B, E, generator=draw), torch.randn(B, C, E, generator=draw), 7.0
        value, problem = attempt(function, features.clone(), text.clone(), scale)
        if problem:
            return report(False, "", problem)
        expected = scale * torch.einsum("be,bce->bc", features, text)
        if close(value, expected):
            continue
        hint = "logits[b, c] must be scale * <features[b], text[b, c]>"
        if close(value, expected / scale):
            hint = "the scale is missing"
        elif close(value, scale * features @ text[0].T):
            hint = "every image was compared with the classifier of image 0; image b has its own, text[b]"
        elif isinstance(value, torch.Tensor) and value.shape == (B, B, C):
            hint = f"got (B, B, C) = {(B, B, C)}: every image with every classifier; keep the pairs with equal b only"
        elif isinstance(value, torch.Tensor) and value.shape != (B, C):
            hint = f"expected logits (B, C) = {(B, C)}, got {tuple(value.shape)}"
        return report(False, "", hint)
    return report(True, "every image is compared with its own classifier", "")


def check_tokens(function) -> bool:
    """function: (B, C, M, tail, L) -> (padded, trimmed, shared): token positions that the text tower runs through.

    B images, C classes, M context vectors, `tail` tokens behind the context (name, full stop, end), L context length.
    """
    for B, C, M, tail, L in ((1, 5, 4, 4, 77), (8, 100, 4, 6, 77), (3, 2, 16, 5, 32)):
        value, problem = attempt(function, B, C, M, tail, L)
        if problem:
            return report(False, "", problem)
        expected = (B * C * L, B * C * (1 + M + tail), B * (1 + M) + B * C * tail)
        if not isinstance(value, tuple | list) or len(value) != 3:
            return report(False, "", f"return three numbers (padded, trimmed, shared), not {value!r}")
        for name, got, want, hint in zip(
            ("padded", "trimmed", "shared"), value, expected,
            ("B images times C classes times L tokens", "start token, context and tail: 1 + M + tail tokens per prompt",
             "start token and context once per image, the tail once per image and class"),
            strict=True,
        ):  # fmt: skip
            if not close(got, want):
                return report(False, "", f"{name} for B={B}, C={C}, M={M}, tail={tail}, L={L}: {hint}; got {got}")
    return report(True, "and only the first factor, B, is what CoCoOp adds to CoOp", "")
