"""One call, watched: its answer, its processor and wall seconds, and the memory that it took at its peak."""

from __future__ import annotations

import ctypes
import gc
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Watched:
    """The answer, the seconds of all threads together and on the wall, and the MB by which resident memory rose at its peak."""

    answer: Any
    processor: float
    wall: float
    peak_mb: float


def _status(key: str) -> int:
    found = re.search(rf"{key}:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


def watched(run: Callable[[], Any]) -> Watched:
    """Call `run`. Linux only: the kernel keeps the peak of resident memory, and forgets it when asked."""
    gc.collect()
    # What earlier runs freed goes back to the system, so that it is counted again.
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before, start, wall = _status("VmRSS"), time.process_time(), time.perf_counter()
    answer = run()
    seconds = time.process_time() - start, time.perf_counter() - wall
    return Watched(answer, *seconds, max(0.0, (_status("VmHWM") - before) / 1024))


__all__ = ["Watched", "watched"]
