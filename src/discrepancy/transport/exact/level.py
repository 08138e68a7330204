"""One level of the multi-scale solver: candidate arcs, a start, and rounds of simplex and pricing until no pair violates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from discrepancy._results import Outcome
from discrepancy.transport.exact.pricing import Nearest, Pricing
from discrepancy.transport.exact.refinement import Forest
from discrepancy.transport.exact.sweeps import main_partners, solve_where_violated, sweep_cells

# Accepted reduced costs are below -_TOLERANCE max(|c|, |u|) of their own arc: the rounding of many pivots. One number for all
# arcs stops too early where costs span decades.
_TOLERANCE = 5e-15
# Violating arcs that a row may add in one round.
_ADDED = 3
# Pricing rounds; problems of all kinds took under 10.
_MAX_ROUNDS = 200


@dataclass(frozen=True)
class Arcs:
    """Candidate arcs rows, columns (k,) int32 with costs (k,), and the potentials u (n,), v (m,) that they were chosen by."""

    rows: np.ndarray
    columns: np.ndarray
    costs: np.ndarray
    u: np.ndarray
    v: np.ndarray

    def excess(self) -> np.ndarray:
        """c - u - v of every arc."""
        return self.costs - self.u[self.rows] - self.v[self.columns]


@dataclass(frozen=True)
class LevelSolution:
    """The optimal plan of a level, a forest rows, columns, flows (k,); u (n,), v (m,) with u_i + v_j <= c_ij to rounding."""

    rows: np.ndarray
    columns: np.ndarray
    flows: np.ndarray
    u: np.ndarray
    v: np.ndarray
    pivots: int
    rounds: int
    outcome: Outcome


def candidates(pricing: Pricing, n: int, m: int, v: np.ndarray, k: int) -> Arcs:
    """The k arcs of least c_ij - v_j of every row and, with u the row minima, the k of least c_ij - u_i of every column."""
    from discrepancy._loops.pricing.candidates import count_arcs, fill_arcs

    forth = pricing.smallest(v, min(k, m))
    back = pricing.smallest(forth.lowest, min(k, n), back=True)
    start = np.empty(n + 1, np.int64)
    count = count_arcs(forth.index, forth.count, back.index, back.count, start)
    rows, columns = np.empty(count, np.int32), np.empty(count, np.int32)
    fill_arcs(forth.index, forth.count, back.index, back.count, start, rows, columns)
    return Arcs(rows, columns, pricing.pairs(rows, columns), forth.lowest, back.lowest)


def solve_level(pricing: Pricing, n: int, m: int, arcs: Arcs, forest: Forest) -> LevelSolution:
    """The optimum from a forest of flows, the potentials of `arcs` and its arcs.

    Every round solves the problem on the arcs at hand and adds the worst violators of every row, until none is left.
    """
    from discrepancy._loops.simplex import build, pivots, plan, potentials, refresh

    rows, columns, costs = arcs.rows, arcs.columns, arcs.costs
    tree = build(n, m, forest.rows, forest.columns, forest.flows, forest.costs, arcs.u, arcs.v)
    sweep_cells(tree, n, rows, columns, costs, main_partners(forest.rows, forest.columns, forest.flows, m))
    outcome, before, rounds = Outcome.ITERATION_LIMIT, -1, 0
    found: Nearest | None = None
    u, v = arcs.u, arcs.v
    while rounds < _MAX_ROUNDS:
        rounds += 1
        solve_where_violated(tree, n, rows, columns, costs, _TOLERANCE)
        refresh(tree)
        u, v = potentials(tree, n)
        margin = _TOLERANCE * np.abs(u)
        found = pricing.smallest(v, min(_ADDED, m), u - margin, u + margin)
        i, j, c = _violators(pricing, found, u, v)
        if len(i) == 0:
            outcome = Outcome.CONVERGED
            break
        if pivots(tree) == before:  # arcs that violate by rounding only
            outcome = Outcome.EXHAUSTED
            break
        before = pivots(tree)
        rows, columns, costs = np.concatenate([i, rows]), np.concatenate([j, columns]), np.concatenate([c, costs])
    assert found is not None
    return LevelSolution(*plan(tree, n), np.minimum(found.lowest, u), v, pivots(tree), rounds, outcome)


def _violators(pricing: Pricing, found: Nearest, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the pairs found those whose reduced cost, by direct differences, is negative beyond its own rounding."""
    valid = np.arange(found.index.shape[1]) < found.count[:, None]
    i, j = np.nonzero(valid)[0].astype(np.int32), found.index[valid]
    c = pricing.pairs(i, j)
    beyond = c - u[i] - v[j] < -_TOLERANCE * np.maximum(np.abs(u[i]), np.abs(c))
    return i[beyond], j[beyond], c[beyond]


__all__ = ["Arcs", "LevelSolution", "candidates", "solve_level"]
