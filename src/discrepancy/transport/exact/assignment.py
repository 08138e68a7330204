"""The start of a small problem of equal weights: an assignment by augmenting paths, whole or nearly so."""

from __future__ import annotations

import numpy as np

from discrepancy.transport.exact.columns import Arcs, Start, candidate_arcs, greedy_start, least_in_rows
from discrepancy.transport.exact.matrix import CostMatrix

_LARGEST = 1024  # rows above which the simplex alone is as quick
_SMALL = 128  # rows up to which augmenting paths win in every dimension
_TRIAL, _FREE = 4, 12  # after 4 n scans of a row, at most n / 12 rows may still be free
_SCANS, _MOST_SCANS = 16, 6_000  # scans of a row after which the simplex takes over: 16 n, and no more than 6,000


def assignment_start(matrix: CostMatrix, a: np.ndarray, b: np.ndarray) -> Start | None:
    """A start whose flows are an assignment and whose potentials are its duals; None where this does not promise to be quick.

    For square matrices of equal weights without forbidden pairs, up to 1,024 rows. In high dimension the assignment is mostly
    complete, and the simplex only confirms it; on clouds in the plane too many rows stay free and the simplex is better off
    with a start of its own. O(n^2) time, at most 16 n scans of a row.
    """
    n, m = matrix.shape
    if n != m or n > _LARGEST or not (a == 1).all() or not (b == 1).all():
        return None
    from discrepancy._loops.assignment import assign

    cost = next(matrix.blocks())[1] if matrix.rows is None else matrix.part(np.arange(n))
    if len(cost) < n or not cost.max() < np.inf:
        return None
    most_free = n if n <= _SMALL else n // _FREE
    column_of, _, g, free = assign(cost, _TRIAL * n, most_free, min(_SCANS * n, _MOST_SCANS))
    if free > most_free:
        return None
    f = least_in_rows(matrix, g)
    rows = np.flatnonzero(column_of >= 0)
    columns = column_of[rows]
    matched = Arcs(rows.astype(np.int32), columns.astype(np.int32), matrix.at(rows, columns))
    if free == 0:
        return Start(matched, (rows, columns, np.ones(n, np.int64)), f, g)
    left_a, left_b = np.ones(n, np.int64), np.ones(n, np.int64)
    left_a[rows] = left_b[columns] = 0
    start, _ = greedy_start(candidate_arcs(matrix, f, g), left_a, left_b, f, g)
    more_rows, more_columns, flows = start.forest
    forest = (
        np.concatenate([rows, more_rows]),
        np.concatenate([columns, more_columns]),
        np.concatenate([np.ones(len(rows), np.int64), flows]),
    )
    return Start(start.arcs, forest, f, g)


__all__ = ["assignment_start"]
