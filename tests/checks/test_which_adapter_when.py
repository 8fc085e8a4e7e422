"""Checks of 25_which_adapter_when: references pass, typical wrong answers get a hint."""

import pytest

from vlmcourse.checks.which_adapter_when import check_kept, check_stored


def kept(zero, method, zero_shifted, method_shifted):
    return (method_shifted - zero_shifted) / (method - zero) if method != zero else float("nan")


def stored(C, K, E, r):
    texts = C * E
    return {
        "prompts": texts, "linear_probe": texts + C, "clip_adapter": texts + 2 * E * (E // r),
        "tip_adapter": texts + C * K * (E + 1),
    }  # fmt: skip


def test_the_references_pass(capsys):
    assert check_kept(kept) and check_stored(stored)
    assert capsys.readouterr().out.count("✓") == 2


@pytest.mark.parametrize(
    ("check", "wrong", "hint"),
    [
        (check_kept, lambda *a: None, "returns None"),
        (check_kept, lambda z, m, zs, ms: ms / m, "the gain over zero-shot that is left"),
        (check_kept, lambda z, m, zs, ms: (ms - zs) / (m - z), "no gain at all"),
        (check_kept, lambda z, m, zs, ms: 0.0 if m == z else (ms - zs) / (m - z), "no gain at all"),
        (check_kept, lambda z, m, zs, ms: m - ms, "the share is 0.6"),
        (check_kept, 3, "pass the function itself"),
        (check_stored, lambda C, K, E, r: C * E, "return a dictionary"),
        (check_stored, lambda C, K, E, r: {"prompts": C * E}, "the names must be"),
        (check_stored, lambda C, K, E, r: stored(C, K, E, r) | {"prompts": 4 * 192}, "nothing else is needed"),
        (check_stored, lambda C, K, E, r: stored(C, K, E, r) | {"tip_adapter": C * K * E}, "one label for each key"),
    ],
)
def test_wrong_answers_get_a_hint(check, wrong, hint, capsys):
    assert not check(wrong)
    out = capsys.readouterr().out
    assert out.startswith("✗ not yet:") and hint in out
