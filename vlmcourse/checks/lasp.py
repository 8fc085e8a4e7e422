"""Checks of notebooks/3_text_prompts/06_lasp.ipynb: text-to-text loss, text retrieval, averaged groups."""

import torch
import torch.nn.functional as F

from vlmcourse.checks.report import attempt, close, report


def _texts(seed=0, groups=None):
    draw, shape = torch.Generator().manual_seed(seed), (5, 6) if groups is None else (groups, 5, 6)
    learned = F.normalize(torch.randn(*shape, generator=draw), dim=-1)
    return learned, F.normalize(torch.randn(3, 5, 6, generator=draw), dim=-1)


def check_text_to_text(function) -> bool:
    """function: (learned (C, E), hand (K, C, E), s) -> scalar: for each hand-written (k, j) the cross-entropy of
    picking learned prompt j among all C, mean over k and j."""
    learned, hand = _texts()
    learned.requires_grad_()
    value, problem = attempt(function, learned, hand.clone(), 4.0)
    if problem:
        return report(False, "", problem)
    Z = 4 * torch.einsum("ie,kje->kij", learned, hand)  # (K, C learned, C hand)
    target, picked = torch.arange(5).expand(3, -1), -torch.log_softmax(Z, 1).diagonal(dim1=1, dim2=2)
    expected, hint = F.cross_entropy(Z, target), "this is not the mean cross-entropy of the right pairs"
    if not isinstance(value, torch.Tensor) or value.ndim:
        hint = "return one number, a tensor without dimensions: the mean over templates and classes"
    elif close(value, F.cross_entropy(Z.transpose(1, 2), target)):
        hint = "you classify learned prompts among hand-written ones; here each hand-written prompt picks a learned one"
    elif close(value, picked.sum()):
        hint = "this is the sum over templates and classes; take the mean"
    elif close(value, F.cross_entropy(Z / 4, target)):
        hint = "the logit scale s is missing: cosines alone give a nearly flat softmax"
    elif close(value, (1 - Z.diagonal(dim1=1, dim2=2) / 4).mean()):
        hint = "this only pulls pairs together; a cross-entropy also pushes the wrong pairs apart"
    elif close(value, expected) and not value.requires_grad:
        return report(False, "", "the number is right, but no gradient can reach the learned prompts: do not detach")
    return report(close(value, expected), "each hand-written prompt finds its class among the learned ones", hint)


def check_retrieval(function) -> bool:
    """function: (learned (C, E), hand (K, C, E)) -> share of hand-written prompts whose nearest learned one fits."""
    for seed in (5, 9):
        learned, hand = _texts(seed)
        value, problem = attempt(function, learned.clone(), hand.clone())
        if problem:
            return report(False, "", problem)
        cosine = torch.einsum("kje,ie->kji", hand, learned)  # (K, C hand, C learned)
        right = (cosine.argmax(-1) == torch.arange(5)).double()
        other = (cosine.argmax(1) == torch.arange(5)).double().mean()
        hint = f"expected {right.mean():.3f} in a test case: the share of the K·C prompts, as a fraction of 1"
        if close(value, right.sum()):
            hint = "this is the number of right ones; divide by K·C"
        elif close(value, 100 * right.mean(), 1e-2):
            hint = "return a fraction of 1, not percent"
        elif close(value, other) and not close(other, right.mean()):
            hint = "you look for the nearest hand-written prompt of a learned one; it is the other way round"
        if not close(value, right.mean()):
            return report(False, "", hint)
    return report(True, "an accuracy of texts on texts: no image was needed", "")


def check_average(function) -> bool:
    """function: features of G groups (G, C, E), unit length -> (C, E): their mean, with unit length."""
    text, _ = _texts(3, groups=4)
    value, problem = attempt(function, text.clone())
    if problem:
        return report(False, "", problem)
    expected, hint = F.normalize(text.mean(0), dim=-1), "this is not the mean over the groups, normalised per class"
    if not isinstance(value, torch.Tensor) or value.shape != expected.shape:
        got = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        hint = f"expected one feature per class, shape (5, 6), got {got}"
    elif close(value, text.mean(0)):
        hint = "the mean of unit vectors is shorter than 1: normalise again"
    elif close(value, F.normalize(text.mean(0), dim=0)):
        hint = "normalise each class's feature, along the last axis"
    elif close(value, text[0]):
        hint = "this is the first group alone"
    return report(close(value, expected), "an ensemble of prompts, as with hand-written templates", hint)
