"""Metrics for several labels per image. scores (N, C), labels (N, C) of 1 (there) and 0 (not); fractions of 1.

AP_c     images sorted by the score of class c; mean over those that show it of the precision at their rank (the area
         under the precision-recall curve without interpolation; not VOC 2007's 11 points)
mAP      plain mean of AP_c; a class that no image shows counts as 0, as in the official codes of DualCoOp and TaI-DPT
CP, CR   mean over classes of TP_c / (TP_c + FP_c) and TP_c / (TP_c + FN_c); 0 / 0 counts as 0
CF1      2 CP CR / (CP + CR)          (DualCoOp's code prints the mean of the classes' F1 instead: `mean_f1`)
OP, OR   the same with TP, FP, FN summed over all classes; OF1 their harmonic mean
Predicted is either what has a probability above a threshold, or, with `top`, the k highest scores of each image
("F1@k", of zero-shot recognition: OP, OR, OF1 at k). Labels that are unknown (-1) leave every count.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from vlmcourse.evaluation.metrics import harmonic_mean

TOP = 3


def average_precision(scores: Tensor, labels: Tensor) -> Tensor:
    """AP of each class, (C,) float64; 0 for a class without positives. Equal scores share one rank: the last one."""
    scores, labels = _checked(scores, labels)
    result = torch.zeros(scores.shape[1], dtype=torch.float64)
    for c in range(scores.shape[1]):
        known = labels[:, c] >= 0
        s, y = scores[known, c], labels[known, c].double()
        if y.sum() == 0:
            continue
        order = s.argsort(descending=True)
        s, y = s[order], y[order]
        last = torch.cat([s[1:] != s[:-1], torch.ones(1, dtype=torch.bool)])  # where a block of equal scores ends
        hits, rank = y.cumsum(0)[last], torch.arange(1, len(s) + 1)[last]
        new = torch.diff(hits, prepend=torch.zeros(1, dtype=torch.float64))
        result[c] = (hits / rank * new).sum() / y.sum()
    return result


def mean_average_precision(scores: Tensor, labels: Tensor) -> float:
    """mAP, a fraction of 1."""
    return average_precision(scores, labels).mean().item()


class F1(NamedTuple):
    """Precision, recall and F1 over classes (cp, cr, cf1) and over all labels (op, or_, of1); mean_f1: see above."""

    cp: float
    cr: float
    cf1: float
    op: float
    or_: float
    of1: float
    mean_f1: float


def f1_scores(scores: Tensor, labels: Tensor, *, threshold: float | None = None, top: int | None = None) -> F1:
    """Either threshold (predicted: score > threshold) or top (predicted: the k highest scores of each image)."""
    scores, labels = _checked(scores, labels)
    if (threshold is None) == (top is None):
        raise ValueError(f"give either threshold or top, got threshold={threshold!r} and top={top!r}")
    if top is not None and not 1 <= top <= scores.shape[1]:
        raise ValueError(f"top={top!r} must be between 1 and the number of classes, {scores.shape[1]}")
    if top is None:
        predicted = scores > threshold
    else:
        predicted = torch.zeros_like(scores, dtype=torch.bool).scatter(1, scores.topk(top, dim=1).indices, True)
    hit = (predicted & (labels == 1)).sum(0).double()  # (C,) each
    false, missed = (predicted & (labels == 0)).sum(0).double(), (~predicted & (labels == 1)).sum(0).double()
    cp, cr = _ratio(hit, hit + false).mean().item(), _ratio(hit, hit + missed).mean().item()
    op, or_ = (_ratio(hit.sum(), hit.sum() + other.sum()).item() for other in (false, missed))
    mean_f1 = _ratio(2 * hit, 2 * hit + false + missed).mean().item()
    return F1(cp, cr, harmonic_mean(cp, cr), op, or_, harmonic_mean(op, or_), mean_f1)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole.clamp(min=1), 0.0)


def _checked(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    if scores.ndim != 2 or scores.shape != labels.shape or not len(scores):
        raise ValueError(
            f"scores and labels must both be (N, C) with N >= 1, got {tuple(scores.shape)} and {tuple(labels.shape)}"
        )
    scores, labels = scores.detach().cpu(), labels.cpu().long()
    if not torch.isfinite(scores).all():
        raise ValueError("scores must be finite")
    if not torch.isin(labels, torch.tensor([-1, 0, 1])).all():
        raise ValueError(f"labels must be 1, 0 or -1 (unknown), got {labels.unique().tolist()}")
    return scores, labels
