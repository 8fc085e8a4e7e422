"""Checks of notebooks/3_text_prompts/16_which_text_prompt_when.ipynb: the frontier, and a paired comparison."""

from vlmcourse.checks.report import attempt, close, report
from vlmcourse.show.chapter import frontier

CASES = (
    {"a": (1.0, 5.0), "b": (2.0, 7.0), "c": (3.0, 6.0)},  # c is beaten by b
    {"a": (1.0, 5.0), "b": (1.0, 4.0), "c": (0.5, -1.0)},  # equal cost, less gain
    {"a": (2.0, 3.0), "b": (2.0, 3.0), "c": (4.0, 3.0)},  # two equal points both stay
)


def check_frontier(function) -> bool:
    """function: {name: (cost, gain)} -> the names that no other point beats, in any order."""
    for points in CASES:
        value, problem = attempt(function, dict(points))
        if problem:
            return report(False, "", problem)
        expected = set(frontier(points))
        try:
            got = set(value)
        except TypeError:
            return report(False, "", f"return a collection of names, not {type(value).__name__}")
        if got - set(points):
            return report(False, "", f"return names only; {sorted(map(str, got - set(points)))} are none")
        if got != expected:
            hint = f"for {points} the frontier is {sorted(expected)}, got {sorted(got)}"
            if expected - got and len({points[name] for name in expected}) < len(expected):
                hint += "; equal points do not beat each other: one of the two numbers must be strictly better"
            elif expected - got:
                hint += "; a cheap method with little gain stays, unless another is as cheap and gains as much"
            return report(False, "", hint)
    return report(True, "the methods that nobody beats in both cost and gain", "")


def check_paired(function) -> bool:
    """function: (a, b), accuracies of two methods on the same seeds -> (mean of a - b, share of seeds with a > b)."""
    for a, b in (([0.7, 0.8, 0.9], [0.6, 0.75, 0.95]), ([0.5, 0.5], [0.5, 0.4]), ([0.2, 0.9, 0.4, 0.6], [0.3] * 4)):
        value, problem = attempt(function, list(a), list(b))
        if problem:
            return report(False, "", problem)
        if not isinstance(value, tuple | list) or len(value) != 2:
            return report(False, "", "return two numbers: the mean difference and the share of seeds with a > b")
        differences = [x - y for x, y in zip(a, b, strict=True)]
        mean, share = sum(differences) / len(a), sum(d > 0 for d in differences) / len(a)
        if not close(value[0], mean, 1e-6):
            sign = "; its sign is turned: a minus b" if close(value[0], -mean, 1e-6) and mean else ""
            return report(False, "", f"the mean difference of {a} and {b} is {mean:.4f}, got {value[0]}{sign}")
        if not close(value[1], share, 1e-6):
            tie = "; a tie is no win" if any(d == 0 for d in differences) else ""
            return report(False, "", f"a is ahead of b on {share:.0%} of the seeds of {a} and {b}, got {value[1]}{tie}")
    return report(True, "the same draws, compared one by one", "")
