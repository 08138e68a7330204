"""One axis of a separable soft-minimum, with its conditional shares w_ij = 2^(v_j - s c_ij - l_i), which sum to one over j.

All lines of a grid along one axis: values v (lines, m), costs c (n, m), logs l (lines, n). Each pass forms lines x n x m powers.
"""

# pyright: reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import math

import numpy as np

from discrepancy._loops.compiled import compiled
from discrepancy._loops.entropic_points.exponents import FAST
from discrepancy._loops.exponential import exp2_double


@compiled(fastmath=FAST)
def _log_sum(v, costs, scale, buffer):
    """log2 sum_j 2^(v_j - s c_j)."""
    top = -1e300
    for j in range(v.size):
        e = v[j] - scale * costs[j]
        buffer[j] = e
        top = max(top, e)
    total = 0.0
    for j in range(v.size):
        total += exp2_double(buffer[j] - top)
    return top + math.log2(total)


@compiled
def line_soft_minima(values, costs, scale, first, last, logs):
    """logs[l, i] = log2 sum_j 2^(v_lj - s c_ij) for lines first to last - 1."""
    buffer = np.empty(values.shape[1])
    for line in range(first, last):
        for i in range(costs.shape[0]):
            logs[line, i] = _log_sum(values[line], costs[i], scale, buffer)


@compiled(fastmath=FAST)
def _mean(v, costs, scale, log, p, charge):
    total = 0.0
    for j in range(v.size):
        total += exp2_double(v[j] - scale * costs[j] - log) * (p[j] + charge * costs[j])
    return total


@compiled
def line_means(values, costs, scale, logs, p, charge, first, last, out):
    """out[l, i] = sum_j w_ij (p_lj + charge c_ij): conditional means, with the cost of the step where charge is one."""
    for line in range(first, last):
        for i in range(costs.shape[0]):
            out[line, i] = _mean(values[line], costs[i], scale, logs[line, i], p[line], charge)


@compiled(fastmath=FAST)
def _spread(v, costs, scale, log, weight, out):
    for j in range(v.size):
        out[j] += weight * exp2_double(v[j] - scale * costs[j] - log)


@compiled(fastmath=FAST)
def _spread_both(v, costs, scale, log, weight, square, out, squares):
    for j in range(v.size):
        w = exp2_double(v[j] - scale * costs[j] - log)
        out[j] += weight * w
        squares[j] += square * (w * w)


@compiled
def line_sums(values, costs, scale, logs, weights, first, last, out):
    """out[l, j] = sum_i weights_li w_ij, the transpose of the means."""
    for line in range(first, last):
        out[line] = 0.0
        for i in range(costs.shape[0]):
            if weights[line, i] != 0.0:
                _spread(values[line], costs[i], scale, logs[line, i], weights[line, i], out[line])


@compiled
def line_squares(values, costs, scale, logs, weights, squares, first, last, out, out_squares):
    """out[l, j] = sum_i weights_li w_ij and out_squares[l, j] = sum_i squares_li w_ij^2, in one pass."""
    for line in range(first, last):
        out[line] = 0.0
        out_squares[line] = 0.0
        for i in range(costs.shape[0]):
            if weights[line, i] != 0.0:
                weight, square = weights[line, i], squares[line, i]
                _spread_both(values[line], costs[i], scale, logs[line, i], weight, square, out[line], out_squares[line])


__all__ = ["line_means", "line_soft_minima", "line_squares", "line_sums"]
