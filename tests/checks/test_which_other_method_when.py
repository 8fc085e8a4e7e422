"""Checks of 32_which_other_method_when: references pass, typical wrong answers get a hint."""

import pytest

from vlmcourse.checks.which_other_method_when import ORDER, check_allowed, check_always_ahead
from vlmcourse.methods.base import NEEDS


def allowed(needs, given):
    return [name for name, need in needs.items() if ORDER.index(need) <= ORDER.index(given)]


def ahead(a, b):
    return all(x > y for x, y in zip(a, b, strict=True))


def test_the_order_is_that_of_the_cards():
    assert ORDER == tuple(NEEDS)


def test_the_references_pass(capsys):
    assert check_allowed(allowed) and check_always_ahead(ahead)
    assert capsys.readouterr().out.count("✓") == 2


@pytest.mark.parametrize(
    ("check", "wrong", "hint"),
    [
        (check_allowed, lambda needs, given: None, "returns None"),
        (check_allowed, lambda needs, given: 3, "return a collection"),
        (check_allowed, lambda needs, given: [n for n, x in needs.items() if x == given], "may also look at outputs"),
        (check_allowed, lambda needs, given: list(needs), "with 'outputs' one may use"),
        (check_always_ahead, lambda a, b: sum(a) > sum(b), "a tie is no win"),
        (check_always_ahead, lambda a, b: all(x >= y for x, y in zip(a, b, strict=True)), "a tie is no win"),
        (check_always_ahead, lambda a, b: True, "compare seed by seed"),
        (check_always_ahead, 1, "pass the function itself"),
    ],
)
def test_wrong_answers_get_a_hint(check, wrong, hint, capsys):
    assert not check(wrong)
    out = capsys.readouterr().out
    assert out.startswith("✗ not yet:") and hint in out
