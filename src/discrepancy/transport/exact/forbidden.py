"""Forbidden pairs: a plan that avoids them, found exactly, or the rows and columns that rule one out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from discrepancy._results import NumericalError
from discrepancy.transport.exact.columns import Arcs, Start, generate
from discrepancy.transport.exact.matrix import CostMatrix

_ROUNDING = 2.0**-53  # of the total, a point: what float64 weights can differ by that are meant to be equal


def allowed_start(matrix: CostMatrix, start: Start, a: np.ndarray, b: np.ndarray) -> tuple[Start, np.ndarray, np.ndarray]:
    """A start whose flows serve the integer weights a, b by allowed pairs alone, near the one given, and those weights.

    The one given, if it does. Otherwise the flow on forbidden pairs is minimised first: the transport problem of cost 1 on
    those and 0 elsewhere, in which all numbers are small integers, so that no large constant enters the costs and nothing is
    rounded. What forbidden arcs are left in its tree carry no flow and drop out with it. Where the allowed pairs fall into
    parts whose weights agree to rounding only, the few units left over are taken off both weights.
    Raises NumericalError, naming rows and columns, where every plan needs a forbidden pair.
    """
    if np.isfinite(matrix.at(*start.forest[:2])).all():
        return start, a, b
    indicator = replace(matrix, forbidden=True)
    n, m = matrix.shape
    arcs = Arcs(start.arcs.rows, start.arcs.columns, np.zeros(len(start.arcs.costs)))
    plan = generate(indicator, Start(arcs, start.forest, np.zeros(n), np.zeros(m)))
    used = indicator.at(plan.rows, plan.columns) > 0
    rows, columns, flows = plan.rows, plan.columns, plan.flows
    if used.any():
        if float(flows[used].sum()) > _ROUNDING * (n + m) * float(a.sum()):
            raise NumericalError(_separation(matrix, rows, columns, rows[used], a, b))
        a, b = a.copy(), b.copy()
        np.subtract.at(a, rows[used], flows[used])
        np.subtract.at(b, columns[used], flows[used])
        rows, columns, flows = rows[~used], columns[~used], flows[~used]
    return replace(start, forest=(rows, columns, flows)), a, b


def _separation(
    matrix: CostMatrix, rows: np.ndarray, columns: np.ndarray, unserved: np.ndarray, a: np.ndarray, b: np.ndarray
) -> str:
    """The sentence that names rows which weigh more than all columns they may go to.

    From the rows whose flow is forbidden: every column allowed to a reached row is reached, and every row that ships to it.
    At the least forbidden flow no reached column has room left, so that the reached rows weigh too much.
    """
    n, m = matrix.shape
    row_reached, column_reached = np.zeros(n, bool), np.zeros(m, bool)
    new = np.unique(unserved)
    while len(new):
        row_reached[new] = True
        column_reached |= np.isfinite(matrix.part(new)).any(0)
        sources = np.zeros(n, bool)
        sources[rows[column_reached[columns]]] = True
        new = np.flatnonzero(sources & ~row_reached)
    i, j = np.flatnonzero(row_reached), np.flatnonzero(column_reached)
    mass, room = float(a[i].sum() / a.sum()), float(b[j].sum() / b.sum())
    if matrix.rows is not None:
        i = matrix.rows[i]
    if matrix.columns is not None:
        j = matrix.columns[j]
    where = f"can only go to {_listed('column', j)} of weight {room:.6g}" if len(j) else "can go nowhere"
    return (
        f"the forbidden pairs (infinite costs) leave no plan: {_listed('row', i)} of weight {mass:.6g} {where}; "
        "allow more pairs, or relax the marginals (UnbalancedSinkhorn)"
    )


def _listed(what: str, index: np.ndarray) -> str:
    shown = ", ".join(str(int(k)) for k in index[:8])
    return f"{what}{'s' if len(index) > 1 else ''} {shown}" + (f" and {len(index) - 8} more" if len(index) > 8 else "")


__all__ = ["allowed_start"]
