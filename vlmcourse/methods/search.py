"""Weights of sums of logits, searched where labels are known (on validation, never on test).

    logits_ij = R_i + w_j V_i        R, V (B, C), one pair for each first hyper-parameter i; weights w_j

Tip-Adapter: R zero-shot, V_i the cache's vote at beta_i, w = alpha. CALIP: R_i = t_1 + beta2_i t_2, V = t_3, w = beta3.
"""

import numpy as np
import torch

ENTRIES = 2**25  # logits that are formed at once


@torch.no_grad()
def accuracy_grid(pairs, labels, weights):
    """(I, J) accuracy of R_i + w_j V_i. pairs: iterable of I pairs (R, V), each (B, C); labels (B,); weights (J,).

    One pass per pair judges all weights together, in parts, so that memory stays bounded.
    """
    correct = []
    for rows, vote in pairs:
        scale = torch.as_tensor(weights, dtype=vote.dtype, device=vote.device)[:, None, None]  # (J, 1, 1)
        size = max(1, ENTRIES // (len(scale) * vote.shape[1]))  # queries at a time; matters for ImageNet
        parts = zip(rows.split(size), vote.split(size), labels.to(vote.device).split(size), strict=True)
        correct.append(sum(((r + scale * v).argmax(dim=-1) == y).sum(dim=1) for r, v, y in parts))  # (J,)
    return torch.stack(correct).cpu().numpy() / len(labels)


def first_best(accuracy):
    """(i, j) of the first of the highest entries of a grid, as the official searches keep it."""
    return tuple(map(int, np.unravel_index(accuracy.argmax(), accuracy.shape)))
