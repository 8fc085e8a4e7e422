"""Checks of notebooks/3_text_prompts/12_tai_dpt.ipynb: the ranking loss, the local score, merged scores."""

import torch

from vlmcourse.checks.report import attempt, close, report


def check_ranking_loss(function) -> bool:
    """function: (z (B, C), y (B, C) of 1 and 0) -> mean over rows of sum over pairs of max(0, 1 - z_i + z_j)."""
    z = torch.tensor([[2, 0.5, -1, 0], [0, 1, 3, 0.5], [1, 1, 1, 1]])
    y = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    value, problem = attempt(function, z.clone().requires_grad_(), y.clone())
    if problem:
        return report(False, "", problem)
    raw = 1 - z[:, :, None] + z[:, None, :]
    pairs = (y[:, :, None] == 1) & (y[:, None, :] == 0)
    expected = (raw.clamp(min=0) * pairs).sum() / 3
    hint = "expected the sum over named i and not named j of max(0, 1 - z_i + z_j), divided by the number of rows"
    if close(value, expected * 3):
        hint = "take the mean over the rows, including the row that names nothing"
    elif close(value, (raw * pairs).sum() / 3):
        hint = "a pair that is right by more than the margin counts 0, not less than 0: clamp"
    elif close(value, ((1 + z[:, :, None] - z[:, None, :]).clamp(min=0) * pairs).sum() / 3):
        hint = "the sign: a named class should have the *larger* score"
    elif close(value, (raw.clamp(min=0) * pairs).sum() / pairs.sum()):
        hint = "the sum over pairs, not their mean: a caption with two classes counts more"
    return report(close(value, expected), "0 once every named class leads by the margin", hint)


def check_local_score(function) -> bool:
    """function: (cosine (L, C), end, beta) -> (C,), 4 times the softmax-weighted sum over the tokens 0..end."""
    draw = torch.Generator().manual_seed(0)
    cosine, end, beta = torch.rand(7, 3, generator=draw), 4, 9.0
    value, problem = attempt(function, cosine.clone(), end, beta)
    if problem:
        return report(False, "", problem)

    def score(part, axis=0):
        return 4 * ((beta * part).softmax(dim=axis) * part).sum(dim=0)

    hint = "expected 4 * (a * cosine).sum(0) over the tokens 0 to end, with a = softmax(beta * cosine) over the tokens"
    if close(value, score(cosine)):
        hint = "padding takes part: leave out what stands behind the end token"
    elif close(value, score(cosine[:end])):
        hint = "the end token takes part: cut behind it, at end + 1"
    elif close(value, score(cosine[: end + 1]) / 4):
        hint = "the scale 4 is missing"
    elif close(value, score(cosine[: end + 1], 1)):
        hint = "the softmax runs over the tokens (first axis), not over the classes"
    return report(close(value, score(cosine[: end + 1])), "every class reads the words that suit it", hint)


def check_merge(function) -> bool:
    """function: (a (N, C), b (N, C), r) -> (1 - r) times a plus r times b, each scaled to 0 ... 1 as a whole."""
    draw = torch.Generator().manual_seed(1)
    a, b, r = 5 * torch.rand(4, 3, generator=draw), torch.randn(4, 3, generator=draw), 0.9
    value, problem = attempt(function, a.clone(), b.clone(), r)
    if problem:
        return report(False, "", problem)
    x, y = ((s - s.min()) / (s.max() - s.min()) for s in (a, b))
    p, q = ((s - s.amin(0)) / (s.amax(0) - s.amin(0)) for s in (a, b))
    hint = "scale each matrix by its own smallest and largest entry, then (1 - r) * a + r * b"
    if close(value, (1 - r) * a + r * b):
        hint = "scale first: the two scores have different ranges"
    elif close(value, r * x + (1 - r) * y):
        hint = "r is the weight of the second matrix"
    elif close(value, (1 - r) * p + r * q):
        hint = "one minimum and maximum for the whole matrix, not one for each class"
    return report(close(value, (1 - r) * x + r * y), "both scores speak in the same units", hint)
