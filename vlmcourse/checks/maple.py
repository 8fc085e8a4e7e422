"""Checks of notebooks/5_text_visual_prompts/21_maple.ipynb: the coupling, the replacement at a layer, the count."""

import torch

from vlmcourse.checks.report import attempt, close, report


def check_coupling(function) -> bool:
    """function: (text prompts (J, M, D), weights (J, Dv, D), biases (J, Dv)) -> visual prompts (J, M, Dv)."""
    draw = torch.Generator().manual_seed(0)
    prompts, weights, biases = (torch.randn(*shape, generator=draw) for shape in ((3, 2, 4), (3, 6, 4), (3, 6)))
    value, problem = attempt(function, prompts.clone().requires_grad_(), weights.clone(), biases.clone())
    if problem:
        return report(False, "", problem)
    linear = prompts @ weights.transpose(1, 2)
    expected = linear + biases[:, None]
    hint = "expected V[i] = P[i] @ weights[i].T + biases[i], of shape (J, M, Dv)"
    if close(value, linear):
        hint = "the biases are missing"
    elif close(value, prompts @ weights[0].T + biases[0]):
        hint = "every layer has a coupling of its own; you used the first for all"
    passed = close(value, expected)
    if passed and not (isinstance(value, torch.Tensor) and value.requires_grad):
        passed, hint = False, "no gradient can reach the text prompts: no detach(), no torch.no_grad()"
    return report(passed, "a gradient of the image tower reaches the text prompts through it", hint)


def check_replace(function) -> bool:
    """function: (tokens (B, 1 + P + M, Dv), prompts (M, Dv)) -> the same with the last M tokens replaced."""
    draw = torch.Generator().manual_seed(1)
    for count in (2, 0):
        tokens, prompts = torch.randn(3, 7, 5, generator=draw), torch.randn(count, 5, generator=draw)
        before = tokens.clone()
        value, problem = attempt(function, tokens, prompts)
        if problem:
            return report(False, "", problem)
        expected = torch.cat([before[:, : 7 - count], prompts.expand(3, -1, -1)], dim=1)
        hint = "expected the first tokens as they were, then the M prompts, for every image"
        if not torch.equal(tokens, before):
            return report(False, "", "your function changed the tokens it was given; build a new tensor with torch.cat")
        if close(value, expected):
            continue
        if count == 0:
            hint = "with M = 0 nothing should change: x[:, :-0] is empty, so count from the front"
        elif close(value, torch.cat([before, prompts.expand(3, -1, -1)], dim=1)):
            hint = "you appended; the sequence must keep its length"
        elif close(value, torch.cat([before[:, :1], prompts.expand(3, -1, -1), before[:, 3:]], dim=1)):
            hint = (
                "this replaces tokens behind the class token, as in the text tower; here the prompts stand at the end"
            )
        return report(False, "", hint)
    return report(True, "the sequence keeps its length at every layer, and M = 0 changes nothing", "")


def check_count(function) -> bool:
    """function: (J, M, D, Dv) -> the number of learned scalars of MaPLe."""
    for J, M, D, Dv in ((9, 2, 512, 768), (1, 4, 192, 192)):
        value, problem = attempt(function, J, M, D, Dv)
        if problem:
            return report(False, "", problem)
        if close(value, J * M * D + J * (D * Dv + Dv)):
            continue
        hint = f"for J={J}, M={M}, D={D}, Dv={Dv} expected {J * M * D + J * (D * Dv + Dv)}, got {value!r}"
        if close(value, J * M * D + J * D * Dv):
            hint = "the linear layers have biases, too"
        elif close(value, J * M * D + (J - 1) * (D * Dv + Dv)) or close(value, (J - 1) * M * D + J * (D * Dv + Dv)):
            hint = "J layers have prompts, the first one included, and each has its coupling"
        elif close(value, J * M * (D + Dv)):
            hint = "this counts independent prompts; visual prompts are computed, the coupling functions are learned"
        return report(False, "", hint)
    return report(True, "3,555,072 on ViT-B, nearly all of them in the couplings", "")
