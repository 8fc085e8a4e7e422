"""Checks of 22_which_visual_prompt_when: references pass, typical wrong answers get a hint."""

import pytest

from vlmcourse.checks.which_visual_prompt_when import check_counts, check_worst


def counts(M, D, Dv, J):
    return {"vpt": J * M * Dv, "independent": J * M * (D + Dv), "maple": J * M * D + J * (D + 1) * Dv}


def worst(results):
    mean, name = sum(results.values()) / len(results), min(results, key=results.get)
    return name, mean, mean - results[name]


def test_the_references_pass(capsys):
    assert check_counts(counts) and check_worst(worst)
    assert capsys.readouterr().out.count("✓") == 2


@pytest.mark.parametrize(
    ("check", "wrong", "hint"),
    [
        (check_counts, lambda *a: None, "returns None"),
        (check_counts, lambda M, D, Dv, J: M * D, "return a dictionary"),
        (check_counts, lambda M, D, Dv, J: counts(M, D, Dv, J) | {"maple": J * M * D + J * D * Dv}, "with its bias"),
        (check_counts, lambda M, D, Dv, J: counts(M, D, Dv, J) | {"vpt": M * Dv}, "in each of J layers"),
        (check_worst, lambda results: min(results.values()), "return three things"),
        (check_worst, lambda results: (max(results, key=results.get), 0, 0), "the worst is 'blur'"),
        (check_worst, lambda results: (worst(results)[0], 0, 0), "the mean of"),
        (check_worst, lambda results: (*worst(results)[:2], results[worst(results)[0]]), "below the mean"),
        (check_worst, "x", "pass the function itself"),
    ],
)
def test_wrong_answers_get_a_hint(check, wrong, hint, capsys):
    assert not check(wrong)
    out = capsys.readouterr().out
    assert out.startswith("✗ not yet:") and hint in out
