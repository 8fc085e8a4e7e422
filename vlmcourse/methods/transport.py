"""Entropic optimal transport between two small sets, many problems at once.

Sinkhorn distances: Cuturi, NeurIPS 2013, arXiv 1306.0895. Given costs C (P, N) and two distributions u (P,), v (N,),

    T* = argmin <T, C> - eps H(T)   over T >= 0 with T 1 = u, T' 1 = v        H(T) = -sum T log T
    T* = diag(r) K diag(c),  K = exp(-C / eps),   from c = 1:   r <- u / (K c),   c <- v / (K' r)   until r stands still

eps -> 0 gives exact transport (a best assignment), eps = inf the independent plan u v', which ignores the costs. The
iteration runs on log r and log c, so no eps can underflow. The last update is that of c: columns of the plan sum to v
exactly, rows to u as nearly as the iteration has converged. By the envelope theorem T* is the gradient of the optimal
value min <T, C> - eps H(T) with respect to C: to descend on the value, nothing has to pass through the iteration.
"""

import math

import torch

STOPS = ("each", "batch")


@torch.no_grad()
def sinkhorn(cost, eps=0.1, *, rows=None, columns=None, max_iter=100, tolerance=1e-2, stop="each"):
    """The plan (..., P, N) for costs (..., P, N), at least float32; no gradient passes.

    rows (..., P), columns (..., N): the distributions, uniform by default. tolerance: stop when mean |r - r_before| is
    below it; None always runs max_iter iterations. stop: "each" ends every problem by its own mean, so a plan does not
    depend on its neighbours; "batch" ends all by the mean over all of them. ValueError for bad arguments.
    """
    if cost.ndim < 2 or not cost.is_floating_point():
        raise ValueError(f"cost={tuple(cost.shape)} {cost.dtype} must be floating point (..., P, N)")
    check_sinkhorn(eps, max_iter, tolerance, stop)
    cost = cost.to(torch.promote_types(cost.dtype, torch.float32))
    log_k = -cost / eps
    log_u, log_v = _log_marginal("rows", rows, cost, -2), _log_marginal("columns", columns, cost, -1)
    log_r, log_c = torch.zeros_like(cost[..., 0]), torch.zeros_like(cost[..., 0, :])  # (..., P), (..., N)
    going = torch.ones_like(cost[..., 0, 0], dtype=torch.bool)  # (...), problems that have not converged
    for _ in range(max_iter):
        new_r = log_u - torch.logsumexp(log_k + log_c[..., None, :], dim=-1)
        new_c = log_v - torch.logsumexp(log_k + new_r[..., :, None], dim=-2)
        if tolerance is None:
            log_r, log_c = new_r, new_c
            continue
        change = (new_r.exp() - log_r.exp()).abs().mean(dim=-1)  # (...); not a number where r overflows: goes on
        change = change.mean() if stop == "batch" else change
        log_r, log_c = torch.where(going[..., None], new_r, log_r), torch.where(going[..., None], new_c, log_c)
        going = going & ~(change < tolerance)
        if not going.any():
            break
    return torch.exp(log_r[..., :, None] + log_k + log_c[..., None, :])


def check_sinkhorn(eps, max_iter, tolerance, stop):
    """ValueError for settings that `sinkhorn` cannot use."""
    if not eps > 0:
        raise ValueError(f"eps={eps!r} must be positive; math.inf gives the plan that ignores the costs")
    if not isinstance(max_iter, int) or max_iter < 1:
        raise ValueError(f"max_iter={max_iter!r} must be a whole number >= 1")
    if tolerance is not None and not tolerance > 0:
        raise ValueError(f"tolerance={tolerance!r} must be positive, or None for a fixed number of iterations")
    if stop not in STOPS:
        raise ValueError(f"stop={stop!r} must be one of {STOPS}")


def _log_marginal(name, marginal, cost, axis):
    """Logarithm of a distribution over one axis of the costs; -log n where none is given."""
    lead, n = cost.shape[:-2], cost.shape[axis]
    if marginal is None:
        return cost.new_full((n,), -math.log(n))
    marginal = torch.as_tensor(marginal).to(cost)
    total = marginal.sum(dim=-1)
    if marginal.shape[-1] != n or bool((marginal < 0).any()) or not torch.allclose(total, torch.ones_like(total)):
        raise ValueError(f"{name}={tuple(marginal.shape)} must be (..., {n}), non-negative, with sum 1")
    return marginal.expand(*lead, n).log()


def entropy(plan):
    """(...) -sum T log T in nats of plans (..., P, N): log(P N) for the uniform plan."""
    return torch.special.entr(plan).sum(dim=(-2, -1))
