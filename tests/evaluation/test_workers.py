import multiprocessing
from functools import partial

import pytest

from vlmcourse.evaluation.workers import run_calls


def test_here():
    seen = []
    calls = run_calls(seen.append, [3, 1])
    assert not seen  # nothing happens before the first result is asked for
    assert list(calls) == [(3, None, None), (1, None, None)] and seen == [3, 1]
    [(item, result, problem)] = run_calls(lambda x: 1 / x, [0])
    assert (item, result) == (0, None) and "ZeroDivisionError" in problem


def test_interrupt_is_not_a_failed_item():
    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(run_calls(stop, [1]))


@pytest.mark.slow
def test_processes_are_ended_when_nobody_listens_any_more():
    calls = run_calls(partial(pow, 2), [1, 2, 3, 4], workers=2)
    item, result, problem = next(calls)
    assert result == 2**item and problem is None and len(multiprocessing.active_children()) == 2
    calls.close()
    assert not multiprocessing.active_children()
