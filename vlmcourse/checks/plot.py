"""Checks of notebooks/3_text_prompts/10_plot.ipynb: Sinkhorn's iteration, the score of a plan, where a prompt looks."""

import torch

from vlmcourse.checks.report import attempt, close, report
from vlmcourse.methods.transport import sinkhorn


def check_sinkhorn(function) -> bool:
    """function: (cost (P, N), eps, iterations) -> the plan (P, N) with rows 1/P and columns 1/N, columns set last."""
    cost = torch.rand(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    value, problem = attempt(function, cost.clone(), 0.1, 50)
    if problem:
        return report(False, "", problem)
    if not isinstance(value, torch.Tensor) or value.shape != cost.shape:
        got = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        return report(False, "", f"return the plan, a tensor (P, N) = (6, 3), not {got}")
    expected = sinkhorn(cost, 0.1, max_iter=50, tolerance=None)
    rows, columns = value.sum(1), value.sum(0)
    hint = "the margins are right, but it is another plan: T[p, n] = r[p] K[p, n] c[n] with K = exp(-cost / eps)"
    if close(value, sinkhorn(-cost, 0.1, max_iter=50, tolerance=None)):
        hint = "your plan prefers the expensive pairs: K = exp(-cost / eps), with the minus"
    elif close(value, torch.full_like(cost, 1 / 18)):
        hint = "this is the even plan: the costs have no influence; is K used in the updates and in the plan?"
    elif close(value.sum(), 6.0) or close(value.sum(), 3.0) or close(value.sum(), 18.0):
        hint = f"the plan sums to {float(value.sum()):.0f}, not 1: rows must sum to 1/P and columns to 1/N"
    elif close(rows, torch.full_like(rows, 1 / 3)) or close(columns, torch.full_like(columns, 1 / 6)):
        hint = "P and N are mixed up: rows (positions) sum to 1/P, columns (prompts) to 1/N"
    elif not close(columns, torch.full_like(columns, 1 / 3)) or not close(rows, torch.full_like(rows, 1 / 6), 1e-3):
        hint = "the margins are not even: update r from c, then c from the new r, `iterations` times"
    if not close(value, expected, 1e-5):
        return report(False, "", hint)
    few, problem = attempt(function, cost.clone(), 0.1, 1)
    if problem or not close(few, sinkhorn(cost, 0.1, max_iter=1, tolerance=None), 1e-6):
        return report(False, "", "right in the limit; with iterations = 1 it is one update of r, then one of c")
    return report(True, "two lines of updates solve a linear programme with entropy", "")


def check_score(function) -> bool:
    """function: (F (B, P, E), G (N, C, E), plan (B, C, P, N)) -> scores (B, C), the sum of plan times cosine."""
    draw = torch.Generator().manual_seed(1)
    F = torch.nn.functional.normalize(torch.randn(2, 5, 8, generator=draw), dim=-1)
    G = torch.nn.functional.normalize(torch.randn(3, 4, 8, generator=draw), dim=-1)
    cosine = torch.einsum("bpe,nce->bcpn", F, G)
    plan = sinkhorn(1 - cosine, 0.02, max_iter=200, tolerance=None)
    value, problem = attempt(function, F.clone(), G.clone(), plan.clone())
    if problem:
        return report(False, "", problem)
    if not isinstance(value, torch.Tensor) or value.shape != (2, 4):
        got = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        return report(False, "", f"expected a score for each image and class, (B, C) = (2, 4), got {got}")
    hint = "for each image and class: multiply plan and cosines entry by entry, then sum over positions and prompts"
    if close(value, cosine.mean((-2, -1))):
        hint = "this is the mean of all cosines, the score of the even plan; weight them by plan"
    elif close(value, cosine.sum((-2, -1))):
        hint = "you summed all cosines; weight them by plan"
    elif close(value, (plan * (1 - cosine)).sum((-2, -1))):
        hint = "this is the transport cost; the score uses the cosines themselves, so it is 1 minus that"
    elif close(value, (plan * cosine).mean((-2, -1))):
        hint = "the plan already sums to 1: take the sum over positions and prompts, not the mean"
    elif close(value, cosine.amax((-2, -1))):
        hint = "this is the best single pair; every position and every prompt must have its share"
    return report(
        close(value, (plan * cosine).sum((-2, -1))), "a weighted mean of cosines; T decides the weights", hint
    )


def check_positions(function) -> bool:
    """function: plan (P, N) -> (N,) on how many positions each prompt looks: exp of the entropy of its column."""
    draw, hint = torch.Generator().manual_seed(2), ""
    cost = torch.rand(9, 3, generator=draw, dtype=torch.float64)
    spot = torch.eye(3, dtype=torch.float64) / 3
    cases = (("the even plan", torch.full((9, 3), 1 / 27, dtype=torch.float64)), ("an assignment", spot))
    for name, plan in (*cases, ("a plan with eps = 0.05", sinkhorn(cost, 0.05, max_iter=200, tolerance=None))):
        value, problem = attempt(function, plan.clone())
        if problem:
            return report(False, "", problem)
        share = plan / plan.sum(0)
        expected = torch.special.entr(share).sum(0).exp()  # (N,)
        if close(value, expected, 1e-3):
            continue
        shown = [round(v, 2) for v in expected.tolist()]
        hint = f"{name}: expected {shown}; each column divided by its sum is a distribution, take exp of its entropy"
        if close(value, torch.special.entr(share).sum(0), 1e-3):
            hint = "this is the entropy in nats; its exp counts positions"
        elif close(value, torch.special.entr(plan).sum(0).exp(), 1e-3):
            hint = "divide each column by its sum first: a column of the plan sums to 1/N, not to 1"
        elif close(value, torch.special.entr(plan / plan.sum(1, keepdim=True)).sum(1).exp(), 1e-3):
            hint = "one number per prompt, (N,): sum over the positions, dim 0"
        elif isinstance(value, torch.Tensor) and value.isnan().any():
            hint = f"{name}: 0 log 0 counts as 0; torch.special.entr(x) is -x log x with that"
        return report(False, "", hint)
    return report(True, "from 1 (one position) to P (all alike)", "")
