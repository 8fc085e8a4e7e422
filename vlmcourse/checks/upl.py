"""Checks of notebooks/3_text_prompts/15_upl.ipynb: top K per predicted class, R runs as one classifier, teachers."""

import torch
import torch.nn.functional as F

from vlmcourse.checks.report import attempt, close, report

TOY = [[0.9, 0.05, 0.05], [0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.4, 0.35, 0.25]]


def top_k(P, k):
    """{image: class} of the k most confident images per predicted class: what `check_top_k` expects."""
    confidence, label = P.max(dim=1)
    chosen = {}
    for c in range(P.shape[1]):
        members = [i for i in confidence.argsort(descending=True, stable=True).tolist() if label[i] == c]
        chosen |= dict.fromkeys(members[:k], c)
    return chosen


def check_top_k(function) -> bool:
    """function: (P (N, C), k) -> {image: class}, the k most confident images of each predicted class."""
    draw = 2 * torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    for P, k in ((torch.tensor(TOY), 2), (draw.softmax(dim=1), 3), (draw.softmax(dim=1), 1)):
        value, problem = attempt(function, P.clone(), k)
        if problem:
            return report(False, "", problem)
        if not isinstance(value, dict):
            return report(False, "", f"return a dictionary {{image: class}}, not {type(value).__name__}")
        try:
            got = {int(i): int(c) for i, c in value.items()}
        except (TypeError, ValueError):
            return report(False, "", "keys and values must be whole numbers: {image: class}")
        if got != top_k(P, k):
            return report(False, "", _why_not_top_k(got, P, k))
    return report(True, "at most K per class, each image under its own argmax, and rare classes stay small", "")


def _why_not_top_k(got, P, k):
    confidence, label = P.max(dim=1)
    wrong = [i for i, c in got.items() if not 0 <= i < len(P) or c != int(label[i])]
    if wrong:
        i = wrong[0]
        return (
            f"image {i} got class {got[i]}, but an image may only be chosen under its own argmax: go through the "
            "images of each predicted class, not through the columns"
        )
    counts = torch.bincount(torch.tensor(list(got.values()), dtype=torch.long), minlength=P.shape[1])
    if int(counts.max()) > k:
        return f"class {int(counts.argmax())} got {int(counts.max())} images, at most k = {k} are allowed"
    if len(got) < len(top_k(P, k)):
        return f"expected {len(top_k(P, k))} images, got {len(got)}: each predicted class gives up to k = {k}"
    return "the images of a class are not its most confident ones: sort by max(P), largest first"


def check_one_classifier(function) -> bool:
    """function: (text (R, C, E)) -> (C, E): one classifier whose logits are the mean of those of the R runs."""
    generator = torch.Generator().manual_seed(0)
    text = F.normalize(torch.randn(3, 4, 6, generator=generator), dim=-1)
    value, problem = attempt(function, text.clone())
    if problem:
        return report(False, "", problem)
    hint = "f @ value.T must equal the mean over r of f @ text[r].T, for every f"
    if close(value, F.normalize(text.mean(0), dim=-1)):
        hint = "you normalised the mean: then a class on which the runs disagree gets larger logits than their mean"
    elif close(value, text.sum(0)):
        hint = "this is the sum over the runs; the argmax is the same, the logits are R times too large"
    elif isinstance(value, torch.Tensor) and value.shape != text.shape[1:]:
        hint = f"expected one classifier of shape (C, E) = {tuple(text.shape[1:])}, got {tuple(value.shape)}"
    return report(close(value, text.mean(0)), "R runs cost no more than one when they predict", hint)


def check_teachers(function) -> bool:
    """function: (logits (T, N, C)) -> (N,) long, the pseudo-labels of T teachers together (UPL*)."""
    first = [[[4.0, 0, 3], [1, 0, 0]], [[0, 3, 2.5], [2, 0, 1]]]
    cases = [torch.tensor(first), 3 * torch.randn(4, 50, 5, generator=torch.Generator().manual_seed(0))]
    for logits in cases:
        value, problem = attempt(function, logits.clone())
        if problem:
            return report(False, "", problem)
        expected = logits.softmax(dim=-1).mean(dim=0).argmax(dim=-1)
        if close(value, expected):
            continue
        hint = f"expected one label per image, shape {tuple(expected.shape)}: softmax, mean over teachers, argmax"
        if close(value, logits.mean(dim=0).argmax(dim=-1)):
            hint = "you averaged logits: a teacher with large logits then outvotes the others; average probabilities"
        elif close(value, logits.softmax(dim=-1).mean(dim=0)):
            hint = "these are the mean probabilities; return the class of the largest for each image"
        return report(False, "", hint)
    return report(True, "every teacher has one vote of the same weight", "")
