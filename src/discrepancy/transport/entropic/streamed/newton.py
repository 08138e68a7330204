"""Newton's method on the semi-dual of one streamed problem at one epsilon: matrix-free, a pass of the pairs a product."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from discrepancy.transport.entropic.streamed.hessian import Curvature
from discrepancy.transport.entropic.streamed.passes import EXACT_CUT, StreamedPairs

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


class SemiDual:
    """The concave function v -> b.v - sum_i a_i log2 sum_j 2^(v_j - s c_ij), whose maximiser has the column sums b."""

    def __init__(self, stream: StreamedPairs, epsilon: float, limit: int, room: int) -> None:
        self.room, self.entries = room, None
        self.stream, self.scale, self.limit = stream, 1 / (epsilon * LOG2), limit
        self.a, self.b = stream.left.weights, stream.right.weights
        self.heavy = self.b > 0
        self.groups, self.count = stream.groups()
        self.passes = self.products = self.steps = 0

    @property
    def left(self) -> int:
        """Passes that may still be made."""
        return self.limit - self.passes - self.products

    def at(self, v: np.ndarray, cut: float = EXACT_CUT) -> Point:
        """One pass."""
        self.passes += 1
        found = self.stream.evaluate(v, self.scale, cut=cut)
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
            logs = self.stream.soft_minima(u, self.scale, transposed=True)
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
        inner = np.maximum(diagonal - point.squares, 1e-12 * point.sums)
        scale = np.where(inner > 0, 1 / np.where(inner > 0, inner, 1.0), 0.0)
        self.passes += 1
        threshold = min(_COARSEST, max(_FINEST, 1e-3 * error))
        curvature = Curvature(self.stream, point.logs, point.v, self.scale, threshold, self.room)
        self.entries = curvature.entries
        coarse = self.coarse_inverse(curvature, diagonal)
        enough = error * min(0.1, max(0.3 * error**0.5, 0.1 * goal / error))
        x, r = np.zeros_like(residual), np.where(self.heavy, residual, 0.0)
        z = self.preconditioned(r, scale, coarse)
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
            z = self.preconditioned(r, scale, coarse)
            fresh = float(r @ z)
            p, rz = z + (fresh / rz) * p, fresh
        return x

    def preconditioned(self, r: np.ndarray, scale: np.ndarray, coarse: np.ndarray) -> np.ndarray:
        """r under the inverse diagonal, plus the solution of the system summed over groups of neighbouring columns: smooth
        errors, of which the diagonal knows nothing, live there."""
        sums = np.bincount(self.groups, weights=r, minlength=self.count)
        return r * scale + (coarse @ sums)[self.groups] * self.heavy

    def coarse_inverse(self, curvature: Curvature, diagonal: np.ndarray) -> np.ndarray:
        """The inverse of the Newton system on functions that are constant on groups; zero, which is no help and no harm, where rounding
        leaves it indefinite."""
        inner = curvature.coarse(self.groups, self.count)
        system = np.diag(np.bincount(self.groups, weights=diagonal, minlength=self.count)) - inner
        # Adding c c^T / 1 lifts the one direction without curvature, the constants, in which no residual lies.
        sums = np.bincount(self.groups, weights=diagonal, minlength=self.count)
        lifted = torch.from_numpy(system + np.outer(sums, sums) / max(float(sums.sum()), 1e-300))
        lifted.diagonal().add_(1e-12 * float(lifted.diagonal().max()))
        factor, failed = torch.linalg.cholesky_ex(lifted)
        return np.zeros_like(system) if int(failed) else torch.cholesky_inverse(factor).numpy()

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


__all__ = ["Point", "SemiDual"]
