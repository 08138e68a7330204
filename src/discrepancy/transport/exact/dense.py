"""Exact transport on a given cost matrix."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from discrepancy._results import Outcome
from discrepancy.transport.exact.coarsening import cold_start
from discrepancy.transport.exact.columns import IntegerPlan, Start, candidate_arcs, generate, greedy_start, least_in_rows
from discrepancy.transport.exact.flows import IntegerWeights, integer_weights, masses
from discrepancy.transport.exact.forbidden import allowed_start
from discrepancy.transport.exact.matrix import CostMatrix
from discrepancy.transport.exact.solution import Basis, ExactSolution

_ROUNDING = 1e-13  # of the absolute values summed in primal and dual: a gap beyond this is not rounding


def solve_matrix(
    C: np.ndarray, a: np.ndarray, b: np.ndarray, *, start: Basis | None = None, max_pivots: int | None = None
) -> ExactSolution:
    """min over plans P >= 0 with marginals a, b of sum P_ij C_ij, by a network simplex with column generation.

    C (n, m) float32 or float64 (other types are converted in blocks), memory-mapped or not, any sign, +inf where a pair is
    forbidden, never NaN or -inf; a (n,), b (m,) >= 0, each of sum one. `start`, the `basis` of a former solution of the same
    shape, makes it the place to begin: with equal weights its flows and potentials, with others its potentials.
    `max_pivots` ends the work early with Outcome.ITERATION_LIMIT: the plan returned has the right marginals, the potentials
    are feasible, and the gap says how far it is from optimal.

    The simplex keeps its trees strongly feasible on integer flows and hence ends. The potentials are feasible for all allowed
    pairs, points without weight included. Memory: C itself, about 1 kB a row and column, and at most 64 MB for the matrices of
    representatives. Time: 5 to 15 passes over C and some multiple of (n + m)^1.4 in pivots. Source: Dantzig (1951); Cunningham
    (1976) for the pivot rule; Jonker and Volgenant (1987) for the start of small assignments.

    Raises ValueError for shapes that do not fit, NumericalError where the forbidden pairs leave no plan.
    """
    C = np.asarray(C)
    if C.ndim != 2 or C.shape != (len(a), len(b)):
        raise ValueError(f"C must have shape ({len(a)}, {len(b)}), a row for each of a and a column for each of b, got {C.shape}")
    if start is not None and (len(start.a), len(start.b)) != C.shape:
        raise ValueError(
            f"start is the basis of a {len(start.a)} x {len(start.b)} problem, this one is {C.shape[0]} x {C.shape[1]}"
        )
    if max_pivots is not None and max_pivots < 0:
        raise ValueError(f"max_pivots must not be negative, got {max_pivots}")
    weights = integer_weights(a, b)
    matrix = CostMatrix(C, None, None)
    if not weights.complete:
        matrix = CostMatrix(C, weights.rows, weights.columns)
    if start is None:
        rung = "network simplex"
        begin = cold_start(matrix, weights.a, weights.b, np.random.default_rng(0))
    else:
        rung = "network simplex, warm"
        begin = _warm_start(start, weights, matrix)
    begin, whole_a, whole_b = allowed_start(matrix, begin, weights.a, weights.b)
    weights = replace(weights, a=whole_a, b=whole_b)
    plan = generate(matrix, begin, max_pivots=max_pivots)
    return _solution(C, matrix, weights, plan, np.asarray(a, np.float64), np.asarray(b, np.float64), rung)


def _warm_start(basis: Basis, weights: IntegerWeights, matrix: CostMatrix) -> Start:
    """A start near the potentials of `basis`, with its flows if they serve these weights by allowed pairs."""
    f, g = basis.f[weights.rows], basis.g[weights.columns]
    arcs = candidate_arcs(matrix, f, g)
    new_a, new_b = np.zeros_like(basis.a), np.zeros_like(basis.b)
    new_a[weights.rows], new_b[weights.columns] = weights.a, weights.b
    if np.array_equal(basis.a, new_a) and np.array_equal(basis.b, new_b):
        carrying = basis.flows > 0
        rows = np.searchsorted(weights.rows, basis.rows[carrying])
        columns = np.searchsorted(weights.columns, basis.columns[carrying])
        if np.isfinite(matrix.at(rows, columns)).all():
            return Start(arcs, (rows, columns, basis.flows[carrying]), f, g)
    return greedy_start(arcs, weights.a, weights.b, f, g)[0]


def _solution(
    C: np.ndarray, matrix: CostMatrix, weights: IntegerWeights, plan: IntegerPlan, a: np.ndarray, b: np.ndarray, rung: str
) -> ExactSolution:
    """The integer plan as masses, with potentials for all points and both values of weights that sum to one."""
    a, b = a / _sum(a), b / _sum(b)
    mass = masses(plan.flows, plan.rows, weights.a, a[weights.rows])
    costs = matrix.at(plan.rows, plan.columns)
    f, g = _completed(C, weights, plan)
    primal = _sum(mass * costs)
    dual = _sum(np.concatenate([a * f, b * g]))
    rows, columns = weights.rows[plan.rows], weights.columns[plan.columns]

    def rounding() -> float:
        return _ROUNDING * float(mass @ np.abs(costs) + a @ np.abs(f) + b @ np.abs(g))

    if plan.optimal and primal - dual > rounding():
        # A huge potential rounds by more than a small one is worth: f follows it down where g has room to follow f up.
        f, g = _raised(C, f, g)
        dual = _sum(np.concatenate([a * f, b * g]))
    allowed = rounding()
    if primal - dual > allowed:
        # What no float64 potentials can close: a potential of size |f| rounds by eps |f|, and with it its neighbours in the tree,
        # of whatever size they are; and whole-number weights are off by up to 2^-62 or so, little against the mass, much against
        # the value where nearly all mass stays where it is at no cost.
        allowed += (
            4 * np.finfo(np.float64).eps * max(np.abs(f).max(where=a > 0, initial=0), np.abs(g).max(where=b > 0, initial=0))
        )
        allowed += 2 * float(_miss(rows, mass, a) @ np.abs(f) + _miss(columns, mass, b) @ np.abs(g))
    if not plan.optimal:
        outcome = Outcome.ITERATION_LIMIT
    else:
        outcome = Outcome.CONVERGED if primal - dual <= allowed else Outcome.EXHAUSTED
    whole_a, whole_b = np.zeros(len(a), np.int64), np.zeros(len(b), np.int64)
    whole_a[weights.rows], whole_b[weights.columns] = weights.a, weights.b
    return ExactSolution(
        rows=rows,
        columns=columns,
        mass=mass,
        f=f,
        g=g,
        primal=primal,
        dual=dual,
        pivots=plan.pivots,
        rounds=plan.rounds,
        outcome=outcome,
        rungs=(rung,),
        basis=Basis(rows, columns, plan.flows, whole_a, whole_b, f, g),
    )


def _raised(C: np.ndarray, f: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each g_j raised as far as f allows, then each f_i so: feasible as before, and no lower. Two passes over C."""
    from discrepancy._loops.simplex.smallest import lower_to_columns

    matrix = CostMatrix(C, None, None)
    highest = np.full(len(g), np.inf)
    for first, block in matrix.blocks():
        lower_to_columns(block, first, f, highest)
    g = np.where(np.isfinite(highest), highest, g)
    least = least_in_rows(matrix, g)
    return np.where(np.isfinite(least), least, f), g


def _miss(index: np.ndarray, mass: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """How far each marginal of the plan is from its weight."""
    return np.abs(np.bincount(index, mass, len(weights)) - weights)


def _sum(terms: np.ndarray) -> float:
    """The sum, rounded once: primal and dual differ by less than the rounding of an ordinary sum."""
    return math.fsum(terms.tolist())


def _completed(C: np.ndarray, weights: IntegerWeights, plan: IntegerPlan) -> tuple[np.ndarray, np.ndarray]:
    """Potentials of all points: those without weight get the largest feasible value, 0 where all their pairs are forbidden."""
    if weights.complete:
        return plan.f, plan.g
    n, m = C.shape
    f, g = np.full(n, np.nan), np.full(m, np.nan)
    f[weights.rows], g[weights.columns] = plan.f, plan.g
    idle = np.flatnonzero(np.isnan(g))
    if len(idle):
        from discrepancy._loops.simplex.smallest import lower_to_columns

        lowest = np.full(len(idle), np.inf)
        for first, block in CostMatrix(C, weights.rows, idle).blocks():
            lower_to_columns(block, first, plan.f, lowest)
        g[idle] = np.where(np.isfinite(lowest), lowest, 0.0)
    idle = np.flatnonzero(np.isnan(f))
    if len(idle):
        lowest = least_in_rows(CostMatrix(C, idle), g)
        f[idle] = np.where(np.isfinite(lowest), lowest, 0.0)
    return f, g


__all__ = ["solve_matrix"]
