"""Averages of two models' weights, entry by entry of their state dicts.

    plain    theta = (1 - alpha) theta_0 + alpha theta_1
    Fisher   theta = (c0 theta_0 + c1 theta_1) / (c0 + c1),   c0 = (1 - alpha) max(F0, floor), c1 = alpha max(F1, floor)

Used by WiSE-FT (Wortsman et al., CVPR 2022, arXiv 2109.01903). F are diagonals of Fisher information matrices: an entry
that mattered to one model keeps more of its value there. Equal Fishers give the plain average.
"""

import torch


@torch.no_grad()
def merge(theta0, theta1, alpha, fisher0=None, fisher1=None, floor=1e-8):
    """{name: (1 - alpha) theta0 + alpha theta1}, or weighted by Fisher information (both, or neither).

    Half precision is averaged in float32 and comes back as it was; whole numbers (counters of batch norms) are
    theta1's; weights without an entry in a Fisher count as 1. ValueError for other keys, or alpha outside [0, 1].
    """
    alpha = check_alpha(alpha)
    if theta0.keys() != theta1.keys():
        raise ValueError(f"theta0 and theta1 have different entries: {sorted(theta0.keys() ^ theta1.keys())}")
    if (fisher0 is None) != (fisher1 is None):
        raise ValueError("fisher0 and fisher1 must be given both, or neither")
    merged = {}
    for name, start in theta0.items():
        end = theta1[name]
        if not start.is_floating_point():
            merged[name] = end.clone()
            continue
        a, b = (t.to(torch.promote_types(t.dtype, torch.float32)) for t in (start, end))
        if fisher0 is None:
            value = (1 - alpha) * a + alpha * b
        else:
            c0 = (1 - alpha) * fisher0.get(name, torch.ones_like(a)).clamp(min=floor)
            c1 = alpha * fisher1.get(name, torch.ones_like(b)).clamp(min=floor)
            value = (c0 * a + c1 * b) / (c0 + c1)
        merged[name] = value.to(start.dtype)
    return merged


def check_alpha(alpha):
    """alpha as a float; ValueError unless it is a number from 0 to 1."""
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha!r} must be a number from 0 to 1")
    return float(alpha)
