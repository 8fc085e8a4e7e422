"""Calls of one function, here or in several processes, where a process that dies loses one call and no more.

`concurrent.futures.ProcessPoolExecutor` gives up all that is pending when one of its processes is killed (out of
memory, for example). Here every process has a pipe of its own and holds one item at a time: the end of a pipe says
which item was lost, and a fresh process takes the next. Processes are spawned, not forked: threads of torch do not
survive a fork.
"""

import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

Outcome = tuple[Any, Any, str | None]  # item, result or None, why there is none


def run_calls(call: Callable[[Any], Any], items: Sequence[Any], workers: int = 1) -> Iterator[Outcome]:
    """Yield (item, call(item), None), or (item, None, traceback), in the order in which they finish.

    workers: 1 calls in this process, more use that many processes (fewer items: fewer) with an equal share of the cores
    each; then `call` and the items must be picklable. Closing the iterator, or an interrupt, ends all processes.
    """
    workers = min(workers, len(items))
    if workers <= 1:
        for item in items:
            yield item, *_attempt(call, item)
        return
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // workers)
    pending, idle, busy = deque(items), [], {}
    try:
        while pending or busy:
            while pending and len(busy) < workers:
                while idle and not idle[-1][0].is_alive():
                    idle.pop()[1].close()
                if idle:
                    process, pipe = idle.pop()
                else:
                    pipe, theirs = context.Pipe()
                    process = context.Process(target=_work, args=(theirs, threads, call), daemon=True)
                    process.start()
                    theirs.close()  # now the death of the process ends the pipe
                try:
                    pipe.send(pending[0])
                except OSError:  # it died this very moment
                    yield pending.popleft(), None, _ended(process, pipe)
                else:
                    busy[pipe] = (process, pending.popleft())
            for pipe in wait(list(busy)):
                process, item = busy.pop(pipe)
                try:
                    result, problem = pipe.recv()
                    idle.append((process, pipe))
                except (EOFError, OSError):
                    result, problem = None, _ended(process, pipe)
                yield item, result, problem
    finally:
        for process, pipe in [*idle, *((process, pipe) for pipe, (process, _) in busy.items())]:
            pipe.close()
            process.terminate()
            process.join()


def _attempt(call: Callable, item: Any) -> tuple[Any, str | None]:
    try:
        return call(item), None
    except Exception:
        return None, traceback.format_exc()


def _work(pipe: Connection, threads: int, call: Callable) -> None:
    """A worker process: items come through the pipe until it is closed, results go back."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the parent, which ends this process
    torch.set_num_threads(threads)
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        pipe.send(_attempt(call, item))


def _ended(process: multiprocessing.Process, pipe: Connection) -> str:
    pipe.close()
    process.join()
    return f"its process ended with exit code {process.exitcode} (if negative: the signal that killed it)"
