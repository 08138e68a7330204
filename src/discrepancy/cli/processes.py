"""Work in several processes at a time, each with its share of the machine's threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context


@contextmanager
def pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """`jobs` processes; what has not begun when an error leaves the block is never begun."""
    threads = max(1, (os.cpu_count() or jobs) // jobs)
    # Spawned, not forked: a forked torch hangs on its own threads.
    with ProcessPoolExecutor(jobs, get_context("spawn"), _share_threads, (threads,)) as executor:
        try:
            yield executor
        finally:
            executor.shutdown(cancel_futures=True)


def _share_threads(threads: int) -> None:
    """What a worker does first: torch's and Numba's threads are set before anything computes."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(threads)
    import torch

    torch.set_num_threads(threads)


__all__ = ["pool"]
