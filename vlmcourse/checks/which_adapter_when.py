"""Checks of notebooks/6_adapters/25_which_adapter_when.ipynb: what of a gain survives a shift, and what is stored."""

import math

from vlmcourse.checks.report import attempt, close, report

KEPT = (
    ((0.25, 0.75, 0.20, 0.50), 0.6),  # zero-shot and method on the task, then under shift
    ((0.40, 0.80, 0.30, 0.30), 0.0),
    ((0.50, 0.60, 0.50, 0.40), -1.0),  # a gain that turned into a loss
)
SIZES = ((10, 16, 256, 4), (20, 1, 64, 8))  # C, K, E, r


def check_kept(function) -> bool:
    """function: (zero, method, zero_shifted, method_shifted) -> share of the gain that is left under shift."""
    for given, expected in KEPT:
        value, problem = attempt(function, *given)
        if problem:
            return report(False, "", problem)
        if close(value, given[3] / given[1], 1e-6):
            return report(False, "", "that is the accuracy that is left; ask for the gain over zero-shot that is left")
        if close(value, expected, 1e-6):
            continue
        return report(False, "", f"for {given} the share is {expected:.1f}, got {value}")
    value, problem = attempt(function, 0.5, 0.5, 0.4, 0.6)
    if problem:
        return report(
            False, "", f"no gain at all: return nan, there is nothing of which a share could be left ({problem})"
        )
    if not (isinstance(value, float) and math.isnan(value)):
        return report(False, "", f"no gain at all: return float('nan'), got {value}")
    return report(True, "the gain over zero-shot on the task, and how much of it is still there under shift", "")


def check_stored(function) -> bool:
    """function: (C, K, E, r) -> {"prompts", "linear_probe", "clip_adapter", "tip_adapter"}: how many numbers have to be
    kept for prediction, class texts included where they are used."""
    for C, K, E, r in SIZES:
        value, problem = attempt(function, C, K, E, r)
        if problem:
            return report(False, "", problem)
        if not isinstance(value, dict):
            return report(False, "", f"return a dictionary of four numbers, not {type(value).__name__}")
        expected = {
            "prompts": C * E,
            "linear_probe": C * E + C,
            "clip_adapter": C * E + 2 * E * (E // r),
            "tip_adapter": C * E + C * K * E + C * K,
        }
        if set(value) != set(expected):
            return report(False, "", f"the names must be {', '.join(expected)}, got {', '.join(map(str, value))}")
        for name, want in expected.items():
            if not close(value[name], want, 1e-6):
                hints = {
                    "prompts": "after training a prompt is its C class texts, and nothing else is needed",
                    "linear_probe": "weight (C, E) and bias (C,)",
                    "clip_adapter": "the class texts, and two matrices of E times E/r without biases",
                    "tip_adapter": "the class texts, C K keys of length E, and one label for each key",
                }
                return report(
                    False, "", f"{name}, C={C}, K={K}, E={E}, r={r}: {hints[name]} ({want}, got {value[name]})"
                )
    return report(True, "a cache grows with the shots, the others do not", "")
