"""Pseudo-labels: which images of an unlabelled pool to learn from, and as what, by a model's own confidence (UPL).

y_i = argmax_c P_ic      q_i = max_c P_ic        P (N, C) probabilities of the pool
S   = union over c of the K images of {i : y_i = c} with the largest q_i         at most K C images
"""

from typing import NamedTuple

import torch


class Selection(NamedTuple):
    """Chosen images of the pool, (n,) each: their positions, pseudo-labels, and confidences."""

    indices: torch.Tensor
    labels: torch.Tensor
    confidence: torch.Tensor


def select(probabilities, k=16, class_equal=True, conf_threshold=0.0):
    """Selection from probabilities (N, C); equally confident images keep the order of the pool.

    class_equal: the k most confident of each predicted class, class by class; else the k C most confident of all.
    k=None: all. conf_threshold: above 0, with class_equal, also every other image that is more confident than this.
    ValueError for arguments out of range and where nothing is left; the rows must be probabilities, not logits.
    """
    if k is not None and (not isinstance(k, int) or isinstance(k, bool) or k < 0):
        raise ValueError(f"k={k!r} must be a whole number >= 0, or None for all images")
    if not 0 <= conf_threshold <= 1:
        raise ValueError(f"conf_threshold={conf_threshold!r} must lie in 0..1 (0: none)")
    if conf_threshold and not class_equal:
        raise ValueError(f"conf_threshold={conf_threshold!r} adds to the K per class, so it needs class_equal=True")
    if probabilities.ndim != 2 or probabilities.min() < 0 or (probabilities.sum(dim=1) - 1).abs().max() > 1e-3:
        raise ValueError(f"probabilities {tuple(probabilities.shape)} must be (N, C), >= 0, with rows that sum to 1")
    confidence, labels = probabilities.max(dim=1)
    order, C = confidence.argsort(descending=True, stable=True), probabilities.shape[1]  # most confident first
    if class_equal:
        per_class = [order[labels[order] == c] for c in range(C)]
        chosen = torch.cat([members[:k] for members in per_class])
        if conf_threshold:
            sure = torch.cat([members[k:] for members in per_class]) if k is not None else order[:0]
            chosen = torch.cat([chosen, sure[confidence[sure] > conf_threshold]])
    else:
        chosen = order if k is None else order[: k * C]
    if not len(chosen):
        raise ValueError(f"k={k!r} and conf_threshold={conf_threshold!r} leave no image of {len(labels)} to learn from")
    return Selection(chosen, labels[chosen], confidence[chosen])
