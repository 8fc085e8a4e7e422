"""Checks of notebooks/6_adapters/23_clip_adapter.ipynb: the adapted feature, its parameters, the choice of a ratio."""

import torch
import torch.nn.functional as F

from vlmcourse.checks.report import attempt, close, report


def check_adapter(function) -> bool:
    """function: (x (B, E), down (R, E), up (E, R), ratio) -> n(ratio A(x) + (1 - ratio) x); x is not normalised."""
    draw = torch.Generator().manual_seed(0)
    x, down, up = (torch.randn(*shape, generator=draw) for shape in ((5, 8), (2, 8), (8, 2)))
    x = 3 * x
    value, problem = attempt(function, x.clone(), down.clone(), up.clone(), 0.3)
    if problem:
        return report(False, "", problem)
    hidden = F.relu(x @ down.T)
    adapted = F.relu(hidden @ up.T)
    expected = F.normalize(0.3 * adapted + 0.7 * x, dim=-1)
    hint = "expected normalise(ratio · relu(relu(x down^T) up^T) + (1 - ratio) · x), one unit row for each image"
    if close(value, 0.3 * adapted + 0.7 * x):
        hint = "this is right but for its length: normalise the blend at the end"
    elif close(value, F.normalize(0.7 * adapted + 0.3 * x, dim=-1)):
        hint = "ratio and 1 - ratio have changed places: the ratio is the share of the adapter"
    elif close(value, F.normalize(0.3 * hidden @ up.T + 0.7 * x, dim=-1)):
        hint = "there is a second ReLU, behind the second matrix"
    elif close(value, F.normalize(0.3 * adapted + x, dim=-1)):
        hint = "the old feature keeps 1 - ratio, not all of itself"
    elif close(value, F.normalize(0.3 * adapted + 0.7 * F.normalize(x, dim=-1), dim=-1)):
        hint = "blend the adapter's output with the x that went in, and normalise only afterwards"
    return report(close(value, expected), "a bend, and a share of the old feature", hint)


def check_parameters(function) -> bool:
    """function: (width, reduction, sides) -> number of learned scalars of the adapters; no biases."""
    for case in ((1024, 4, 1), (256, 4, 1), (256, 4, 2), (512, 8, 2)):
        width, reduction, sides = case
        value, problem = attempt(function, *case)
        if problem:
            return report(False, "", problem)
        expected = sides * 2 * width * (width // reduction)
        if close(value, expected):
            continue
        hint = f"for width {width}, reduction {reduction} and {sides} adapter(s) expected {expected}, got {value!r}"
        if close(value, expected + sides * (width + width // reduction)):
            hint = "CLIP-Adapter's two matrices have no biases"
        elif sides > 1 and close(value, expected / sides):
            hint = "with two sides there are two adapters, one for images and one for text"
        elif close(value, expected / 2):
            hint = "there are two matrices: one goes down to width / reduction, one comes back up"
        return report(False, "", hint)
    return report(True, "half a million for ResNet-50, none of them in the towers", "")


def check_choice(function) -> bool:
    """function: {ratio: [validation accuracies over seeds]} -> the ratio with the best mean, the smallest of equals."""
    tables = ({0.2: [0.5, 0.6], 0.5: [0.7, 0.7], 0.8: [0.9, 0.4]}, {0.8: [0.7, 0.7], 0.2: [0.6, 0.8], 0.5: [0.1, 0.2]})
    for table in tables:
        value, problem = attempt(function, {ratio: list(scores) for ratio, scores in table.items()})
        if problem:
            return report(False, "", problem)
        mean = {ratio: sum(scores) / len(scores) for ratio, scores in table.items()}
        best = min(ratio for ratio in table if mean[ratio] > max(mean.values()) - 1e-9)
        if close(value, best):
            continue
        hint = f"expected the ratio {best:g}, got {value!r}"
        if table is tables[0] and close(value, 0.8):
            hint = "this is the ratio with the best single seed; take the mean over the seeds"
        elif table is tables[1] and close(value, 0.8):
            hint = "two ratios are equally good: take the smaller one, which keeps more of the old feature"
        elif close(value, max(mean.values())):
            hint = "this is the accuracy; return the ratio that has it"
        return report(False, "", hint)
    return report(True, "chosen on validation, and in doubt closer to CLIP", "")
