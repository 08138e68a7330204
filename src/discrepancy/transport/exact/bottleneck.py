"""W_inf in any dimension: the smallest distance t such that the pairs within t carry a coupling, found by bisection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from discrepancy._results import NumericalError, TransportResult
from discrepancy._validate import SamplePair, as_tensor, weights
from discrepancy.costs import Cost, Euclidean
from discrepancy.transport.exact.choose import ExactSolver, cost_matrix
from discrepancy.transport.exact.gradient import Entries, plan_value
from discrepancy.transport.exact.inputs import check_matrix, on_cpu, unit_masses
from discrepancy.transport.exact.line_plan import solve_line
from discrepancy.transport.exact.result import Certificate, Solved, transport_result
from discrepancy.transport.exact.solution import ExactSolution

# Distances, the indicator of those in question, and what the solver makes of it.
_BYTES_PER_PAIR = 40


def bottleneck(D: np.ndarray, a: np.ndarray, b: np.ndarray, solver: ExactSolver, tie: float) -> ExactSolution:
    """The plan of weights a (n,), b (m,) whose largest distance D_ij is least; that distance as primal and dual, no potentials.

    Each step asks for the plan with the least mass beyond a distance t. None: t suffices. Some: t does not, and the plan's own
    largest distance does. Mass of up to `tie` may be left out of account (and out of the plan): the weights' rounding could
    otherwise send 1e-16 of mass far away. As many problems as the logarithm of the number of distances in question, each started
    from the basis of the last. NumericalError where infinite distances (forbidden pairs) cannot be avoided.
    """
    rows, columns = np.flatnonzero(a), np.flatnonzero(b)
    D, a, b = D[np.ix_(rows, columns)], a[rows], b[columns]
    forbidden = np.isinf(D)
    # No coupling does better than the worst point's own nearest partner.
    least = max(D.min(1).max(), D.min(0).max())
    if np.isinf(least):
        raise NumericalError(
            "some point of positive weight may be paired with no other: every distance of its row or column is infinite"
        )
    levels = np.unique(D[(least <= D) & ~forbidden])
    low, high, at = 0, len(levels), 0
    pivots, basis, best, last = 0, None, None, None
    while low < high:
        costs = (levels[at] < D).astype(np.float64)
        costs[forbidden] = np.inf
        last = solver.solve_matrix(costs, a, b, start=basis)
        pivots, basis = pivots + last.pivots, last.basis
        plan, distances = (last.rows, last.columns, last.mass), D[last.rows, last.columns]
        within = distances <= levels[at]
        if last.mass[~within].sum() <= tie:
            plan, distances = tuple(t[within] for t in plan), distances[within]
        else:
            low = at + 1
        reached = int(np.searchsorted(levels, distances.max()))
        if best is None or reached < high:
            high, best = reached, plan
        at = (low + high) // 2
    assert best is not None
    assert last is not None
    value = float(levels[high])
    i, j, mass = best
    none = np.zeros(0)
    rungs = ("bisection over distances", *last.rungs)
    return ExactSolution(rows[i], columns[j], mass, none, none, value, value, pivots, 0, last.outcome, rungs)


@dataclass(frozen=True)
class _Batch:
    """The bottleneck plans of a batch with weights a (B, n), b (B, m), and the entry of each that attains its distance."""

    solved: Solved
    attained: Entries


def _batch(plans: list[ExactSolution], distances: list[np.ndarray], a: np.ndarray, b: np.ndarray) -> _Batch:
    """Plans with the distances of their entries."""
    worst = [int(np.argmax(d)) for d in distances]
    rows, columns = ([int(getattr(p, side)[w]) for p, w in zip(plans, worst, strict=True)] for side in ("rows", "columns"))
    size = len(plans)
    attained = Entries(torch.arange(size), torch.tensor(rows), torch.tensor(columns), torch.ones(size, dtype=torch.float64))
    left, right = torch.from_numpy(a), torch.from_numpy(b)
    solved = Solved(plans, Entries.of(plans), torch.zeros_like(left), torch.zeros_like(right), left, right)
    return _Batch(solved, attained)


def _tie(weights: Tensor, other: Tensor, uniform: bool) -> float:
    """The mass that the weights' own rounding may shift; none where they are equal."""
    return 0.0 if uniform else float(torch.finfo(weights.dtype).eps) * (weights.shape[-1] + other.shape[-1])


def _points(pair: SamplePair, solver: ExactSolver) -> tuple[_Batch, Tensor]:
    """The batch of a pair of samples, and W_inf (B,) in float64, differentiable."""
    n, m, d = pair.x.shape[-2], pair.y.shape[-2], pair.x.shape[-1]
    for points, name in ((pair.x, "x"), (pair.y, "y")):
        on_cpu(points, name)
    if d > 1:
        _check_memory(n, m, solver)
    x, y = (t.reshape(-1, t.shape[-2], d) for t in (pair.x, pair.y))
    a, b = (w.reshape(-1, w.shape[-1]) for w in (pair.a, pair.b))
    left, right = unit_masses(a, pair.uniform_a), unit_masses(b, pair.uniform_b)
    tie = _tie(a, b, pair.uniform_a and pair.uniform_b)
    plans, distances = [], []
    for k in range(len(x)):
        u, v = (t[k].detach().contiguous().numpy() for t in (x, y))
        if d == 1:
            plan = solve_line(u[:, 0], v[:, 0], left[k], right[k], np.inf, tie=tie)
        else:
            plan = bottleneck(cost_matrix(u, v, Euclidean()), left[k], right[k], solver, tie)
        plans.append(plan)
        distances.append(np.linalg.norm(u[plan.rows].astype(np.float64) - v[plan.columns], axis=-1))
    found = _batch(plans, distances, left, right)
    at = found.attained
    gaps = Euclidean().pairs(x[at.problem, at.row].double(), y[at.problem, at.column].double())
    return found, plan_value(gaps, a, b, at, found.solved.f, found.solved.g)


def _check_memory(n: int, m: int, solver: ExactSolver) -> None:
    budget = float(getattr(solver, "memory", 1.0))
    if n * m * _BYTES_PER_PAIR > budget * 2**30:
        raise ValueError(
            f"W_inf of {n} and {m} points needs {n * m * _BYTES_PER_PAIR / 2**30:.1f} GiB for its distances and the solver "
            f"may take {budget:g}: raise NetworkSimplex(memory=...), or take a finite p"
        )


def bottleneck_values(pair: SamplePair, solver: ExactSolver) -> Tensor:
    """W_inf over the batch, differentiable: it moves with one pair of points that attains it."""
    return _points(pair, solver)[1].to(pair.x.dtype).reshape(pair.batch)


def bottleneck_result(pair: SamplePair, solver: ExactSolver) -> TransportResult:
    """W_inf with a plan that attains it."""
    found, value = _points(pair, solver)
    x, y = (t.reshape(-1, *t.shape[-2:]) for t in (pair.x, pair.y))
    return _result(found, value, pair.batch, pair.x.dtype, (x, y, Euclidean()))


def bottleneck_cost_result(C: Any, a: Any, b: Any, solver: ExactSolver) -> TransportResult:
    """The bottleneck of a matrix C (..., n, m) of distances, +inf where forbidden, with a plan."""
    matrix = as_tensor(C, "C")
    check_matrix(matrix)
    batch, (n, m) = matrix.shape[:-2], matrix.shape[-2:]
    _check_memory(n, m, solver)
    left, right = (
        weights(a, (*batch, n), "a", like=matrix).reshape(-1, n),
        weights(b, (*batch, m), "b", like=matrix).reshape(-1, m),
    )
    stack = matrix.reshape(-1, n, m)
    masses = unit_masses(left, a is None), unit_masses(right, b is None)
    tie = _tie(left, right, a is None and b is None)
    distances = [D.detach().double().numpy() for D in stack]
    plans = [bottleneck(D, masses[0][k], masses[1][k], solver, tie) for k, D in enumerate(distances)]
    found = _batch(plans, [D[p.rows, p.columns] for D, p in zip(distances, plans, strict=True)], *masses)
    at = found.attained
    value = plan_value(stack[at.problem, at.row, at.column].double(), left, right, at, found.solved.f, found.solved.g)
    return _result(found, value, batch, matrix.dtype, None)


def _result(
    found: _Batch, value: Tensor, batch: torch.Size, dtype: torch.dtype, points: tuple[Tensor, Tensor, Cost] | None
) -> TransportResult:
    solved = found.solved
    zero = torch.zeros(len(solved.solutions), dtype=torch.float64)
    outcome = next((s.outcome for s in solved.solutions if not s.outcome.ok), solved.solutions[0].outcome)
    certificate = Certificate(value.detach(), zero, solved.marginal_error(), outcome)
    return transport_result(solved, certificate, value.to(dtype).reshape(batch), batch, dtype, points, potentials=False)


__all__ = ["bottleneck", "bottleneck_cost_result", "bottleneck_result", "bottleneck_values"]
