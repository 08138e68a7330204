"""Soft-minima over rows: one value a column, accumulated row by row as the matrix lies in memory."""

# pyright: reportIndexIssue=false, reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

import numpy as np

from discrepancy._loops.apart import apart
from discrepancy._loops.compiled import compiled
from discrepancy._loops.entropic.arithmetic import FAST
from discrepancy._loops.exponential import exp2_double


@compiled(fastmath=FAST)
def column_soft_minimum(cost, rows, scale, u, out):
    """Writes out_j = -log2 sum_k 2^(u_k - scale C_(rows_k, j)) (m,), in units of log 2; 0 where no pair is allowed.

    rows and u (k,). Two passes over those rows, the first for the largest exponents.
    """
    m = cost.shape[1]
    top, mass = apart(m), apart(m)
    top[:] = -1e300
    mass[:] = 0.0
    for k in range(rows.size):
        row, base = cost[rows[k]], u[k]
        for j in range(m):
            top[j] = max(top[j], base - scale * row[j])
    for k in range(rows.size):
        row, base = cost[rows[k]], u[k]
        for j in range(m):
            mass[j] += exp2_double(base - scale * row[j] - top[j])
    for j in range(m):
        out[j] = -(top[j] + np.log2(mass[j])) if mass[j] > 0.0 else 0.0
