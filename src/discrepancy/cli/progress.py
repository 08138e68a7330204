"""A progress bar on standard error: only on a terminal, only for work that takes a while, gone when it ends."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_PATIENCE = 0.7  # seconds of work before a bar appears

Progress = Callable[[int, int, str], None]


@contextmanager
def bar(*, quiet: bool = False, color: bool = True) -> Iterator[Progress | None]:
    """A callback (done, total, what) that draws a bar, or None where nobody would see one."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, no_color=not color or None)
    shown = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    began = time.monotonic()
    task = shown.add_task("")
    running = False

    def step(done: int, total: int, what: str) -> None:
        nonlocal running
        if not running and time.monotonic() - began > _PATIENCE:
            shown.start()
            running = True
        shown.update(task, completed=done, total=total, description=what)

    try:
        yield step
    finally:
        if running:
            shown.stop()
