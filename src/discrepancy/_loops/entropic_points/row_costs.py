"""Weighted sums of costs over the columns, a row at a time."""

# pyright: reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import numpy as np

from discrepancy._loops.apart import apart
from discrepancy._loops.compiled import compiled
from discrepancy._loops.entropic_points.exponents import FAST, exponents


@compiled(fastmath=FAST)
def row_costs(ground, rows, first, last, columns, given, weights, out):
    """out[i] = -scale sum_j weights_j c(x_i, y_j) for the rows of blocks first to last - 1; O(d) a pair, memory O(m)."""
    buffer, zeros = apart(columns.starts[-1]), np.zeros(columns.starts[-1])
    for i in range(rows.starts[first], rows.starts[last]):
        exponents(ground, rows.points, i, columns.transposed, zeros, columns.starts[-1], given, buffer)
        total = 0.0
        for j in range(columns.starts[-1]):
            total += weights[j] * buffer[j]
        out[i] = total


__all__ = ["row_costs"]
