"""Accuracy over a taxonomy: are an image's predictions right, and do they agree, at every granularity?

Scores are (N, V), one for each node of the tree (vlmcourse.tasks.taxonomy.Taxonomy), whatever compares: a label set is
scored by the columns of its nodes. y is the true class, a leaf; path(y) the internal nodes above it, root included.

    leaf accuracy   mean over images of 1[argmax over the leaves = y]
    HCA             mean over images of 1[argmax over the leaves = y] * product over n in path(y) of
                    1[argmax over children(n) = the child that leads to y]            (hierarchical consistent accuracy)
    MTA             mean over treecuts of the accuracy with the cut as label set, each image's label being the node of
                    the cut above its class                                           (mean treecut accuracy)

HCA <= leaf accuracy, and HCA <= the accuracy of any single decision. A node with one child is always right. The paper
averages MTA over 25 treecuts, five for each dropout rate 0.9 ... 0.1 (ProTeCt, Wu et al., CVPR 2024, arXiv 2306.02240).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from vlmcourse.tasks.taxonomy import Taxonomy

RIGHT, WRONG, ELSEWHERE = 1, 0, -1


def leaf_accuracy(scores: Tensor, labels: Tensor, taxonomy: Taxonomy) -> float:
    """Top-1 among the classes, a fraction. scores (N, V), labels (N,) in 0..L-1."""
    return treecut_accuracy(scores, labels, taxonomy, taxonomy.leaf_cut)


def treecut_accuracy(scores: Tensor, labels: Tensor, taxonomy: Taxonomy, cut: Tensor) -> float:
    """Top-1 with a treecut (n,) as label set, a fraction."""
    scores, labels = _checked(scores, labels, taxonomy)
    return (scores[:, cut].argmax(dim=1) == taxonomy.cut_labels(cut)[labels]).double().mean().item()


def decisions(scores: Tensor, labels: Tensor, taxonomy: Taxonomy) -> Tensor:
    """(N, I) of RIGHT, WRONG or ELSEWHERE: does the child that leads to y win at internal node i, if i is above y?"""
    scores, labels = _checked(scores, labels, taxonomy)
    competitors, branch = taxonomy.competitors, taxonomy.branch[labels]  # (I, K), (N, I)
    among = scores[:, competitors].masked_fill(competitors < 0, -torch.inf)  # (N, I, K)
    right = (among.argmax(dim=-1) == branch).long()
    return right.masked_fill(branch < 0, ELSEWHERE)


def consistent(scores: Tensor, labels: Tensor, taxonomy: Taxonomy) -> Tensor:
    """(N,) bool: right among the classes and at every node above."""
    path = (decisions(scores, labels, taxonomy) != WRONG).all(dim=1)
    return path & (scores.cpu()[:, taxonomy.leaf_cut].argmax(dim=1) == labels.cpu())


def hierarchical_consistent_accuracy(scores: Tensor, labels: Tensor, taxonomy: Taxonomy) -> float:
    """HCA, a fraction."""
    return consistent(scores, labels, taxonomy).double().mean().item()


def mean_treecut_accuracy(
    scores: Tensor, labels: Tensor, taxonomy: Taxonomy, cuts: Sequence[Tensor] | None = None
) -> float:
    """MTA, a fraction. cuts: treecuts; None: the tree's 25 (fewer where it has fewer)."""
    cuts = taxonomy.sample_cuts() if cuts is None else list(cuts)
    if not cuts:
        raise ValueError("cuts=[] must have at least one treecut")
    return sum(treecut_accuracy(scores, labels, taxonomy, cut) for cut in cuts) / len(cuts)


def _checked(scores: Tensor, labels: Tensor, taxonomy: Taxonomy) -> tuple[Tensor, Tensor]:
    V, L = len(taxonomy.names), taxonomy.num_leaves
    if scores.ndim != 2 or scores.shape[1] != V or labels.shape != scores.shape[:1] or not len(labels):
        shapes = f"{tuple(scores.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"scores must be (N, {V}), one column per node, and labels (N,) with N >= 1, got {shapes}")
    if int(labels.min()) < 0 or int(labels.max()) >= L:
        raise ValueError(f"labels must lie in 0..{L - 1}, got {int(labels.min())}..{int(labels.max())}")
    return scores.detach().cpu(), labels.cpu()
