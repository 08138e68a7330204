"""The monotone coupling on the line as an exact solution: entries, potentials, and the gap between their values."""

from __future__ import annotations

import numpy as np
import torch

from discrepancy._results import Outcome
from discrepancy.transport.exact.solution import ExactSolution
from discrepancy.transport.line import line_costs

# Levels are whole multiples of this share of the mass: rows and columns then end at exactly the same total.
_GRAIN = 1 << 60


def solve_line(u: np.ndarray, v: np.ndarray, a: np.ndarray, b: np.ndarray, p: float) -> ExactSolution:
    """The optimal plan for |u_i - v_j|^p, p >= 1, between points u (n,), v (m,) of the line with weights a (n,), b (m,).

    Quantiles are matched: row i and column j share the mass of the levels that both cover. Potentials follow the coupling, at
    ties the midpoint of what is optimal. p = inf gives the same plan, optimal for the largest distance too, without potentials.
    Time n log n, memory linear.
    """
    order_u, order_v = np.argsort(u, kind="stable"), np.argsort(v, kind="stable")
    order_u, order_v = order_u[a[order_u] > 0], order_v[b[order_v] > 0]
    A, B = _levels(a[order_u], b[order_v])
    cuts = np.union1d(A, B)
    mass = np.diff(cuts, prepend=0) / float(A[-1])
    # A segment that ends at a cut belongs to the first point whose level reaches it.
    rows, columns = order_u[np.searchsorted(A, cuts)], order_v[np.searchsorted(B, cuts)]
    if np.isinf(p):
        f, g = np.zeros(len(u)), np.zeros(len(v))
        primal = dual = float(np.abs(u[rows].astype(np.float64) - v[columns]).max())
    else:
        us, vs, left, right = (torch.from_numpy(np.array(t, np.float64))[None] for t in (u, v, a, b))
        found = line_costs(us, vs, left, right, p, weights=True)
        assert found.grad_a is not None
        assert found.grad_b is not None
        f, g = found.grad_a[0].numpy(), found.grad_b[0].numpy()
        primal, dual = float(mass @ np.abs(u[rows].astype(np.float64) - v[columns]) ** p), float(a @ f + b @ g)
    return ExactSolution(rows, columns, mass, f, g, primal, dual, 0, 0, Outcome.CLOSED_FORM, ("sorting",))


def _levels(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cumulative positive weights as int64 with one total: exact for equal weights, else to 2^-53 of the total."""
    if (a == a[0]).all() and (b == b[0]).all():
        return np.arange(1, len(a) + 1) * len(b), np.arange(1, len(b) + 1) * len(a)

    def levels(w: np.ndarray) -> np.ndarray:
        sums = np.cumsum(w)
        found = np.rint(sums / sums[-1] * _GRAIN).astype(np.int64)
        found[-1] = _GRAIN
        return found

    return levels(a), levels(b)


__all__ = ["solve_line"]
