"""What all exercise checks share: one line of verdict, a call that cannot raise, a comparison that cannot raise."""

from collections.abc import Callable
from typing import Any

import torch


def report(passed: bool, praise: str, hint: str) -> bool:
    """Print "✓ praise" or "✗ not yet: hint"; returns whether it passed."""
    passed = bool(passed)
    print(f"✓ {praise}" if passed else f"✗ not yet: {hint}")
    return passed


def attempt(function: Callable, *inputs: Any, **named: Any) -> tuple[Any, str | None]:
    """Call a student's function. Returns (value, None), or (None, hint) where there is nothing to check.

    The hint says what went wrong in words: not a function, nothing returned yet, or the error that it raised.
    """
    if not callable(function):
        return None, f"pass the function itself, not {type(function).__name__}; write its name without brackets"
    try:
        value = function(*inputs, **named)
    except Exception as error:
        return None, f"your function raised {type(error).__name__}: {error}"
    if value is None:
        return None, "your function returns None; end it with a return statement"
    return value, None


def close(value: Any, expected: Any, tolerance: float = 1e-4) -> bool:
    """Whether value equals expected (numbers or tensors, same shape) within an absolute tolerance; never raises."""
    try:
        got, want = torch.as_tensor(value).detach(), torch.as_tensor(expected).detach()
        return got.shape == want.shape and bool(torch.allclose(got.double(), want.double(), atol=tolerance, rtol=0))
    except (TypeError, ValueError, RuntimeError):
        return False
