"""Checks of notebooks/7_other_methods/27_maskclip.ipynb: the value path, denoising by the best position, mIoU."""

import torch

from vlmcourse.checks.report import attempt, close, report


def check_score_maps(function) -> bool:
    """function: (dense (B, E, h, w), text (C, E)) -> cosines (B, C, h, w); neither is normalised."""
    draw = torch.Generator().manual_seed(0)
    dense, text = 3 * torch.randn(2, 5, 3, 4, generator=draw), torch.randn(6, 5, generator=draw)
    value, problem = attempt(function, dense.clone(), text.clone())
    if problem:
        return report(False, "", problem)
    d, t = torch.nn.functional.normalize(dense, dim=1), torch.nn.functional.normalize(text, dim=1)
    expected = torch.einsum("behw,ce->bchw", d, t)
    hint = "expected (B, C, h, w): at every position the cosine of its feature with each text"
    if close(value, torch.einsum("behw,ce->bchw", dense, text)):
        hint = "these are products; a cosine needs unit vectors, along E in both"
    elif close(value, torch.einsum("behw,ce->bchw", torch.nn.functional.normalize(dense, dim=-1), t)):
        hint = "normalise the dense features along their channels, dim=1, not along the last axis"
    elif close(value, expected.argmax(1)):
        hint = "return the maps of all classes; the argmax comes after they are enlarged"
    return report(close(value, expected), "one cosine for each text and position", hint)


def check_denoise(function) -> bool:
    """function: (scores (C, P), pd, scale) -> scores, with -100 for classes that nowhere reach probability pd."""
    scores = torch.tensor([[0.3, 0.1, 0.1], [0.1, 0.2, 0.1], [0.0, 0.15, 0.12]])
    for scale, pd in ((20.0, 0.6), (20.0, 0.9), (1.0, 0.9)):
        value, problem = attempt(function, scores.clone(), pd, scale)
        if problem:
            return report(False, "", problem)
        probabilities = (scale * scores).softmax(0)
        expected = torch.where(probabilities.amax(1, keepdim=True) >= pd, scores, torch.full_like(scores, -100.0))
        if close(value, expected):
            continue
        hint = "expected the scores of a class as they are if its probability reaches pd somewhere, else -100"
        over_positions = (scale * scores).softmax(1).amax(1, keepdim=True)
        if close(value, torch.where(probabilities >= pd, scores, torch.full_like(scores, -100.0))):
            hint = "a class is kept or dropped as a whole: take the maximum over the positions"
        elif close(value, torch.where(over_positions >= pd, scores, torch.full_like(scores, -100.0))):
            hint = "the softmax runs over the classes, dim=0"
        elif close(value, torch.where(probabilities.amax(1, keepdim=True) >= pd, probabilities, -100.0)):
            hint = "return the scores that are kept, not their probabilities"
        return report(False, "", hint)
    return report(True, "a class that is sure nowhere is dropped everywhere", "")


def check_iou(function) -> bool:
    """function: (predicted, labels, classes) -> IoU (C,) over all pixels that are not 255."""
    predicted, labels = torch.tensor([[0, 0, 1], [1, 2, 2]]), torch.tensor([[0, 1, 1], [1, 2, 255]])
    value, problem = attempt(function, predicted, labels, 3)
    if problem:
        return report(False, "", problem)
    expected, hint = torch.tensor([1 / 2, 2 / 3, 1.0]), "expected intersection / union per class, three numbers"
    if close(value, torch.tensor([0.5, 2 / 3, 0.5])):
        hint = "pixels labelled 255 belong to nobody: leave them out of the prediction, too"
    elif close(value, expected.mean()):
        hint = "this is their mean already; return one number per class"
    elif close(value, torch.tensor([1.0, 2 / 3, 1.0])):
        hint = "this is the share of each class that was found; the union also has what was wrongly given to it"
    return report(close(value, expected), "invented pixels and missed ones both cost", hint)
