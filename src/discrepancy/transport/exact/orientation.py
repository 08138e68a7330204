"""One pair of samples in a canonical order of its sides: exchanging the samples then gives the same bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from discrepancy._results import Outcome
from discrepancy.costs import Cost
from discrepancy.transport.exact.choose import ExactSolver
from discrepancy.transport.exact.solution import Basis, ExactSolution


def solve_pair(
    x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, cost: Cost, solver: ExactSolver, start: Basis | None = None
) -> ExactSolution:
    """The optimal plan between points x (n, d) and y (m, d) of weights a (n,), b (m,), by the solver.

    Under a symmetric cost the solver sees the sides in an order that depends on the data only. Equal samples at a cost that
    vanishes at equality stay where they are, with zero potentials as the proof.
    """
    same = x.shape == y.shape and np.array_equal(x, y) and np.array_equal(a, b)
    if same and cost.premetric:
        return _identity(a)
    if not cost.symmetric or same or comes_first(x, a, y, b):
        return solver.solve_points(x, y, a, b, cost, start=start)
    return transposed(solver.solve_points(y, x, b, a, cost, start=None if start is None else _transposed_basis(start)))


def comes_first(x: np.ndarray, a: np.ndarray, y: np.ndarray, b: np.ndarray) -> bool:
    """Whether (x, a) precedes (y, b): more rows first, then by the first entry that differs."""
    if len(x) != len(y):
        return len(x) > len(y)
    for left, right in ((x, y), (a, b)):
        differs = np.flatnonzero((left != right).ravel())
        if len(differs):
            return bool(left.ravel()[differs[0]] > right.ravel()[differs[0]])
    return True


def _identity(a: np.ndarray) -> ExactSolution:
    """Every point stays: cost zero, which no plan undercuts."""
    rows = np.flatnonzero(a)
    zero = np.zeros(len(a))
    return ExactSolution(rows, rows, a[rows], zero, zero, 0.0, 0.0, 0, 0, Outcome.CLOSED_FORM, ("equal samples",))


def transposed(solution: ExactSolution) -> ExactSolution:
    """The solution of the problem with its sides exchanged."""
    s = solution
    basis = None if s.basis is None else _transposed_basis(s.basis)
    return replace(s, rows=s.columns, columns=s.rows, f=s.g, g=s.f, basis=basis)


def _transposed_basis(basis: Basis) -> Basis:
    return Basis(basis.columns, basis.rows, basis.flows, basis.b, basis.a, basis.g, basis.f)


__all__ = ["comes_first", "solve_pair", "transposed"]
