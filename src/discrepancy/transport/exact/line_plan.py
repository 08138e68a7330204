"""The monotone coupling on the line as an exact solution: entries, potentials, and the gap between their values."""

from __future__ import annotations

import numpy as np
import torch

from discrepancy._results import Outcome
from discrepancy.transport.exact.flows import integer_weights, masses
from discrepancy.transport.exact.solution import ExactSolution
from discrepancy.transport.line import line_costs


def solve_line(u: np.ndarray, v: np.ndarray, a: np.ndarray, b: np.ndarray, p: float, *, tie: float = 0.0) -> ExactSolution:
    """The optimal plan for |u_i - v_j|^p, p >= 1, between points u (n,), v (m,) of the line with weights a (n,), b (m,).

    Quantiles are matched: row i and column j share the mass of the levels that both cover. Potentials follow the coupling, at
    ties the midpoint of what is optimal. p = inf gives the same plan, optimal for the largest distance too, without potentials.
    Segments of at most `tie` of the mass are left out: for p = inf the rounding of the weights would decide otherwise. Time
    n log n, memory linear.
    """
    whole = integer_weights(a, b)
    order_u = np.argsort(u[whole.rows], kind="stable")
    order_v = np.argsort(v[whole.columns], kind="stable")
    A, B = np.cumsum(whole.a[order_u]), np.cumsum(whole.b[order_v])
    cuts = np.union1d(A, B)
    # A segment that ends at a cut belongs to the first point whose level reaches it.
    rows, columns = order_u[np.searchsorted(A, cuts)], order_v[np.searchsorted(B, cuts)]
    mass = masses(np.diff(cuts, prepend=0), rows, whole.a, a[whole.rows])
    kept = mass > tie
    rows, columns, mass = whole.rows[rows[kept]], whole.columns[columns[kept]], mass[kept]
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


__all__ = ["solve_line"]
