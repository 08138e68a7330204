"""What a row of the table is: a problem for each seed, contenders who solve it, and the error that all must reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Problem:
    """Weighted points, or a cost matrix where no points are, and the epsilon in units of the cost."""

    x: np.ndarray | None
    y: np.ndarray | None
    a: np.ndarray
    b: np.ndarray
    cost: np.ndarray | None = None
    epsilon: float = 0.0
    rho: float = 0.0

    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """Both clouds, of a problem that has them."""
        assert self.x is not None
        assert self.y is not None
        return self.x, self.y

    def matrix(self) -> np.ndarray:
        """The cost matrix, of a problem that comes with one."""
        assert self.cost is not None
        return self.cost


@dataclass(frozen=True)
class Contender:
    """One way to the answer.

    prepare(problem, setting) makes everything that is not timed and returns the call that is; judge(problem, answer,
    reference) says how good the answer is: "error", and where they are known "value" and "lower", a certified bound.
    role: "ours", "peer", or "shown" for what stands in the row without being compared.
    settings: from fast to accurate; the first whose error is within the row's is timed. warm: the untimed call before the
    first timed one, on a small problem ("small"), on the same ("same", for what compiles anew for each shape) or none.
    """

    name: str
    prepare: Callable[[Problem, Any], Callable[[], Any]]
    judge: Callable[[Problem, Any, Any], dict[str, Any]]
    role: str = "peer"
    settings: tuple[Any, ...] = (None,)
    warm: str = "nothing"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    problem(seed, quick) is the instance; goal the error that counts as equal; reach the ratio to reach for; memory_reach the
    ratio of peak memories; seconds_reach and megabytes_reach the bounds of a row where nobody competes. reference(problem)
    is handed to the judges. long: measured only when asked; limit: seconds
    a call may take, where the row's reach needs another than all rows'; threads: the numbers of threads that it is measured with.
    """

    task: str
    name: str
    problem: Callable[[int, bool], Problem]
    contenders: list[Contender]
    goal: float
    error_is: str
    reach: float | None = None
    memory_reach: float | None = None
    seconds_reach: float | None = None
    megabytes_reach: float | None = None
    reference: Callable[[Problem], Any] | None = None
    seeds: int = 3
    long: bool = False
    limit: float | None = None
    threads: tuple[int, ...] = (1, 2)
    note: str = ""


__all__ = ["Contender", "Problem", "Row"]
