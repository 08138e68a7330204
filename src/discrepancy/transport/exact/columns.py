"""Column generation: the simplex on the few arcs of small reduced cost, and passes over the matrix for what they miss."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from discrepancy.transport.exact.matrix import CostMatrix

_CANDIDATES = 8  # arcs of smallest reduced cost kept for each row and for each column
# Rounds without progress after which rounding is held to be all that is left, and pivots a node between two looks at it.
_PATIENCE, _PART = 20, 1000
_ADDED = 4  # violating arcs added for a row and a pass
_EVERY_PAIR = 2_500  # entries up to which all pairs are arcs from the start


@dataclass(frozen=True)
class Arcs:
    """Arcs rows, columns (k,) int32 with their costs (k,) float64."""

    rows: np.ndarray
    columns: np.ndarray
    costs: np.ndarray

    def before(self, other: Arcs) -> Arcs:
        """These arcs followed by the others."""
        joined = (np.concatenate(pair) for pair in zip(self._all(), other._all(), strict=True))
        return Arcs(*joined)

    def chosen(self, keep: np.ndarray) -> Arcs:
        """The arcs at a mask or an index."""
        return Arcs(*(part[keep] for part in self._all()))

    def _all(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.rows, self.columns, self.costs


@dataclass(frozen=True)
class IntegerPlan:
    """An optimal basic flow rows, columns, flows (k,) int64 with feasible potentials f, g; `optimal` unless pivots ran out."""

    rows: np.ndarray
    columns: np.ndarray
    flows: np.ndarray
    f: np.ndarray
    g: np.ndarray
    pivots: int
    rounds: int
    optimal: bool


Forest = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Start:
    """Where the simplex begins: candidate arcs, a forest of flows (rows, columns, flows), potentials f, g to hang it by."""

    arcs: Arcs
    forest: Forest
    f: np.ndarray
    g: np.ndarray


def candidate_arcs(matrix: CostMatrix, f: np.ndarray, g: np.ndarray) -> Arcs:
    """The allowed arcs of the smallest reduced costs in each row and each column, without repeats; all in a small matrix.

    One pass over the matrix; k <= 8 (n + m).
    """
    from discrepancy._loops.simplex.smallest import smallest_in_columns, smallest_in_rows

    n, m = matrix.shape
    if n * m <= _EVERY_PAIR:
        return every_arc(matrix)
    in_row, in_column = min(_CANDIDATES, m), min(_CANDIDATES, n)
    row_value, row_place, row_least = np.empty((n, in_row)), np.zeros((n, in_row), np.int32), np.empty(n)
    column_value, column_place = np.full((m, in_column), np.inf), np.zeros((m, in_column), np.int32)
    for first, block in matrix.blocks():
        stop = first + len(block)
        unbounded, count = np.full(len(block), np.inf), np.empty(len(block), np.int64)
        smallest_in_rows(block, g, unbounded, row_value[first:stop], row_place[first:stop], count, row_least[first:stop])
        smallest_in_columns(block, first, f, column_value, column_place)
    by_row = np.arange(n, dtype=np.int64)[:, None] * m + row_place
    by_column = column_place.astype(np.int64) * m + np.arange(m)[:, None]
    pairs = np.sort(np.concatenate([by_row.ravel(), by_column.ravel()]))
    pairs = pairs[np.append(True, pairs[1:] != pairs[:-1])]
    i, j = (part.astype(np.int32) for part in np.divmod(pairs, m))
    return allowed_arcs(matrix, i, j)


def every_arc(matrix: CostMatrix) -> Arcs:
    """All allowed pairs; k <= n m."""
    n, m = matrix.shape
    i, j = np.divmod(np.arange(n * m, dtype=np.int32), np.int32(m))
    return allowed_arcs(matrix, i, j)


def allowed_arcs(matrix: CostMatrix, i: np.ndarray, j: np.ndarray) -> Arcs:
    """The pairs (i, j) that are not forbidden."""
    arcs = Arcs(i, j, matrix.at(i, j))
    return arcs.chosen(np.isfinite(arcs.costs))


def greedy_start(arcs: Arcs, a: np.ndarray, b: np.ndarray, f: np.ndarray, g: np.ndarray) -> tuple[Start, float]:
    """A flow that serves all weights, arcs taken in the order of their reduced costs, and the share of the mass they serve.

    What they leave is matched north-west, be it by forbidden pairs.
    """
    from discrepancy._loops.simplex import greedy

    order = np.argsort(arcs.costs - f[arcs.rows] - g[arcs.columns])
    rows, columns, flows, by_arcs = greedy(arcs.rows[order], arcs.columns[order], a, b)
    return Start(arcs, (rows, columns, flows), f, g), float(flows[:by_arcs].sum() / flows.sum())


class _Progress:
    """Whether rounds still improve the plan's cost or the potentials' value: the best of each, and how long ago it was found."""

    def __init__(self, start: Start) -> None:
        """Nothing found yet; the weights are those that the start's flows serve."""
        rows, columns, flows = start.forest
        self.a = np.bincount(rows, flows, len(start.f))
        self.b = np.bincount(columns, flows, len(start.g))
        self.primal, self.dual, self.quiet = np.inf, -np.inf, 0

    def stalled(self, matrix: CostMatrix, plan: Forest, least: np.ndarray, g: np.ndarray) -> bool:
        """True after `_PATIENCE` rounds in a row that brought neither a cheaper plan nor a higher bound."""
        rows, columns, flows = plan
        primal = math.fsum((flows * matrix.at(rows, columns)).tolist())
        used = self.a > 0
        dual = math.fsum([*(self.a[used] * least[used]).tolist(), *(self.b * g).tolist()])
        better = primal < self.primal or dual > self.dual
        self.primal, self.dual = min(self.primal, primal), max(self.dual, dual)
        self.quiet = 0 if better else self.quiet + 1
        return self.quiet >= _PATIENCE


def violating_arcs(matrix: CostMatrix, f: np.ndarray, g: np.ndarray) -> tuple[Arcs, np.ndarray]:
    """Up to four arcs a row with the most negative reduced costs beyond rounding, and min_j c_ij - g_j of each row.

    One pass over the matrix.
    """
    from discrepancy._loops.simplex import TOLERANCE
    from discrepancy._loops.simplex.smallest import smallest_in_rows

    n, m = matrix.shape
    wanted = min(_ADDED, m)
    values, places = np.empty((n, wanted)), np.zeros((n, wanted), np.int32)
    count, least = np.empty(n, np.int64), np.empty(n)
    bound = f - TOLERANCE * np.abs(f)
    for first, block in matrix.blocks():
        part = slice(first, first + len(block))
        smallest_in_rows(block, g, bound[part], values[part], places[part], count[part], least[part])
    found = np.arange(wanted) < count[:, None]
    i, j = np.nonzero(found)[0].astype(np.int32), places[found]
    costs = matrix.at(i, j)
    # In the simplex's own order of operations: what is added here is an arc that it will take.
    violating = (costs - f[i]) - g[j] < -TOLERANCE * np.maximum(np.abs(costs), np.abs(f[i]))
    return Arcs(i, j, costs).chosen(violating), least


def least_in_rows(matrix: CostMatrix, g: np.ndarray) -> np.ndarray:
    """min_j c_ij - g_j (n,); one pass over the matrix."""
    from discrepancy._loops.simplex.smallest import smallest_in_rows

    n = matrix.shape[0]
    least = np.empty(n)
    for first, block in matrix.blocks():
        r = len(block)
        values, places, count = np.empty((r, 1)), np.empty((r, 1), np.int32), np.empty(r, np.int64)
        # Nothing lies below -inf: only the minimum is taken.
        smallest_in_rows(block, g, np.full(r, -np.inf), values, places, count, least[first : first + r])
    return least


def generate(matrix: CostMatrix, start: Start, *, max_pivots: int | None = None) -> IntegerPlan:
    """Pivot over the arcs of the start, add the arcs that violate, and repeat until none in the matrix does.

    Memory O(arcs + n + m): nothing of the matrix's size; every round reads the matrix once. The potentials returned are
    feasible to the rounding of c: f_i = min_j c_ij - g_j.
    """
    from discrepancy._loops import simplex

    n, m = matrix.shape
    limit = simplex.NO_LIMIT if max_pivots is None else max_pivots
    rows, columns, flows = start.forest
    tree = simplex.build(n, m, rows, columns, flows, matrix.at(rows, columns), start.f, start.g)
    simplex.refresh(tree)
    arcs = start.arcs
    rounds, progress = 0, _Progress(start)
    while True:
        before = simplex.pivots(tree)
        left = limit - before
        # In parts, between which the potentials are recomputed: the rounding that pivots gather would else feed on itself.
        part = min(left, _PART * (n + m))
        finished = simplex.solve_arcs(tree, n, arcs.rows, arcs.columns, arcs.costs, max_pivots=part)
        simplex.refresh(tree)
        f, g = simplex.potentials(tree, n)
        missed, least = violating_arcs(matrix, f, g)
        rounds += 1
        moved = simplex.pivots(tree) - before
        stalled = progress.stalled(matrix, simplex.plan(tree, n), least, g)
        if not finished and moved == left:
            optimal = False
            break
        # Arcs that violate here pivot there: a round without a pivot has met rounding, and the gap will say how much. So have
        # many rounds in which neither value improves: rounding lets arcs enter in a circle.
        if stalled or (finished and (not len(missed.costs) or (rounds > 1 and moved == 0))):
            optimal = True
            break
        arcs = missed.before(arcs)
    least[~np.isfinite(least)] = 0.0  # a row without weight whose pairs are all forbidden
    return IntegerPlan(*simplex.plan(tree, n), least, g, simplex.pivots(tree), rounds, optimal)


__all__ = [
    "Arcs",
    "Forest",
    "IntegerPlan",
    "Start",
    "allowed_arcs",
    "candidate_arcs",
    "every_arc",
    "generate",
    "greedy_start",
    "least_in_rows",
    "violating_arcs",
]
