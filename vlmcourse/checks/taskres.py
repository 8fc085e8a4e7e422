"""Checks of notebooks/7_other_methods/30_taskres.ipynb: the logits, one step by hand, folding the residual."""

import torch
import torch.nn.functional as F

from vlmcourse.checks.report import attempt, close, report


def check_logits(function) -> bool:
    """function: (f (B, E), base (C, E), x (C, E), alpha, scale) -> (B, C); f has unit rows, the base has not."""
    draw = torch.Generator().manual_seed(0)
    f = F.normalize(torch.randn(5, 6, generator=draw), dim=-1)
    base, x = 4 * torch.randn(3, 6, generator=draw), torch.randn(3, 6, generator=draw)
    value, problem = attempt(function, f.clone(), base.clone(), x.clone(), 0.5, 10.0)
    if problem:
        return report(False, "", problem)
    expected = 10 * f @ F.normalize(base + 0.5 * x, dim=-1).T
    hint = "expected scale · f n(base + alpha · x)^T, shape (B, C)"
    if close(value, 10 * f @ (base + 0.5 * x).T):
        hint = "the class features are not normalised: do it after the residual is added"
    elif close(value, 10 * f @ F.normalize(F.normalize(base, dim=-1) + 0.5 * x, dim=-1).T):
        hint = "the base stays as long as it is; normalise only the sum"
    elif close(value, 10 * f @ (F.normalize(base, dim=-1) + 0.5 * F.normalize(x, dim=-1)).T):
        hint = "normalise the sum, not its parts"
    elif close(value, 10 * f @ F.normalize(base + x, dim=-1).T):
        hint = "the scale alpha of the residual is missing"
    elif close(value, expected / 10):
        hint = "the logit scale is missing"
    elif close(value, expected.T):
        hint = "images are the rows, classes the columns"
    return report(close(value, expected), "the old classifier, and what the task adds", hint)


def check_tangent(function) -> bool:
    """function: (base (C, E), x (C, E)) -> (C,) share of each |x_c| that turns t_c: its part at right angles to t_c."""
    draw = torch.Generator().manual_seed(1)
    base, x = 3 * torch.randn(4, 6, generator=draw), torch.randn(4, 6, generator=draw)
    value, problem = attempt(function, base.clone(), x.clone())
    if problem:
        return report(False, "", problem)
    cosine = F.cosine_similarity(base, x, dim=-1)
    expected = (1 - cosine**2).sqrt()
    hint = "expected |x_c - (x_c · u_c) u_c| / |x_c| with u_c = n(t_c), one number for each class"
    if close(value, cosine):
        hint = "this is the cosine of x_c and t_c: the share that only makes t_c longer or shorter"
    elif close(value, cosine.abs()):
        hint = "this is the share along t_c; the share at right angles is the square root of 1 minus its square"
    elif close(value, 1 - cosine**2):
        hint = "these are shares of the squared length; take the square root"
    elif close(value, expected * x.norm(dim=-1)):
        hint = "this is the length of that part; divide it by the length of x_c"
    return report(close(value, expected), "1 where the residual only turns, 0 where it only stretches", hint)


def check_fold(function) -> bool:
    """function: (base (C, E), x (C, E), alpha, keep: list of classes) -> (len(keep), E) unit class features."""
    draw = torch.Generator().manual_seed(2)
    base, x = 4 * torch.randn(5, 6, generator=draw), torch.randn(5, 6, generator=draw)
    value, problem = attempt(function, base.clone(), x.clone(), 0.5, [3, 0])
    if problem:
        return report(False, "", problem)
    everything = F.normalize(base + 0.5 * x, dim=-1)
    hint = "expected the unit rows n(base + alpha · x) of the classes in `keep`, in that order"
    if close(value, everything):
        hint = "these are all classes; take the rows in `keep`"
    elif close(value, everything[[0, 3]]):
        hint = "the rows must stand in the order of `keep`"
    elif close(value, (base + 0.5 * x)[[3, 0]]):
        hint = "normalise the rows: the fold is done once, so that using it costs what zero-shot costs"
    elif close(value, F.normalize(base, dim=-1)[[3, 0]]):
        hint = "the residual is missing"
    return report(close(value, everything[[3, 0]]), "a classifier like any other", hint)
