"""Checks of notebooks/1_foundations/01_motivation.ipynb: modality gap, finding every object, climbing the tree."""

import torch
import torch.nn.functional as F

from vlmcourse.checks.report import attempt, close, report


def check_modality_gap(function) -> bool:
    """function: image features (N, E), text features (C, E), unit rows -> distance of the two means, a number."""
    generator = torch.Generator().manual_seed(1)
    images = F.normalize(torch.randn(40, 8, generator=generator) + 1, dim=-1)
    texts = F.normalize(torch.randn(25, 8, generator=generator) - 0.5, dim=-1)
    value, problem = attempt(function, images.clone(), texts.clone())
    if problem:
        return report(False, "", problem)
    difference = images.mean(dim=0) - texts.mean(dim=0)
    expected = difference.norm()
    hint = "expected one number: the length of mean image feature minus mean text feature"
    if close(value, difference):
        hint = "that is the vector between the two means; return its length, a single number"
    elif close(value, expected**2, 1e-5):
        hint = "that is the squared length; take the square root, or use .norm()"
    elif close(value, torch.cdist(images, texts).mean()):
        hint = "that is the mean distance of pairs; take the mean of each group first, then one distance"
    elif close(value, (F.normalize(images.mean(0), dim=0) - F.normalize(texts.mean(0), dim=0)).norm()):
        hint = "you normalised the means; the gap of Liang et al. is between the plain means"
    return report(close(value, expected), "the distance between the two centres", hint)


def check_all_found(function) -> bool:
    """function: scores (B, C), present (B, C) bool -> share of scenes whose m objects are exactly the top m names."""
    scores = torch.tensor([[9.0, 8, 1, 0, 2], [9.0, 1, 8, 0, 2], [5.0, 1, 2, 9, 8], [3.0, 9, 8, 7, 1]])
    present = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 1, 0], [0, 1, 1, 1, 0]], dtype=torch.bool)
    value, problem = attempt(function, scores.clone(), present.clone())
    if problem:
        return report(False, "", problem)
    expected, recall = 0.75, (1 + 0.5 + 1 + 1) / 4
    hint = f"for four small scenes with 2, 2, 1 and 3 objects the share is {expected}, yours is {value}"
    if close(value, recall):
        hint = "you averaged the share of objects found; a scene counts only if *all* its objects are found"
    elif close(value, 1.0):
        hint = "the first name being present is not enough: look at as many names as there are objects"
    elif close(value, 0.5):
        hint = "scenes may have different numbers of objects: take m from present.sum(dim=1), scene by scene"
    return report(close(value, expected), "a scene counts only if every object is found", hint)


def check_group_probability(function) -> bool:
    """function: concept probabilities (B, C), parent (C,) group of each concept, number of groups G -> (B, G)."""
    probability = torch.tensor([[0.30, 0.25, 0.25, 0.20, 0.0], [0.05, 0.05, 0.1, 0.1, 0.7]])
    parent = torch.tensor([0, 1, 1, 2, 0])
    value, problem = attempt(function, probability.clone(), parent.clone(), 3)
    if problem:
        return report(False, "", problem)
    expected = torch.tensor([[0.30, 0.50, 0.20], [0.75, 0.15, 0.10]])
    shape = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
    hint = f"expected a tensor of shape (B, G) = (2, 3), got {shape}"
    if shape == (2, 3):
        hint = "each group's probability is the sum over its concepts; your numbers differ"
        best = torch.stack([probability[:, parent == g].amax(dim=1) for g in range(3)], dim=1)
        mean = torch.stack([probability[:, parent == g].mean(dim=1) for g in range(3)], dim=1)
        if close(value, best):
            hint = "you took the largest concept of each group; exclusive events add up, so take the sum"
        elif close(value, mean):
            hint = "you took the mean; then large groups lose, and the rows do not sum to 1: take the sum"
    return report(close(value, expected), "the probability of a group is the sum over its concepts", hint)
