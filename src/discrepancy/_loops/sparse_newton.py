"""Conjugate gradients on the sparse Newton system of entropic transport, [[R, S], [S^T, C]] with diagonal R and C."""

from __future__ import annotations

import numpy as np

from discrepancy._loops.compiled import compiled


@compiled
def product(starts, columns, entries, row_diagonal, column_diagonal, p_rows, p_columns, out_rows, out_columns):
    """(R p + S q, S^T p + C q) for S in CSR, in one pass over its entries: O(n + m + entries)."""
    for j in range(column_diagonal.shape[0]):
        out_columns[j] = column_diagonal[j] * p_columns[j]
    for i in range(row_diagonal.shape[0]):
        own = p_rows[i]
        total = row_diagonal[i] * own
        for k in range(starts[i], starts[i + 1]):
            j = columns[k]
            total += entries[k] * p_columns[j]
            out_columns[j] += entries[k] * own
        out_rows[i] = total


@compiled
def solve(
    starts, columns, entries, row_diagonal, column_diagonal, residual_rows, residual_columns, tolerance, limit, x_rows, x_columns
):
    """Solve the system for the residual by conjugate gradients from zero, with the diagonal as preconditioner.

    Writes x_rows (n,), x_columns (m,) and uses up the residuals; rows and columns with a zero diagonal stay at zero. Stops at
    the relative tolerance in the Euclidean norm or after `limit` products; returns how many there were.
    """
    n, m = row_diagonal.shape[0], column_diagonal.shape[0]
    z_rows, z_columns = np.zeros(n), np.zeros(m)
    p_rows, p_columns = np.zeros(n), np.zeros(m)
    image_rows, image_columns = np.zeros(n), np.zeros(m)
    x_rows[:] = 0.0
    x_columns[:] = 0.0
    first = 0.0
    rz = 0.0
    for i in range(n):
        first += residual_rows[i] ** 2
        if row_diagonal[i] > 0.0:
            p_rows[i] = residual_rows[i] / row_diagonal[i]
        rz += residual_rows[i] * p_rows[i]
    for j in range(m):
        first += residual_columns[j] ** 2
        if column_diagonal[j] > 0.0:
            p_columns[j] = residual_columns[j] / column_diagonal[j]
        rz += residual_columns[j] * p_columns[j]
    enough = tolerance * tolerance * first
    done = 0
    while done < limit and rz > 0.0:
        product(starts, columns, entries, row_diagonal, column_diagonal, p_rows, p_columns, image_rows, image_columns)
        done += 1
        curvature = np.dot(p_rows, image_rows) + np.dot(p_columns, image_columns)
        if not curvature > 0.0:
            break
        step = rz / curvature
        left = 0.0
        fresh = 0.0
        for i in range(n):
            x_rows[i] += step * p_rows[i]
            residual_rows[i] -= step * image_rows[i]
            left += residual_rows[i] ** 2
            z_rows[i] = residual_rows[i] / row_diagonal[i] if row_diagonal[i] > 0.0 else 0.0
            fresh += residual_rows[i] * z_rows[i]
        for j in range(m):
            x_columns[j] += step * p_columns[j]
            residual_columns[j] -= step * image_columns[j]
            left += residual_columns[j] ** 2
            z_columns[j] = residual_columns[j] / column_diagonal[j] if column_diagonal[j] > 0.0 else 0.0
            fresh += residual_columns[j] * z_columns[j]
        if left <= enough:
            break
        turn = fresh / rz
        rz = fresh
        for i in range(n):
            p_rows[i] = z_rows[i] + turn * p_rows[i]
        for j in range(m):
            p_columns[j] = z_columns[j] + turn * p_columns[j]
    return done


__all__ = ["product", "solve"]
