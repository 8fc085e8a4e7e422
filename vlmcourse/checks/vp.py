"""Checks of notebooks/4_visual_prompts/17_vp.ipynb: the frame, its learned numbers, a label map from data."""

import torch

from vlmcourse.checks.report import attempt, close, report


def check_frame(function) -> bool:
    """function: (up, down (3, p, S), left, right (3, S - 2p, p)) -> (3, S, S), 0 in the middle."""
    draw = torch.Generator().manual_seed(0)
    S, p = 6, 2
    up, down = (torch.randn(3, p, S, generator=draw, requires_grad=True) for _ in range(2))
    left, right = (torch.randn(3, S - 2 * p, p, generator=draw, requires_grad=True) for _ in range(2))
    value, problem = attempt(function, up, down, left, right)
    if problem:
        return report(False, "", problem)

    def frame(top, bottom, first, last):
        middle = torch.cat([first, torch.zeros(3, S - 2 * p, S - 2 * p), last], dim=2)
        return torch.cat([top, middle, bottom], dim=1)

    if close(value, frame(up, down, left, right)):
        wanted = isinstance(value, torch.Tensor) and value.requires_grad
        return report(wanted, "a picture made of four strips", "no gradient reaches the strips: do not detach them")
    hint = "expected (3, S, S): up over [left, zeros, right] over down"
    shape = tuple(getattr(value, "shape", ()))
    if shape and shape != (3, S, S):
        hint = f"the result has shape {shape}, expected {(3, S, S)}: rows are axis 1, columns axis 2"
    elif close(value, frame(down, up, left, right)):
        hint = "up and down are exchanged"
    elif close(value, frame(up, down, right, left)):
        hint = "left and right are exchanged"
    elif shape and isinstance(value, torch.Tensor) and value[:, p:-p, p:-p].abs().sum() > 0:
        hint = "the middle must be 0"
    return report(False, "", hint)


def check_numbers(function) -> bool:
    """function: (design, p, S) -> how many numbers are learned."""
    for S, p in ((224, 30), (64, 24), (10, 5)):
        for design in ("padding", "fixed_patch", "random_patch"):
            expected = 6 * p * (2 * S - 2 * p) if design == "padding" else 3 * p * p
            value, problem = attempt(function, design, p, S)
            if problem:
                return report(False, "", problem)
            if close(value, expected):
                continue
            hint = f"{design!r} with p = {p} at {S} pixels learns {expected:,} numbers, you say {value!r}"
            if design == "padding" and close(value, 12 * p * S):
                hint = "the corners are counted twice: left and right only have S - 2p rows"
            elif close(value, expected / 3):
                hint = "every pixel has three colours"
            return report(False, "", hint)
    return report(True, "69,840 for the paper's frame, 2,700 for its patches", "")


def check_label_map(function) -> bool:
    """function: (outputs (N, K), labels (N,), C) -> C outputs: for class c, the one most often largest on its images.

    Classes choose in their order; an output that is taken is not available to later classes.
    """
    outputs = torch.zeros(9, 5)
    winners = torch.tensor([3, 3, 1, 3, 3, 0, 4, 4, 2])
    outputs[torch.arange(9), winners] = 1.0
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    value, problem = attempt(function, outputs, labels, 3)
    if problem:
        return report(False, "", problem)
    if close(value, torch.tensor([3, 0, 4])):
        return report(True, "classes read the outputs that already answer to them", "")
    hint = "expected [3, 0, 4] for the example: class 0 takes 3, so class 1, which also wants 3, takes its next, 0"
    if close(value, torch.tensor([3, 3, 4])):
        hint = "two classes read the same output: one that is taken must not be chosen again"
    elif close(value, torch.tensor([0, 1, 2])):
        hint = "this is the paper's hard-coded map; let the training images choose"
    return report(False, "", hint)
