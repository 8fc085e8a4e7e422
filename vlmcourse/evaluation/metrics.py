"""The numbers of the papers, each in a few lines: top-1, harmonic mean, expected calibration error, mean ± std.

top-1    share of images whose highest score is the right class, over all images (not the mean over classes)
H        2 b n / (b + n), harmonic mean of base and new (CoCoOp, CVPR 2022); in a row of averages, H of the averages
ECE      sum_k n_k / N |accuracy_k - confidence_k| over bins (lo, hi] of equal width of the confidence max_c p_c
         (Guo et al., ICML 2017: 15 bins; C-TPT, ICLR 2024: 20 bins; always say how many)
mean_std standard deviation with ddof 0, as np.std and as the papers' tables
All are fractions of 1; only `format_mean_std` shows percent.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


def top1(logits: Tensor, labels: Tensor) -> float:
    """Top-1 accuracy, a fraction. logits (N, C): any scores where higher is better; labels (N,) integers in 0..C-1."""
    logits, labels = _scores("logits", logits, labels)
    return (logits.argmax(1) == labels).double().mean().item()


def harmonic_mean(base: float, new: float) -> float:
    """H = 2 base new / (base + new); 0 if both are 0. Raises ValueError for negative accuracies."""
    if base < 0 or new < 0:
        raise ValueError(f"base and new must be >= 0, got {base} and {new}")
    return 2 * base * new / (base + new) if base + new else 0.0


class Reliability(NamedTuple):
    """One entry per confidence bin (lo, hi], (bins,) float64 each; accuracy and confidence are means, 0 if empty."""

    edges: Tensor  # (bins + 1,)
    count: Tensor
    accuracy: Tensor
    confidence: Tensor


def reliability(confidence: Tensor, correct: Tensor, bins: int = 15) -> Reliability:
    """What a reliability diagram shows. confidence (N,) in 0..1, correct (N,) of 0/1 or bool."""
    confidence, correct = torch.as_tensor(confidence).double().cpu(), torch.as_tensor(correct).double().cpu()
    if not isinstance(bins, int) or bins < 1:
        raise ValueError(f"bins must be an integer >= 1, got {bins!r}")
    if confidence.ndim != 1 or confidence.shape != correct.shape or not len(confidence):
        shapes = f"{tuple(confidence.shape)} and {tuple(correct.shape)}"
        raise ValueError(f"confidence and correct must both have shape (N,) with N >= 1, got {shapes}")
    if confidence.min() < 0 or confidence.max() > 1 + 1e-6:
        raise ValueError(f"confidence must lie in 0..1, got {confidence.min():.3g}..{confidence.max():.3g}")
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    which = torch.bucketize(confidence, edges[1:-1], right=False)  # (N,), edges[k] < confidence <= edges[k + 1]
    count = torch.bincount(which, minlength=bins).double()
    accuracy = torch.zeros(bins, dtype=torch.float64).index_add(0, which, correct) / count.clamp(min=1)
    mean_confidence = torch.zeros(bins, dtype=torch.float64).index_add(0, which, confidence) / count.clamp(min=1)
    return Reliability(edges, count, accuracy, mean_confidence)


def calibration_error(confidence: Tensor, correct: Tensor, bins: int = 15) -> float:
    """ECE, a fraction, from the confidence (N,) of each prediction and whether it was correct (N,)."""
    _, count, accuracy, mean_confidence = reliability(confidence, correct, bins)
    return ((accuracy - mean_confidence).abs() * count / count.sum()).sum().item()


def ece(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Expected calibration error, a fraction. probabilities (N, C), labels (N,).

    Raises ValueError if the rows do not sum to 1 (logits instead of probabilities).
    """
    probabilities, labels = _scores("probabilities", probabilities, labels)
    if probabilities.min() < 0 or (probabilities.double().sum(1) - 1).abs().max() > 1e-3:
        raise ValueError(
            "probabilities must be >= 0 with rows that sum to 1; these look like logits: apply softmax first"
        )
    confidence, predicted = probabilities.max(1)
    return calibration_error(confidence, predicted == labels, bins)


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (ddof 0: 0 for a single value). Raises ValueError for no values."""
    values = [float(v) for v in values]
    if not values:
        raise ValueError("values must not be empty")
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values))


def format_mean_std(values: Sequence[float], scale: float = 100, digits: int = 1) -> str:
    """ "71.2 ± 0.8" for fractions around 0.712 (scale 100: percent); "71.2" for a single value."""
    mean, std = mean_std(values)
    return f"{scale * mean:.{digits}f}" + (f" ± {scale * std:.{digits}f}" if len(values) > 1 else "")


def _scores(argument: str, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    if scores.ndim != 2 or labels.ndim != 1 or len(scores) != len(labels) or not len(labels):
        shapes = f"{tuple(scores.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"{argument} must be (N, C) and labels (N,) with the same N >= 1, got {shapes}")
    scores, labels = scores.detach().cpu(), labels.cpu()
    if int(labels.min()) < 0 or int(labels.max()) >= scores.shape[1]:
        raise ValueError(f"labels must lie in 0..{scores.shape[1] - 1}, got {int(labels.min())}..{int(labels.max())}")
    if not torch.isfinite(scores).all():
        raise ValueError(f"{argument} must be finite, but {int((~torch.isfinite(scores)).sum())} of them are not")
    return scores, labels
