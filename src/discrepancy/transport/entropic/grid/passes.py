"""The passes of a grid problem: soft-minima, products and sums one axis after the other, n^(1 + 1/axes) powers each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from discrepancy._loops.threads import in_parallel, ranges
from discrepancy.costs import Cost
from discrepancy.transport.entropic.grid.axes import axis_costs
from discrepancy.transport.entropic.streamed.newton import jacobi
from discrepancy.transport.entropic.streamed.passes import EXACT_CUT, Evaluation, Marginals

# The exponent of no mass: far below any other, and finite, so that differences stay numbers.
_NOTHING = -1e30
# Grids with more points are first solved with half of the points on each axis.
_SMALL = 512
# A halved grid is trusted down to epsilon = this times the cost of moving the masses onto it.
_TRUST = 4.0


def _lines(values: np.ndarray, axis: int) -> np.ndarray:
    """The grid's lines along one axis, as rows."""
    moved = np.moveaxis(values, axis, -1)
    return np.ascontiguousarray(moved).reshape(-1, moved.shape[-1])


def _grid(lines: np.ndarray, shape: tuple[int, ...], axis: int) -> np.ndarray:
    """Lines along one axis back in a grid, whose other axes are those of `shape`."""
    rest = shape[:axis] + shape[axis + 1 :]
    return np.moveaxis(lines.reshape(*rest, lines.shape[-1]), -1, axis)


def _all(work: Callable[[int, int], None], lines: int) -> None:
    in_parallel(lambda part: work(*part), ranges(lines, 4))


@dataclass(frozen=True)
class _Step:
    """One axis of a separable soft-minimum: values along its lines, logs, and the grid's shape before the step."""

    axis: int
    shape: tuple[int, ...]
    costs: np.ndarray
    values: np.ndarray
    logs: np.ndarray


class Chain:
    """The shares Q_ij = 2^(v_j - s c_ij - l_i) of a grid problem as a product of conditional shares, an axis each."""

    def __init__(self, v: np.ndarray, costs: Sequence[np.ndarray], scale: float) -> None:
        from discrepancy._loops.entropic_grid.lines import line_soft_minima

        self.scale, self.steps = scale, []
        for axis in range(v.ndim - 1, -1, -1):
            lines = _lines(v, axis)
            logs = np.empty((len(lines), costs[axis].shape[0]))
            step = _Step(axis, v.shape, costs[axis], lines, logs)
            _all(lambda i, j, s=step: line_soft_minima(s.values, s.costs, scale, i, j, s.logs), len(lines))
            self.steps.append(step)
            v = _grid(logs, v.shape, axis)
        self.logs = v

    def means(self, p: np.ndarray, charge: float = 0.0) -> np.ndarray:
        """Q p on the rows' grid; with charge one also the mean cost of each row."""
        from discrepancy._loops.entropic_grid.lines import line_means

        for s in self.steps:
            given, out = _lines(p, s.axis), np.empty_like(s.logs)
            _all(
                lambda i, j, s=s, given=given, out=out: line_means(
                    s.values, s.costs, self.scale, s.logs, given, charge, i, j, out
                ),
                len(out),
            )
            p = _grid(out, s.shape, s.axis)
        return p

    def sums(self, weights: np.ndarray) -> np.ndarray:
        """Q^T weights on the columns' grid."""
        from discrepancy._loops.entropic_grid.lines import line_sums

        for s in reversed(self.steps):
            given, out = _lines(weights, s.axis), np.empty_like(s.values)
            _all(
                lambda i, j, s=s, given=given, out=out: line_sums(s.values, s.costs, self.scale, s.logs, given, i, j, out),
                len(out),
            )
            weights = _grid(out, s.shape, s.axis)
        return weights

    def sums_and_squares(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Q^T weights, and sum_i weights_i Q_ij^2."""
        from discrepancy._loops.entropic_grid.lines import line_squares

        squares = weights
        for s in reversed(self.steps):
            given, given_squares = _lines(weights, s.axis), _lines(squares, s.axis)
            out, out_squares = np.empty_like(s.values), np.empty_like(s.values)
            _all(
                lambda i, j, s=s, given=given, given_squares=given_squares, out=out, out_squares=out_squares: line_squares(
                    s.values, s.costs, self.scale, s.logs, given, given_squares, i, j, out, out_squares
                ),
                len(out),
            )
            weights, squares = _grid(out, s.shape, s.axis), _grid(out_squares, s.shape, s.axis)
        return weights, squares


@dataclass(frozen=True)
class GridCurvature:
    """Products with the curvature at one point, from the chain of its evaluation."""

    chain: Chain
    a: np.ndarray
    shape: tuple[int, ...]
    entries: int | None = None

    def product(self, p: np.ndarray) -> np.ndarray:
        """Q^T (a * (Q p)), flat."""
        return self.chain.sums(self.a * self.chain.means(p.reshape(self.shape))).ravel()

    def preconditioner(self, diagonal: np.ndarray, squares: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """The inverse diagonal."""
        scale = jacobi(diagonal, squares)
        return lambda r: r * scale


class GridPasses:
    """One problem between masses a and b on product grids of given coordinates, as `Passes`; arrays are flat."""

    kind = "grid"

    def __init__(self, a: np.ndarray, b: np.ndarray, left: Sequence[np.ndarray], right: Sequence[np.ndarray], cost: Cost) -> None:
        self.a, self.b, self.left, self.right, self.cost = a, b, left, right, cost
        self.costs = axis_costs(cost, left, right)
        self.across = [np.ascontiguousarray(c.T) for c in self.costs]
        self.row_weights, self.column_weights = a.ravel(), b.ravel()
        self._last: tuple[np.ndarray, float, Chain] | None = None

    def chain(self, v: np.ndarray, scale: float, *, transposed: bool = False) -> Chain:
        """The shares of flat exponents v; points without mass have none."""
        weights, costs = (self.a, self.across) if transposed else (self.b, self.costs)
        if self._last is not None and not transposed and self._last[1] == scale and np.array_equal(self._last[0], v):
            return self._last[2]
        found = Chain(np.where(weights > 0, v.reshape(weights.shape), _NOTHING), costs, scale)
        if not transposed:
            self._last = v.copy(), scale, found
        return found

    def evaluate(self, v: np.ndarray, scale: float, *, cut: float = EXACT_CUT) -> Evaluation:
        """The rows' logs, column sums and squares; nothing is left out, whatever the cut."""
        chain = self.chain(v, scale)
        sums, squares = chain.sums_and_squares(self.a)
        return Evaluation(chain.logs.ravel(), sums.ravel(), squares.ravel())

    def soft_minima(self, v: np.ndarray, scale: float, *, transposed: bool = False, cut: float = EXACT_CUT) -> np.ndarray:
        """The logs of rows, or of columns."""
        return self.chain(v, scale, transposed=transposed).logs.ravel()

    def curvature(self, point: Evaluation, v: np.ndarray, scale: float, threshold: float, room: int) -> GridCurvature:
        """Products with the curvature, four times the work of a soft-minimum."""
        return GridCurvature(self.chain(v, scale), self.a, self.b.shape)

    def coarser(self, epsilon: float, mean: float) -> tuple[GridPasses, float, Callable[[np.ndarray, float], np.ndarray]] | None:
        """The masses summed over cells of two points an axis."""
        if max(self.a.size, self.b.size) <= _SMALL:
            return None
        (few_a, left, spread_a), (few_b, right, spread_b) = (
            _halved(w, axes, self.cost) for w, axes in ((self.a, self.left), (self.b, self.right))
        )
        small = GridPasses(few_a, few_b, left, right, self.cost)

        def extended(f: np.ndarray, at: float) -> np.ndarray:
            scale = 1 / (at * math.log(2))
            heavy = few_a > 0
            v = np.where(heavy, f.reshape(few_a.shape) * scale + np.log2(np.where(heavy, few_a, 1)), _NOTHING)
            return -Chain(v, axis_costs(self.cost, self.right, left), scale).logs.ravel() / scale

        return small, _TRUST * (spread_a + spread_b), extended

    def marginals(self, u: np.ndarray, v: np.ndarray, scale: float) -> Marginals:
        """Marginals and cost of P_ij = 2^(u_i + v_j - s c_ij)."""
        chain = self.chain(v, scale)
        rows = np.where(self.a > 0, np.exp2(np.minimum(u.reshape(self.a.shape) + chain.logs, 1000.0)), 0.0)
        cost = math.fsum((rows * chain.means(np.zeros_like(self.b), 1.0)).ravel())
        scaled = chain.sums(np.minimum(rows, self.a))
        return Marginals(rows.ravel(), chain.sums(rows).ravel(), scaled.ravel(), cost)

    def row_products(self, u: np.ndarray, v: np.ndarray, scale: float, p: np.ndarray, *, transposed: bool = False) -> np.ndarray:
        """P p (n, k) for p (m, k); transposed: P^T p for p (n, k), u then being the columns' and v the rows'."""
        chain = self.chain(v, scale, transposed=transposed)
        weights, shape = (self.b, self.a.shape) if transposed else (self.a, self.b.shape)
        mass = np.where(weights > 0, np.exp2(np.minimum(u.reshape(weights.shape) + chain.logs, 1000.0)), 0.0)
        return np.stack([(mass * chain.means(np.ascontiguousarray(c).reshape(shape))).ravel() for c in p.T], -1)

    def mean_cost(self, a: np.ndarray, b: np.ndarray) -> float:
        """sum_ij a_i b_j c_ij for flat weights: an axis at a time, from the weights' marginals there."""
        a, b, total = a.reshape(self.a.shape), b.reshape(self.b.shape), 0.0
        for axis, costs in enumerate(self.costs):
            others = tuple(k for k in range(a.ndim) if k != axis)
            total += float(a.sum(others) @ costs @ b.sum(others))
        return total


def _halved(weights: np.ndarray, axes: Sequence[np.ndarray], cost: Cost) -> tuple[np.ndarray, list[np.ndarray], float]:
    """Masses and coordinates of cells of two points an axis, and the mean cost of moving the masses to the cells' centres."""
    coarse, spread = [], 0.0
    for axis, points in enumerate(axes):
        if len(points) <= 4:
            coarse.append(points)
            continue
        centres = (points[::2] + np.append(points[1::2], points[-1:] if len(points) % 2 else [])) / 2
        moved = np.diag(axis_costs(cost, [points], [np.repeat(centres, 2)[: len(points)]])[0])
        spread += float(weights.sum(tuple(k for k in range(weights.ndim) if k != axis)) @ moved)
        coarse.append(centres)
    for axis, points in enumerate(axes):
        if len(coarse[axis]) != len(points):
            weights = np.add.reduceat(weights, np.arange(0, len(points), 2), axis=axis)
    return weights, coarse, spread


__all__ = ["Chain", "GridPasses"]
