"""The gradient of sum_ij P_ij c(x_i, y_j) in both clouds at fixed plan, a row at a time."""

# pyright: reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import math

import numpy as np

from discrepancy._loops.compiled import compiled
from discrepancy._loops.entropic_points.blocks import heavy_blocks
from discrepancy._loops.entropic_points.exponents import FAST
from discrepancy._loops.entropic_points.products import plan_row
from discrepancy._loops.pricing.ground import EUCLIDEAN, MANHATTAN, SIMD, SQUARED


@compiled(fastmath=SIMD)
def _slopes(metric, power, x, i, columns, begin, size, plan):
    """plan[t] is multiplied by the factor w_ij of c's gradient w_ij (x_i - y_j); zero where the points coincide."""
    if metric == SQUARED:
        for t in range(size):
            plan[t] *= 2.0
        return
    for t in range(size):
        square = 0.0
        for k in range(x.shape[1]):
            e = x[i, k] - columns.transposed[k, begin + t]
            square += e * e
        if square == 0.0:
            plan[t] = 0.0
        elif metric == EUCLIDEAN:
            plan[t] /= math.sqrt(square)
        else:
            plan[t] *= power * square ** (0.5 * power - 1.0)


@compiled(fastmath=SIMD)
def _move(metric, a, y, begin, size, plan, out):
    """The row's slope in one coordinate; the columns' are subtracted from out."""
    total = 0.0
    p = y[begin : begin + size]
    q = out[begin : begin + size]
    if metric == MANHATTAN:
        for t in range(size):
            e = a - p[t]
            w = plan[t] if e > 0.0 else (-plan[t] if e < 0.0 else 0.0)
            total += w
            q[t] -= w
        return total
    for t in range(size):
        w = plan[t] * (a - p[t])
        total += w
        q[t] -= w
    return total


@compiled
def contraction(ground, rows, first, last, columns, v, tops, cut, given, u, grad_rows, grad_columns):
    """grad_rows (n, d) is written, grad_columns (d, m) added to, over the rows of blocks first to last - 1.

    A coordinate or a distance that is zero has slope zero. One exponential and O(d) a visited pair; memory O(m).
    """
    bounds, visited = np.empty(tops.size), np.empty(tops.size, np.int64)
    buffer, ones = np.empty(columns.starts[-1]), np.ones(columns.starts[-1])
    for block in range(first, last):
        count = heavy_blocks(ground, rows, block, columns, tops, u, cut, bounds, visited)
        for i in range(rows.starts[block], rows.starts[block + 1]):
            plan_row(ground, rows, i, columns, v, u[i], ones, count, visited, given, buffer)
            grad_rows[i] = 0.0
            at = 0
            for q in range(count):
                begin = columns.starts[visited[q]]
                size = columns.starts[visited[q] + 1] - begin
                plan = buffer[at : at + size]
                if ground.metric != MANHATTAN:
                    _slopes(ground.metric, ground.power, rows.points, i, columns, begin, size, plan)
                for k in range(rows.points.shape[1]):
                    grad_rows[i, k] += _move(
                        ground.metric, rows.points[i, k], columns.transposed[k], begin, size, plan, grad_columns[k]
                    )
                at += size


__all__ = ["contraction"]
