"""A contender's own process: it solves what it is asked, one call at a time, and says what that took."""

from __future__ import annotations

import ctypes
import signal
import warnings
from multiprocessing.connection import Connection
from typing import Any

import torch
from watching import watched

from transport.row import Contender, Problem, Row


def _end_with_parent() -> None:
    ctypes.CDLL("libc.so.6").prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no orphan computes on after an interrupt


def serve(connection: Connection, row: Row, contender: Contender, quick: bool, threads: int) -> None:
    """Answer (seed, setting, reference) with seconds, peak memory and the judgement, (seed, setting) with a call that only warms
    up, until None comes."""
    _end_with_parent()
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")  # of iteration limits: the error says it
    problem: Problem | None = None
    at: Any = None
    while (message := connection.recv()) is not None:
        seed, setting, *rest = message
        try:
            if at != seed:
                problem, at = row.problem(seed, quick), seed
            assert problem is not None
            if not rest:
                contender.prepare(problem if contender.warm == "same" else row.problem(99, True), setting)()
                connection.send({})
                continue
            seen = watched(contender.prepare(problem, setting))
            found = {"processor": seen.processor, "wall": seen.wall, "peak_mb": seen.peak_mb}
            connection.send(found | contender.judge(problem, seen.answer, rest[0]))
            del seen
        except Exception as error:  # a peer that fails is a line of the table, not the end of the run
            connection.send({"failed": f"{type(error).__name__}: {error}"[:300]})


__all__ = ["serve"]
