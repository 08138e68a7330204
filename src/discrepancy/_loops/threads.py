"""One pool of threads for compiled loops, never larger than torch's.

Compiled loops release Python's lock, so plain threads run them side by side; they sleep when there is nothing to do, where
OpenMP's spin. `torch.set_num_threads` is the one setting, for us as for torch. So that the counts do not multiply, what is
handed to `in_parallel` is compiled loops only: matrix products are torch's, in the calling thread.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Part = TypeVar("Part")
Found = TypeVar("Found")


class _Pool:
    """The process's threads: made at first use, made anew when more are wanted and in a forked child, which has none."""

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None
        self._size = 0
        self._lock = threading.Lock()

    def submit(self, task: Callable[[], None], times: int) -> list[Future[None]]:
        """Have `task` run by this many threads, beside the calling one."""
        with self._lock:  # a pool that another thread replaces takes no more tasks
            if self._executor is None or self._size < times:
                if self._executor is not None:
                    self._executor.shutdown(wait=False)
                self._size = times
                self._executor = ThreadPoolExecutor(times, thread_name_prefix="discrepancy")
            return [self._executor.submit(task) for _ in range(times)]


_pool = _Pool()
_here = threading.local()


def _forget_pool() -> None:
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def in_parallel(work: Callable[[Part], Found], parts: Iterable[Part]) -> list[Found]:
    """[work(part) for part in parts], on at most `torch.get_num_threads()` threads, the calling one among them.

    Threads take the next part when they are done with one: cut the work finer than there are threads where parts differ, and
    independently of their number where sums over parts must come out the same, bit for bit, on any number. Within a part a
    further call runs in its own thread. The first error is raised once all threads have stopped.
    """
    parts = list(parts)
    threads = min(torch.get_num_threads(), len(parts))
    if threads <= 1 or getattr(_here, "working", False):
        return [work(part) for part in parts]
    waiting = deque(enumerate(parts))
    found: dict[int, Found] = {}

    def take() -> None:
        _here.working = True
        try:
            while True:
                try:
                    k, part = waiting.popleft()
                except IndexError:
                    return
                found[k] = work(part)
        except BaseException:
            waiting.clear()
            raise
        finally:
            _here.working = False

    helpers = _pool.submit(take, threads - 1)
    try:
        take()
    finally:
        for helper in helpers:
            helper.cancel()
        failures = [helper.exception() for helper in helpers if not helper.cancelled()]
    for failure in failures:
        if failure is not None:
            raise failure
    return [found[k] for k in range(len(parts))]


def ranges(n: int, least: int, most: int = 64) -> list[tuple[int, int]]:
    """range(n) cut into at most `most` contiguous (start, stop) of at least `least` each (but for n < least), as equal as can be;
    the cut depends on n alone, so that results do not depend on the number of threads."""
    count = max(1, min(most, n // max(1, least)))
    return [(n * k // count, n * (k + 1) // count) for k in range(count)]


__all__ = ["in_parallel", "ranges"]
