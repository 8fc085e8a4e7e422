"""Checks of the exercises in the notebook on setups, protocols and baselines.

    check_average_row(fn)        fn(base, new) -> (base, new, h) of the "average" row of a base-to-new table
    check_crossing(fn)           fn(shots, probe, zero_shot) -> shots where the probe reaches zero-shot, log2 axis
    check_select_confident(fn)   fn(probabilities (N, C), k) -> sorted indices, the k surest of each predicted class
Each prints one line and returns whether the attempt is right; none raises.
"""

import math

import torch

from vlmcourse.checks.report import attempt, close, report


def check_average_row(fn) -> bool:
    """Whether fn averages base and new over the data sets and takes H of these two averages."""
    base, new = [0.9, 0.8, 0.4], [0.2, 0.9, 0.4]
    b, n = sum(base) / 3, sum(new) / 3
    each = [2 * x * y / (x + y) for x, y in zip(base, new, strict=True)]
    mistakes = {
        "this is the mean of the three Hs; the papers' average row has H of the averaged base and new": sum(each) / 3,
        "this is the arithmetic mean (base + new) / 2; H is 2·base·new / (base + new)": (b + n) / 2,
        "this is the geometric mean √(base·new); H is 2·base·new / (base + new)": math.sqrt(b * n),
        "the factor 2 is missing: H of two equal numbers is that number": b * n / (b + n),
    }
    value, problem = attempt(fn, list(base), list(new))
    if problem is None:
        row = _numbers(value)
        if row is None or len(row) != 3:
            problem = f"return three numbers (base, new, h), not {_short(value)}"
        elif not close(row[:2], [b, n]):
            problem = f"base and new of the row are plain means over the data sets: {b:.4f} and {n:.4f} here"
        elif not close(row[2], 2 * b * n / (b + n)):
            problem = next((hint for hint, wrong in mistakes.items() if close(row[2], wrong)), None)
            problem = problem or f"h of this test case is {2 * b * n / (b + n):.4f}, you return {row[2]:.4f}"
    if problem is None:
        zeros = _numbers(attempt(fn, [0.0, 0.0], [0.5, 0.5])[0])
        if zeros is None or len(zeros) != 3 or not close(zeros[2], 0.0):
            problem = "if one of the two averages is 0, H is 0; that must work, too"
    return report(problem is None, "the average row as the papers build it", problem or "")


def check_crossing(fn) -> bool:
    """Whether fn finds the first crossing, interpolates on a log2 axis, and answers at both ends of the axis."""
    shots = [1, 2, 4, 8, 16]
    value, problem = attempt(fn, shots, [0.2, 0.3, 0.5, 0.7, 0.8], 0.6)
    mistakes = {
        "8 is the first measured point above zero-shot; interpolate between it and the point before": 8.0,
        "4 is the last point below zero-shot; interpolate between it and the next point": 4.0,
        "this interpolates in K; the axis doubles at every step, so interpolate in log2 K": 6.0,
        "this is log2 K; raise 2 to it": 2.5,
    }
    if problem is None and not close(value, 2**2.5, 1e-3):
        problem = next((hint for hint, wrong in mistakes.items() if close(value, wrong, 1e-3)), None)
        problem = problem or f"halfway between 4 and 8 shots on a log2 axis lies {2**2.5:.3f}, not {_short(value)}"
    cases = (
        ([0.6, 0.7, 0.8, 0.8, 0.9], 0.5, 1.0, "a probe that is ahead from the first point on crosses at that point"),
        ([0.1, 0.2, 0.3, 0.3, 0.4], 0.5, math.inf, "a probe that never gets there crosses at infinity: math.inf"),
        ([0.1, 0.5, 0.6, 0.6, 0.7], 0.5, 2.0, "reaching zero-shot exactly counts as crossing"),
        ([0.1, 0.5, 0.3, 0.7, 0.9], 0.4, 2**0.75, "there are two crossings in this case; the first one is asked for"),
    )
    for probe, zero_shot, right, hint in cases:
        if problem is None:
            value, problem = attempt(fn, shots, probe, zero_shot)
            problem = problem or (None if _equal(value, right) else hint)
    return report(problem is None, "the number of shots at which labels beat words", problem or "")


def check_select_confident(fn) -> bool:
    """Whether fn keeps the k most confident images of every predicted class, and no image under another class."""
    p = torch.tensor([[0.9, 0.05, 0.05], [0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.4, 0.35, 0.25]])
    q = torch.tensor(
        [[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.3, 0.1, 0.6], [0.0, 0.9, 0.1], [0.6, 0.3, 0.1], [0.0, 0.7, 0.3]]
    )
    cases = (
        (p, 2, [0, 1, 3], {
            "you select down each column: image 2 enters class 1, though it is predicted as class 0": [0, 1, 2, 3, 4],
            "these are the two most confident images of all; every predicted class may have k": [0, 1],
            "this keeps every image; only the k most confident of each predicted class stay": [0, 1, 2, 3, 4],
        }),
        (q, 1, [2, 3, 4], {}),
        (q, 9, [0, 1, 2, 3, 4, 5], {}),
    )  # fmt: skip
    problem = None
    for probabilities, k, right, mistakes in cases:
        value, problem = attempt(fn, probabilities.clone(), k)
        got = None if problem else _numbers(value)
        if problem is None and got is None:
            problem = f"return the indices as a tensor or a list of integers, not {_short(value)}"
        elif problem is None and got != right:
            problem = next((hint for hint, wrong in mistakes.items() if sorted(got) == wrong), None)
            problem = problem or (
                "the right images, but not in increasing order: sort the indices"
                if sorted(got) == right
                else f"with k = {k} I expected the images {right} in a test case, you return {got}"
            )
        if problem is not None:
            break
    return report(problem is None, "the most confident images of every predicted class", problem or "")


def _numbers(value) -> list[float] | None:
    """The attempt's answer as a flat list of numbers; None where it is something else."""
    try:
        return torch.as_tensor(value).detach().double().flatten().tolist()
    except (TypeError, ValueError, RuntimeError):
        return None


def _equal(value, right: float) -> bool:
    numbers = _numbers(value)
    if numbers is None or len(numbers) != 1:
        return False
    return numbers[0] == right or abs(numbers[0] - right) < 1e-3


def _short(value) -> str:
    text = repr(value)
    return text if len(text) < 60 else type(value).__name__
