"""Checks of notebooks/7_other_methods/32_which_other_method_when.ipynb: what one may use, and beating surely."""

from vlmcourse.checks.report import attempt, report

ORDER = ("outputs", "inputs", "internals", "weights")  # each allows what stands before it
NEEDS = {"zero_shot": "outputs", "coop": "inputs", "calip": "internals", "wise_ft": "weights", "taskres": "outputs"}
PAIRS = (([0.7, 0.8], [0.6, 0.7], True), ([0.7, 0.6], [0.6, 0.7], False), ([0.7, 0.7], [0.7, 0.6], False))


def check_allowed(function) -> bool:
    """function: (needs {method: what it needs}, given) -> the methods that one may use with that access."""
    for given in ORDER:
        value, problem = attempt(function, dict(NEEDS), given)
        if problem:
            return report(False, "", problem)
        expected = {name for name, need in NEEDS.items() if ORDER.index(need) <= ORDER.index(given)}
        try:
            got = set(value)
        except TypeError:
            return report(False, "", f"return a collection of names, not {type(value).__name__}")
        if got != expected:
            exact = {name for name, need in NEEDS.items() if need == given}
            why = "; who may change weights may also look at outputs" if got == exact else ""
            return report(False, "", f"with {given!r} one may use {sorted(expected)}, got {sorted(map(str, got))}{why}")
    return report(True, "access decides before accuracy does", "")


def check_always_ahead(function) -> bool:
    """function: (a, b), accuracies on the same seeds -> whether a is ahead of b on every seed."""
    for a, b, expected in PAIRS:
        value, problem = attempt(function, list(a), list(b))
        if problem:
            return report(False, "", problem)
        if not isinstance(value, bool | int) or bool(value) != expected:
            why = "a tie is no win" if 0 in [x - y for x, y in zip(a, b, strict=True)] else "compare seed by seed"
            return report(False, "", f"for {a} and {b} the answer is {expected}, got {value}: {why}")
    return report(True, "ahead on every seed, ties excluded", "")
