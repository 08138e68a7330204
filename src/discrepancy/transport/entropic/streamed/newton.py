"""Newton's method on the semi-dual of one problem at one epsilon, matrix-free: it knows the plan only by its passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from discrepancy.transport.entropic.streamed.passes import EXACT_CUT, Evaluation

LOG2 = float(np.log(2.0))
# A potential's change by more than this many epsilons in one step leaves the region where the quadratic model means anything.
_LONGEST = 8.0
_CONJUGATE_LIMIT = 500
# Shares of a row that the curvature may leave out: a thousandth of the error, between these bounds.
_FINEST, _COARSEST = 1e-10, 1e-5


@dataclass
class Point:
    """Column potentials v = g / (epsilon log 2) + log2 b, and what a pass found there: the rows' logs, column sums, squares,
    the dual value in units of epsilon log 2, and the L1 error of the column sums."""

    v: np.ndarray
    logs: np.ndarray
    sums: np.ndarray
    squares: np.ndarray
    dual: float
    error: float


class Curvature(Protocol):
    """The plan's part of the Newton system at one point."""

    @property
    def entries(self) -> int | None:
        """Entries of the plan that are kept, None where products are streamed."""
        ...

    def product(self, p: np.ndarray) -> np.ndarray:
        """Q^T (a * (Q p)) (m,), Q the plan's rows as shares that sum to one."""
        ...

    def preconditioner(self, diagonal: np.ndarray, squares: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """An approximate inverse of diag(diagonal) - Q^T diag(a) Q."""
        ...


class Passes(Protocol):
    """What the solver asks of a problem: flat float64 arrays, exponents in base 2, scale = 1 / (epsilon log 2)."""

    @property
    def kind(self) -> str:
        """What rungs call it."""
        ...

    @property
    def row_weights(self) -> np.ndarray:
        """a (n,)."""
        ...

    @property
    def column_weights(self) -> np.ndarray:
        """b (m,)."""
        ...

    def evaluate(self, v: np.ndarray, scale: float, *, cut: float = EXACT_CUT) -> Evaluation:
        """Row by row log2 sum_j 2^(v_j - s c_ij), and the column sums and squares of the plan that it makes exact."""
        ...

    def soft_minima(self, v: np.ndarray, scale: float, *, transposed: bool = False, cut: float = EXACT_CUT) -> np.ndarray:
        """The rows' logs alone; transposed: log2 sum_i 2^(v_i - s c_ij) for every column."""
        ...

    def curvature(self, point: Evaluation, v: np.ndarray, scale: float, threshold: float, room: int) -> Curvature:
        """The curvature at an evaluation; shares below `threshold` may be left out, `room` bytes be taken."""
        ...

    def coarser(self, epsilon: float, mean: float) -> tuple[Passes, float, Callable[[np.ndarray, float], np.ndarray]] | None:
        """A smaller problem like this one, the epsilon down to which it may be trusted, and what extends its row potentials at
        some epsilon to column potentials here; None where this one is small enough."""
        ...


def jacobi(diagonal: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """The inverse of the Newton system's diagonal; zero where a column has no mass."""
    inner = np.maximum(diagonal - squares, 1e-12 * diagonal)
    return np.where(inner > 0, 1 / np.where(inner > 0, inner, 1.0), 0.0)


class SemiDual:
    """The concave function v -> b.v - sum_i a_i log2 sum_j 2^(v_j - s c_ij), whose maximiser has the column sums b."""

    def __init__(self, problem: Passes, epsilon: float, limit: int, room: int) -> None:
        self.room, self.entries = room, None
        self.problem, self.scale, self.limit = problem, 1 / (epsilon * LOG2), limit
        self.a, self.b = problem.row_weights, problem.column_weights
        self.heavy = self.b > 0
        self.passes = self.products = self.steps = 0

    @property
    def left(self) -> int:
        """Passes that may still be made."""
        return self.limit - self.passes - self.products

    def at(self, v: np.ndarray, cut: float = EXACT_CUT) -> Point:
        """One pass."""
        self.passes += 1
        found = self.problem.evaluate(v, self.scale, cut=cut)
        dual = float(self.b @ v - self.a @ found.logs)
        return Point(v, found.logs, found.sums, found.squares, dual, float(np.abs(self.b - found.sums).sum()))

    def swept(self, point: Point) -> np.ndarray:
        """The potentials of one Sinkhorn sweep from a point: column sums become exact, rows are found anew."""
        seen = point.sums > 1e-14 * self.b
        ratio = np.where(seen & self.heavy, self.b / np.where(seen & self.heavy, point.sums, 1.0), 1.0)
        fresh = point.v + np.log2(ratio)
        if (self.heavy & ~seen).any():  # a column whose mass was left out, or underflows, has a logarithm all the same
            self.passes += 1
            u = np.where(self.a > 0, np.log2(np.where(self.a > 0, self.a, 1.0)) - point.logs, 0.0)
            logs = self.problem.soft_minima(u, self.scale, transposed=True)
            fresh = np.where(seen | ~self.heavy, fresh, np.log2(np.where(self.heavy, self.b, 1.0)) - logs)
        return fresh

    def ascend(self, point: Point, goal: float, steps: int, cut: float) -> tuple[Point, bool]:
        """Newton steps until the error is below the goal; True if rounding stopped them."""
        for _ in range(steps):
            if point.error <= goal or self.left <= 0:
                break
            self.steps += 1
            direction = self.direction(point, goal)
            direction = np.where(self.heavy, direction - self.b @ direction, 0.0).clip(-_LONGEST, _LONGEST)
            found = self.search(point, direction / LOG2, float((self.b - point.sums) @ direction) / LOG2, cut)
            if found is None:
                return point, True
            point = found
        return point, False

    def direction(self, point: Point, goal: float) -> np.ndarray:
        """The Newton direction (diag(c) (1 + shift) - Q^T diag(a) Q) x = b - c by conjugate gradients, in natural units."""
        error, residual = point.error, self.b - point.sums
        # The shift vanishes with the error, so that convergence stays superlinear, and steadies the first steps.
        diagonal = point.sums * (1 + 0.1 * error)
        self.passes += self.room > 0
        threshold = min(_COARSEST, max(_FINEST, 1e-3 * error))
        found = Evaluation(point.logs, point.sums, point.squares)
        curvature = self.problem.curvature(found, point.v, self.scale, threshold, self.room)
        self.entries = curvature.entries
        if self.entries is None:  # what did not fit will not fit at the next step either
            self.room = 0
        precondition = curvature.preconditioner(diagonal, point.squares)
        enough = error * min(0.1, max(0.3 * error**0.5, 0.1 * goal / error))
        x, r = np.zeros_like(residual), np.where(self.heavy, residual, 0.0)
        z = precondition(r)
        p, rz = z, float(r @ z)
        for _ in range(_CONJUGATE_LIMIT):
            if np.abs(r).sum() <= enough or not rz > 0 or self.left <= 0:
                break
            self.products += 1
            image = diagonal * p - curvature.product(p)
            bend = float(p @ image)
            if not bend > 0:
                break
            size = rz / bend
            x, r = x + size * p, r - size * image
            z = precondition(r)
            fresh = float(r @ z)
            p, rz = z + (fresh / rz) * p, fresh
        return x

    def search(self, point: Point, move: np.ndarray, slope: float, cut: float) -> Point | None:
        """The longest of 1, 0.3, 0.09 ... of the move that raises the dual enough, or 2, 4 ... while it keeps rising; None if
        none does."""
        slack = 1e-13 * float(np.abs(self.a * point.logs).sum() + np.abs(self.b * point.v).sum())
        size = 1.0
        trial = self.at(point.v + move, cut)
        while not trial.dual >= point.dual + 1e-4 * size * slope - slack:
            size *= 0.3
            if size < 1e-7 or self.left <= 0:
                return None
            trial = self.at(point.v + size * move, cut)
        # A weak link between two clusters may carry e^k times too much mass, of which Newton removes one factor e a step: while
        # most of the slope is left at the end of a full step, a longer one is tried.
        if size < 1.0:
            return trial
        for _ in range(6):
            end = float((self.b - trial.sums) @ move)
            if not end > 0.25 * slope or self.left <= 0:
                break
            further = self.at(point.v + 2 * size * move, cut)
            if not (further.dual >= trial.dual and float((self.b - further.sums) @ move) >= -0.3 * slope):
                break
            size, trial = 2 * size, further
        return trial


__all__ = ["Curvature", "Passes", "Point", "SemiDual", "jacobi"]
