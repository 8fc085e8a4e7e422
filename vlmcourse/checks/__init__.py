"""Checks of the notebooks' exercises: plain functions that look at what a student wrote and answer in one line.

One module per notebook, one `check_<name>(attempt) -> bool` per exercise. A check never raises: whatever the attempt
does, the student reads a hint. Three primitives carry them all:

    report(passed, praise, hint) -> bool            prints "✓ praise" or "✗ not yet: hint"
    attempt(function, *inputs) -> (value, problem)  calls the student's function; problem is None or a hint
    close(value, expected, tolerance) -> bool       compares numbers or tensors, of whatever kind they are
"""

from vlmcourse.checks.report import attempt, close, report

__all__ = ["attempt", "close", "report"]
