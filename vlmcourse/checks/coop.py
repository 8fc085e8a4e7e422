"""Checks of notebooks/3_text_prompts/03_coop.ipynb: the layout of prompts, class-specific context, nearest words."""

import torch

from vlmcourse.checks.report import attempt, close, report

ORDER = ("end", "middle", "front")


def check_layout(function) -> bool:
    """function: (position, n_ctx, n_name) -> the tokens of a prompt in order, a list of strings such as
    ["SOS", "v1", "v2", "n1", ".", "EOT"] for ("end", 2, 1)."""
    for position in ORDER:
        for n_ctx, n_name in ((2, 1), (4, 3), (5, 2)):
            value, problem = attempt(function, position, n_ctx, n_name)
            if problem:
                return report(False, "", problem)
            expected = layout(position, n_ctx, n_name)
            case = f"for {position!r}, M = {n_ctx}, {n_name} name tokens"
            if not isinstance(value, list | tuple):
                return report(False, "", f"return a list of strings, not {type(value).__name__}")
            if list(value) == expected:
                continue
            hint = f"{case} expected {' '.join(expected)}, got {' '.join(map(str, value))}"
            if sorted(map(str, value)) != sorted(expected):
                hint = f"{case} each of {' '.join(sorted(expected))} must occur once, got {' '.join(map(str, value))}"
            elif list(value) == layout(ORDER[::-1][ORDER.index(position)], n_ctx, n_name):
                hint = f"{case}: the position says where the class name stands, not where the context stands"
            elif position == "middle" and n_ctx % 2:
                hint = f"{case}: M is odd, and M // 2 vectors stand before the name, the larger part behind it"
            return report(False, "", hint)
    return report(True, "all three layouts; the end token keeps its place in all of them", "")


def layout(position, n_ctx, n_name):
    """The tokens of one prompt: what `check_layout` expects."""
    context = [f"v{m + 1}" for m in range(n_ctx)]
    before = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[position]
    return ["SOS", *context[:before], *(f"n{i + 1}" for i in range(n_name)), *context[before:], ".", "EOT"]


def check_insert(function) -> bool:
    """function: (embeddings (C, l, D), ctx (M, D) or (C, M, D)) -> prompts (C, l, D) with tokens 1..M replaced by ctx,
    differentiable in ctx, and embeddings left as they were."""
    generator = torch.Generator().manual_seed(0)
    C, l, M, D = 3, 7, 2, 5
    embeddings, own = torch.randn(C, l, D, generator=generator), torch.randn(C, M, D, generator=generator)
    for name, ctx in (("(M, D)", own[0]), ("(C, M, D)", own)):
        given, ctx = embeddings.clone(), ctx.clone().requires_grad_()
        value, problem = attempt(function, given, ctx)
        if problem:
            return report(False, "", f"ctx {name} = {tuple(ctx.shape)}: {problem}")
        if not isinstance(value, torch.Tensor) or value.shape != (C, l, D):
            got = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            return report(False, "", f"ctx {name}: expected prompts (C, l, D) = {(C, l, D)}, got {got}")
        if not close(given, embeddings):
            return report(False, "", "your function wrote into embeddings; build a new tensor, say with torch.cat")
        expected = torch.cat([embeddings[:, :1], ctx.expand(C, M, D), embeddings[:, 1 + M :]], dim=1)
        if not close(value, expected):
            return report(False, "", _why_not_inserted(value, embeddings, ctx, name))
        if not value.requires_grad:
            return report(False, "", "no gradient can reach ctx: do not detach it, nor go through .data or numpy")
    return report(True, "one function for both: M·D numbers for all classes, or M·D for each of the C", "")


def _why_not_inserted(value, embeddings, ctx, name):
    C, M = len(embeddings), ctx.shape[-2]
    if not close(value[:, 0], embeddings[:, 0]):
        return "token 0 is the start token and stays; the context takes tokens 1 to M"
    if not close(value[:, 1 + M :], embeddings[:, 1 + M :]):
        return "the tokens behind the context (name, full stop, end) must stay as they are"
    if ctx.ndim == 3 and all(close(value[c, 1 : 1 + M], ctx[0]) for c in range(C)):
        return "every class got the context of class 0; with ctx (C, M, D) class c takes ctx[c]"
    return f"ctx {name}: tokens 1 to M of class c are not the context that it should get"


def check_snap(function) -> bool:
    """function: (ctx (M, D), table (V, D)) -> (M, D), each vector replaced by the nearest row (Euclidean) of table."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(40, 6, generator=generator) * torch.linspace(0.3, 3, 40)[:, None]  # rows of very different norm
    ctx = torch.randn(9, 6, generator=generator)
    value, problem = attempt(function, ctx.clone(), table.clone())
    if problem:
        return report(False, "", problem)
    distance = torch.cdist(ctx, table)
    nearest = distance.argmin(dim=1)
    hint = "your rows are not the nearest ones: take the smallest torch.cdist(ctx, table) in each row"
    if close(value, nearest):
        hint = "these are the numbers of the nearest rows; return the rows themselves, table[numbers]"
    elif isinstance(value, torch.Tensor) and value.shape != ctx.shape:
        hint = f"expected one row for each context vector, shape (M, D) = {tuple(ctx.shape)}, got {tuple(value.shape)}"
    elif close(value, table[torch.nn.functional.cosine_similarity(ctx[:, None], table[None], dim=-1).argmax(dim=1)]):
        hint = "you took the row of the largest cosine; Euclidean distance, as in the paper, sees length too"
    elif close(value, table[(ctx @ table.T).argmax(dim=1)]):
        hint = "the largest inner product prefers long rows; use the smallest Euclidean distance, torch.cdist"
    elif close(value, table[distance.argmax(dim=1)]):
        hint = "these are the farthest rows: argmin, not argmax"
    return report(close(value, table[nearest]), "each vector became a word of the vocabulary", hint)
