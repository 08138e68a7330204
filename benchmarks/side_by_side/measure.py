"""How a row is measured: contenders in turn in one process, their best and median times, errors and peak memory growth.

Time is the process's processor time: on one thread that is the wall time of a machine with nothing else to do, and on a busy one
it is not inflated by waiting.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from watching import watched

Answer = tuple[Any, Any]  # the value, and its gradient in the first sample or None

# Errors below these are rounding: contenders that stay below are equally accurate.
FLOOR = {torch.float64: 1e-8, torch.float32: 2e-5}

_LONG = 20.0  # seconds above which one run must do


@dataclass(frozen=True)
class Contender:
    """One way to the number. `error` is given where the case measures it otherwise than against one reference value."""

    name: str
    run: Callable[[], Answer]
    ours: bool = False
    error: float | None = None


@dataclass(frozen=True)
class Case:
    """One row: what is computed, by whom, and the float64 reference that the error is taken from.

    `floor`: errors below it count as equal. `error_is` says in words what the error column holds. `once`: no repeats.
    """

    name: str
    contenders: list[Contender]
    value: float | None = None
    gradient: np.ndarray | None = None
    floor: float = FLOOR[torch.float64]
    error_is: str = "relative error"
    once: bool = False
    reason: str = ""


@dataclass
class Measured:
    """What one contender did."""

    seconds: list[float] = field(default_factory=list)
    errors: tuple[float, ...] = ()
    memory_mb: float = 0.0

    @property
    def error(self) -> float:
        """The larger one: that by which contenders are held to equal error."""
        return max(self.errors)


def gradient_of(discrepancy: Callable[[Tensor, Tensor], Any], x: Tensor, y: Tensor) -> Callable[[], Answer]:
    """A run that returns the value and its gradient in x."""

    def run() -> Answer:
        leaf = x.clone().requires_grad_()
        value = discrepancy(leaf, y)
        (slope,) = torch.autograd.grad(value, leaf)
        return value.detach(), slope

    return run


def value_of(discrepancy: Callable[[Any, Any], Any], x: Any, y: Any) -> Callable[[], Answer]:
    """A run that returns the value alone."""

    def run() -> Answer:
        with torch.no_grad():
            return discrepancy(x, y), None

    return run


def errors_of(case: Case, contender: Contender, answer: Answer) -> tuple[float, ...]:
    """The relative errors of the value and, where there is one, of the gradient; or the error that the contender brings."""
    if contender.error is not None:
        return (contender.error,)
    assert case.value is not None
    value = abs(float(answer[0]) - case.value) / abs(case.value)
    if case.gradient is None:
        return (value,)
    slope = np.asarray(answer[1], dtype=np.float64).reshape(case.gradient.shape)
    return value, float(np.linalg.norm(slope - case.gradient) / np.linalg.norm(case.gradient))


def measure(case: Case, budget: float) -> dict[str, Measured]:
    """Every contender of a case: one run for the error and one for memory, then interleaved repeats within `budget` seconds.

    What takes longer than 20 seconds, and everything in a case to be run `once`, has one run for all three.
    """
    found = {c.name: Measured() for c in case.contenders}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peers warn about iteration limits; the error column says it
        lasted = {}
        for contender in case.contenders:
            here = found[contender.name]
            seen = watched(contender.run)
            here.memory_mb, lasted[contender.name] = seen.peak_mb, seen.processor
            here.errors = errors_of(case, contender, seen.answer)
            if lasted[contender.name] < _LONG and not case.once:  # what was compiled or loaded at the first call is there now
                seen = watched(contender.run)
                here.memory_mb, lasted[contender.name] = seen.peak_mb, seen.processor
        swift = [c for c in case.contenders if lasted[c.name] < _LONG and not case.once]
        for name, seconds in lasted.items():
            if name not in {c.name for c in swift}:
                found[name].seconds.append(seconds)
        for k in range(int(min(60, max(2, budget / max(1e-9, sum(lasted[c.name] for c in swift)))))):
            turn = k % max(1, len(swift))  # nobody always follows the same other
            for contender in swift[turn:] + swift[:turn]:
                start = time.process_time()
                contender.run()
                found[contender.name].seconds.append(time.process_time() - start)
    return found


def summary(case: Case, found: dict[str, Measured]) -> dict[str, Any]:
    """The row as it is written to JSON; the ratios compare best times at equal error.

    A peer is compared with the fastest of our contenders whose error is no larger than the peer's, errors below the floor
    counting as equal. Where we have none, the ratio is taken against our most accurate one and `equal_error` is false.
    """
    rows = []
    ours = [c for c in case.contenders if c.ours]
    for contender in case.contenders:
        m = found[contender.name]
        row: dict[str, Any] = {
            "name": contender.name,
            "ours": contender.ours,
            "best_s": min(m.seconds),
            "median_s": statistics.median(m.seconds),
            "repeats": len(m.seconds),
            "errors": m.errors,
            "peak_mb": m.memory_mb,
        }
        if not contender.ours:
            allowed = max(m.error, case.floor)
            fit = [c for c in ours if found[c.name].error <= allowed]
            if fit:
                chosen = min(fit, key=lambda c: min(found[c.name].seconds))
            else:
                chosen = min(ours, key=lambda c: found[c.name].error)
            against = found[chosen.name]
            row |= {
                "against": chosen.name,
                "ratio": row["best_s"] / min(against.seconds),
                "ratio_of_medians": row["median_s"] / statistics.median(against.seconds),
                "memory_ratio": m.memory_mb / max(against.memory_mb, 1.0),
                "equal_error": bool(fit),
            }
        rows.append(row)
    return {"case": case.name, "error_is": case.error_is, "reason": case.reason, "contenders": rows}
