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
    labels = labels.to(affinity.device)
    scale = torch.as_tensor(alphas, dtype=affinity.dtype, device=affinity.device)[:, None, None]  # (alphas, 1, 1)
    size = max(
        1, 2**25 // (len(alphas) * values.shape[1])
    )  # queries at a time: bounds the memory, matters for ImageNet
    correct = []
    for beta in betas:
        vote = cache_vote(affinity, values, float(beta))  # (B, C)
        parts = zip(zero_shot.split(size), vote.split(size), labels.split(size), strict=True)
        correct.append(sum(((z + scale * v).argmax(dim=-1) == y).sum(dim=1) for z, v, y in parts))  # (alphas,)
    accuracy = torch.stack(correct).cpu().numpy() / len(labels)
    i, j = np.unravel_index(accuracy.argmax(), accuracy.shape)
    return GridSearch(float(betas[i]), float(alphas[j]), accuracy, np.asarray(betas), np.asarray(alphas))
