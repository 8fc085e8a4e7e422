"""Key-value caches: the few-shot set as a soft nearest-neighbour classifier (Tip-Adapter and its relatives).

keys    K = normalise(mean over augmented views of the raw features)      (N, E)
values  V = one-hot labels                                                (N, C)
A       = f K^T                              affinity of queries f (B, E) to keys, (B, N)
logits  = Z + alpha exp(-beta (1 - A)) V     Z (B, C): zero-shot logits s f W^T
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from vlmcourse.methods.search import accuracy_grid, first_best


def cache_keys(views):
    """(N, E) from raw features (views, N, E): averaged, then normalised (the other order gives other keys)."""
    if views.ndim != 3:
        raise ValueError(f"views={tuple(views.shape)} must be (views, N, E)")
    return F.normalize(views.mean(dim=0), dim=-1)


def cache_values(labels, num_classes, like):
    """(N, C) one-hot, on the device and in the dtype of `like`."""
    return F.one_hot(labels, num_classes).to(like)


def cache_vote(affinity, values, beta):
    """(B, C): exp(-beta (1 - A)) V. Each training image votes for its class, the louder the nearer; beta sharpens."""
    return torch.exp(-beta * (1 - affinity)) @ values


class GridSearch(NamedTuple):
    """What the search saw: accuracy[i, j] belongs to betas[i], alphas[j]; beta, alpha are the first of the best."""

    beta: float
    alpha: float
    accuracy: np.ndarray  # (betas, alphas)
    betas: np.ndarray
    alphas: np.ndarray


def search_grid(scale, steps, include_zero=False):
    """betas, alphas: .1 + i (scale - .1) / steps, i < steps; `scale` is never tried, alpha = 0 if include_zero."""
    for name, pair in (("search_scale", scale), ("search_step", steps)):
        if len(tuple(pair)) != 2 or not all(value > 0 for value in pair):
            raise ValueError(f"{name}={pair!r} must be two positive numbers, for beta and alpha")
    betas, alphas = (0.1 + np.arange(int(n)) * (top - 0.1) / int(n) for top, n in zip(scale, steps, strict=True))
    return betas, np.concatenate([[0.0], alphas]) if include_zero else alphas


@torch.no_grad()
def search_on_validation(affinity, values, zero_shot, labels, betas, alphas):
    """GridSearch over logits Z + alpha exp(-beta (1 - A)) V on validation queries.

    affinity (B, N), values (N, C), zero_shot (B, C), labels (B,). Affinities are computed once, by the caller; one pass
    per beta judges all alphas together. Ties go to the smallest beta, then alpha, as in the official search.
    """
    pairs = ((zero_shot, cache_vote(affinity, values, float(beta))) for beta in betas)
    accuracy = accuracy_grid(pairs, labels, alphas)
    i, j = first_best(accuracy)
    return GridSearch(float(betas[i]), float(alphas[j]), accuracy, np.asarray(betas), np.asarray(alphas))
