"""The primitives of all checks: they print one line and never raise."""

import torch

from vlmcourse.checks import attempt, close, report


def test_report_prints_one_line_and_returns_the_verdict(capsys):
    assert report(True, "well done", "no") is True
    assert report(torch.tensor(False), "well done", "look again") is False
    assert capsys.readouterr().out == "✓ well done\n✗ not yet: look again\n"


def test_attempt_returns_the_value_or_a_hint():
    assert attempt(lambda a, b=0: a + b, 1, b=2) == (3, None)
    value, problem = attempt("not a function")
    assert value is None and "function itself" in problem
    value, problem = attempt(lambda: None)
    assert value is None and "return" in problem
    value, problem = attempt(lambda: 1 / 0)
    assert value is None and "ZeroDivisionError" in problem


def test_close_compares_anything_without_raising():
    assert close(0.5, torch.tensor(0.5)) and close([1.0, 2.0], torch.tensor([1.0, 2.0]))
    assert not close(torch.ones(2), torch.ones(3))
    assert not close("words", 1.0) and not close(None, 1.0)
