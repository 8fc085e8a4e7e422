"""Checks of notebooks/5_text_visual_prompts/22_which_visual_prompt_when.ipynb: counting prompts, and the worst case."""

from vlmcourse.checks.report import attempt, close, report

SIZES = ((2, 192, 128, 3), (4, 512, 768, 9))  # M, D, Dv, J
CASES = ({"grey": 0.7, "blur": 0.4, "noise": 0.5}, {"grey": 0.2})


def check_counts(function) -> bool:
    """function: (M, D, Dv, J) -> {"vpt": .., "independent": .., "maple": ..}, learned numbers with J layers each."""
    for M, D, Dv, J in SIZES:
        value, problem = attempt(function, M, D, Dv, J)
        if problem:
            return report(False, "", problem)
        expected = {"vpt": J * M * Dv, "independent": J * M * (D + Dv), "maple": J * M * D + J * (D * Dv + Dv)}
        if not isinstance(value, dict) or set(value) != set(expected):
            return report(False, "", f"return a dictionary with the names {', '.join(expected)}")
        for name, want in expected.items():
            if not close(value[name], want, 1e-6):
                hint = {
                    "vpt": "M prompts of width Dv in each of J layers",
                    "independent": "M prompts of width D and M of width Dv in each of J layers",
                    "maple": "the text prompts, and for each layer a linear map from D to Dv with its bias",
                }[name]
                return report(False, "", f"{name}, M={M}, D={D}, Dv={Dv}, J={J}: {hint} ({want}, got {value[name]})")
    return report(True, "MaPLe's maps, not its prompts, are what costs", "")


def check_worst(function) -> bool:
    """function: {shift: accuracy} -> (the worst shift, the mean, how far the worst lies below the mean)."""
    for results in CASES:
        value, problem = attempt(function, dict(results))
        if problem:
            return report(False, "", problem)
        if not isinstance(value, tuple | list) or len(value) != 3:
            return report(False, "", "return three things: the name of the worst shift, the mean, and the distance")
        mean, name = sum(results.values()) / len(results), min(results, key=results.get)
        if value[0] != name:
            return report(False, "", f"of {results} the worst is {name!r}, got {value[0]!r}")
        if not close(value[1], mean, 1e-6):
            return report(False, "", f"the mean of {results} is {mean:.3f}, got {value[1]}")
        if not close(value[2], mean - results[name], 1e-6):
            return report(False, "", f"the worst lies {mean - results[name]:.3f} below the mean, got {value[2]}")
    return report(True, "a mean over shifts can hide the one that matters to you", "")
