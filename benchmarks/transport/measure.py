"""How a row is measured: contenders in turn, each in its own process, until each has its times for each seed."""

from __future__ import annotations

import multiprocessing
import sys
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import psutil

from transport.row import Contender, Row
from transport.worker import serve

_FORK = multiprocessing.get_context("fork")
_AROUND = 10.0  # seconds for making the instance before a call and judging the answer after it
_COMPILATION = 300.0  # seconds that a call which only warms up may take


@dataclass(frozen=True)
class Limits:
    """Processor seconds that one call may take, and those that the repeats of one contender and seed may."""

    call: float = 20.0
    repeats: float = 2.0
    most: int = 7


@dataclass
class Process:
    """A contender's process and what it has answered: seed -> list of runs, the first excluded where more followed."""

    contender: Contender
    connection: Connection
    process: Any
    setting: int = 0
    runs: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    ended: str = ""  # why it takes no further part
    warmed: Any = None  # what it was last warmed up for

    def ask(self, seed: int, reference: Any, limit: float) -> dict[str, Any] | None:
        """One call, or None where it failed or took too long; `ended` then says which. What compiles has compiled before."""
        setting = self.contender.settings[self.setting]
        wanted = {"nothing": None, "small": "once", "same": (seed, setting)}[self.contender.warm]
        if wanted is not None and wanted != self.warmed:
            if self._answer((seed, setting), _COMPILATION) is None:
                return None
            self.warmed = wanted
        return self._answer((seed, setting, reference), limit)

    def _answer(self, message: tuple[Any, ...], limit: float) -> dict[str, Any] | None:
        self.connection.send(message)
        watch = psutil.Process(self.process.pid)
        start, wall = _processor(watch), time.monotonic()
        while not self.connection.poll(0.1):
            late = _processor(watch) - start > limit + _AROUND or time.monotonic() - wall > 10 * limit
            if late or not self.process.is_alive():
                self.ended = f"> {limit:.0f} s" if self.process.is_alive() else "killed: out of memory"
                self.stop()
                return None
        found = self.connection.recv()
        if "failed" in found:
            self.ended = found["failed"]
            return None
        return found

    def stop(self) -> None:
        """End the process, at once if it computes."""
        if not self.process.is_alive():
            return
        if not self.ended:
            self.connection.send(None)
            self.process.join(2)
        self.process.kill()
        self.process.join()


def _processor(process: psutil.Process) -> float:
    try:
        used = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return used.user + used.system


def _start(row: Row, contender: Contender, quick: bool, threads: int) -> Process:
    here, there = _FORK.Pipe()
    process = _FORK.Process(target=serve, args=(there, row, contender, quick, threads), daemon=True)
    sys.stdout.flush()
    process.start()
    there.close()
    return Process(contender, here, process)


def _first(process: Process, row: Row, seed: int, reference: Any, limits: Limits) -> None:
    """The first run of a seed, at the first setting that reaches the row's error, or at the most accurate one."""
    while not process.ended:
        found = process.ask(seed, reference, limits.call)
        if found is None:
            return
        if found["processor"] > limits.call:
            process.ended = f"> {limits.call:.0f} s"
            return
        last = process.setting == len(process.contender.settings) - 1
        if found["error"] <= row.goal or last:
            process.runs[seed] = [found | {"setting": process.contender.settings[process.setting]}]
            return
        process.setting += 1


def measured(row: Row, *, quick: bool, threads: int, limits: Limits, seeds: int) -> list[Process]:
    """All contenders of a row; their runs by seed. What takes over `limits.repeats` runs once a seed."""
    processes = [_start(row, contender, quick, threads) for contender in row.contenders]
    try:
        for seed in range(seeds):
            reference = row.reference(row.problem(seed, quick)) if row.reference is not None else None
            for process in processes:
                if not process.ended:
                    _first(process, row, seed, reference, limits)
            again = [p for p in processes if not p.ended and p.runs[seed][0]["processor"] < limits.repeats]
            for k in range(limits.most):
                turn = k % max(1, len(again))  # nobody always follows the same other
                for process in again[turn:] + again[:turn]:
                    spent = sum(run["processor"] for run in process.runs[seed])
                    if process.ended or (k >= 2 and spent > limits.repeats):
                        continue
                    found = process.ask(seed, reference, limits.call)
                    if found is not None:
                        process.runs[seed].append(found | {"setting": process.runs[seed][0]["setting"]})
    finally:
        for process in processes:
            process.stop()
    return processes


__all__ = ["Limits", "Process", "measured"]
