"""The gradient of sum_ij P_ij c(x_i, y_j) in both clouds at fixed plan, a row at a time."""

# pyright: reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import math

import numpy as np

from discrepancy._loops.apart import apart
from discrepancy._loops.compiled import compiled
from discrepancy._loops.entropic_points.blocks import gather, heavy_columns, no_columns, scatter_add
from discrepancy._loops.entropic_points.exponents import FAST
from discrepancy._loops.entropic_points.products import plan_row
from discrepancy._loops.pricing.ground import EUCLIDEAN, MANHATTAN, SQUARED


@compiled(fastmath=FAST)
def _add_square(a, y, size, out):
    for t in range(size):
        e = a - y[t]
        out[t] += e * e


@compiled
def _weigh(metric, power, squares, size, plan):
    """plan[t] is multiplied by the factor w of c's gradient w (x - y); zero where the points coincide."""
    for t in range(size):
        if squares[t] == 0.0:
            plan[t] = 0.0
        elif metric == EUCLIDEAN:
            plan[t] /= math.sqrt(squares[t])
        else:
            plan[t] *= power * squares[t] ** (0.5 * power - 1.0)


@compiled(fastmath=FAST)
def _move(a, y, size, plan, factor, out):
    """The row's slope factor sum_t plan_t (a - y_t) in one coordinate; the columns' slopes are subtracted from out."""
    total = 0.0
    for t in range(size):
        w = factor * plan[t] * (a - y[t])
        total += w
        out[t] -= w
    return total


@compiled(fastmath=FAST)
def _step(a, y, size, plan, out):
    """The same with the sign of a - y_t in its place."""
    total = 0.0
    for t in range(size):
        w = plan[t] if a > y[t] else (-plan[t] if a < y[t] else 0.0)
        total += w
        out[t] -= w
    return total


@compiled
def contraction(ground, rows, first, last, columns, v, tops, cut, given, u, grad_rows, grad_columns):
    """grad_rows (n, d) is written, grad_columns (d, m) added to, over the rows of blocks first to last - 1.

    A coordinate or a distance that is zero has slope zero. One exponential and O(d) a visited pair; memory O(m d).
    """
    near = no_columns(columns, tops)
    d, m = columns.transposed.shape
    factor = 2.0 if ground.metric == SQUARED else 1.0
    buffer, squares, ones, moved = apart(m), apart(m), np.ones(m), np.empty((d, m))
    for block in range(first, last):
        count = heavy_columns(ground, rows, block, columns, v, tops, u, cut, near)
        size = gather(columns, v, near, count, squares)
        moved[:, :size] = 0.0
        for i in range(rows.starts[block], rows.starts[block + 1]):
            plan_row(ground, rows.points, i, near, size, u[i], ones, given, buffer)
            if ground.metric != MANHATTAN and ground.metric != SQUARED:
                squares[:size] = 0.0
                for k in range(d):
                    _add_square(rows.points[i, k], near.transposed[k], size, squares)
                _weigh(ground.metric, ground.power, squares, size, buffer)
            for k in range(d):
                if ground.metric == MANHATTAN:
                    grad_rows[i, k] = _step(rows.points[i, k], near.transposed[k], size, buffer, moved[k])
                else:
                    grad_rows[i, k] = _move(rows.points[i, k], near.transposed[k], size, buffer, factor, moved[k])
        for k in range(d):
            scatter_add(columns, moved[k], near, count, grad_columns[k])


__all__ = ["contraction"]
