"""Checks of notebooks/1_foundations/00_quick_start.ipynb: ensembled class features, retrieval, choice of a template."""

import torch
import torch.nn.functional as F

from vlmcourse.checks.report import attempt, close, report

TEMPLATES = ("{} and a rocket", "an icon of a {}", "not a {}, but something else", "a picture of a {}")


def check_ensemble(function) -> bool:
    """function: raw text features (K, E) of one class, from K templates -> its weight (E,), of length 1."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(5, 16, generator=generator) * torch.tensor([1.0, 5.0, 0.2, 3.0, 10.0])[:, None]
    value, problem = attempt(function, features.clone())
    expected = F.normalize(F.normalize(features, dim=-1).mean(dim=0), dim=-1)
    if problem:
        return report(False, "", problem)
    if not isinstance(value, torch.Tensor) or value.shape != expected.shape:
        shape = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        return report(False, "", f"expected a tensor of shape (E,) = (16,), got {shape}; average over the K templates")
    hint = "the direction is not right: normalise each feature, take the mean over dim 0, normalise the mean"
    if close(value, F.normalize(features.mean(dim=0), dim=-1)):
        hint = "long features weigh more in your mean: normalise each of the K features before you average"
    elif close(F.normalize(value, dim=-1), expected):
        hint = f"the direction is right, but its length is {float(value.norm()):.2f}: normalise once more at the end"
    return report(close(value, expected), "one unit vector per class, and every template has the same say", hint)


def check_recall(function) -> bool:
    """function: similarity (N, N), row and column i belong together, and k -> share of rows with it in their top k."""
    similarity = torch.tensor([[0.9, 0.2, 0.1, 0.3], [0.8, 0.7, 0.6, 0.1], [0.5, 0.6, 0.4, 0.3], [0.7, 0.2, 0.1, 0.6]])
    expected, other = ({k: _recall(matrix, k) for k in (1, 2, 3)} for matrix in (similarity, similarity.T))
    got = {}
    for k in expected:
        value, problem = attempt(function, similarity.clone(), k)
        if problem:
            return report(False, "", problem)
        got[k] = value
    hint = f"for a 4 x 4 example and k = 1, 2, 3 the shares are {[expected[k] for k in expected]}, yours differ"
    if all(close(got[k], other[k]) for k in got):
        hint = "you ranked the images of each caption (columns); rank the captions of each image (rows, dim 1)"
    elif close(got[1], expected[1]) and not close(got[2], expected[2]):
        hint = "k = 1 is right, k = 2 is not: look for the own caption among all of topk(k).indices, not only the first"
    elif all(close(got[k], 4 * expected[k]) for k in got):
        hint = "you counted hits; divide by the number of images"
    passed = all(close(got[k], expected[k]) for k in got)
    return report(passed, "right for k = 1, 2 and 3", hint)


def check_choose_template(function, backbone, task) -> bool:
    """function: (backbone, task, templates) -> the template with the best zero-shot accuracy on task.val."""
    from vlmcourse.methods.baselines.zero_shot import ZeroShot

    value, problem = attempt(function, backbone, task, TEMPLATES)
    if problem:
        return report(False, "", problem)
    if value not in TEMPLATES:
        return report(False, "", f"return one of the templates that were given, not {value!r}")
    scores = {t: ZeroShot(backbone, templates=t).fit(task.val).score(task.val) for t in TEMPLATES}
    best = max(scores.values())
    hint = f"{value!r} is not the best of the four on task.val; score each with ZeroShot(backbone, templates=t)"
    praise = f"{value!r} was chosen on validation; the test images were not touched"
    return report(scores[value] >= best - 1e-9, praise, hint)


def _recall(similarity: torch.Tensor, k: int) -> float:
    """Share of rows whose own column is among their k largest entries."""
    top = similarity.topk(k, dim=1).indices
    return (top == torch.arange(len(similarity))[:, None]).any(dim=1).float().mean().item()
