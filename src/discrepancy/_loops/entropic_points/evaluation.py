"""The soft-minimum of every row, and with it column sums and squares of the plan whose rows it makes exact."""

# pyright: reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import math

import numpy as np

from discrepancy._loops.compiled import compiled
from discrepancy._loops.entropic_points.blocks import visits
from discrepancy._loops.entropic_points.exponents import FAST, exponents
from discrepancy._loops.exponential import exp2_double


@compiled(fastmath=FAST)
def _powers(buffer, size, top):
    """buffer[t] becomes 2^(buffer[t] - top); returns the sum."""
    total = 0.0
    for t in range(size):
        w = exp2_double(buffer[t] - top)
        buffer[t] = w
        total += w
    return total


@compiled(fastmath=FAST)
def _add(buffer, at, size, weight, share, sums, squares, begin):
    """sums_j += weight e_j and squares_j += weight share e_j^2 over one block."""
    for t in range(size):
        w = weight * buffer[at + t]
        sums[begin + t] += w
        squares[begin + t] += w * (share * buffer[at + t])


@compiled
def soft_minima(ground, rows, first, last, columns, v, tops, cut, given, weights, logs, sums, squares):
    """logs[i] = log2 sum_j 2^(v_j - s c_ij) for the rows of blocks first to last - 1; where `sums` is not empty also
    sums_j += a_i Q_ij and squares_j += a_i Q_ij^2, with Q_ij the row's shares, which sum to one.

    Skips blocks of columns whose entries are below 2^-cut of the row's largest. Returns the pairs visited, and the largest share
    of a row's sum that can have been skipped. One exponential a visited pair; memory O(m).
    """
    m = columns.starts[-1]
    bounds, visited = np.empty(tops.size), np.empty(tops.size, np.int64)
    buffer = np.empty(m)
    pairs, worst = 0, 0.0
    for block in range(first, last):
        count, missed = visits(ground, rows, block, columns, v, tops, cut, given, bounds, visited, buffer)
        worst = max(worst, missed)
        for i in range(rows.starts[block], rows.starts[block + 1]):
            at, top = 0, -1e300
            for q in range(count):
                begin = columns.starts[visited[q]]
                size = columns.starts[visited[q] + 1] - begin
                top = max(top, exponents(ground, rows, i, columns, v, begin, size, given, buffer[at : at + size]))
                at += size
            total = _powers(buffer, at, top)
            pairs += at
            logs[i] = top + math.log2(total)
            if sums.size == 0 or weights[i] == 0.0:
                continue
            at = 0
            for q in range(count):
                begin = columns.starts[visited[q]]
                size = columns.starts[visited[q] + 1] - begin
                _add(buffer, at, size, weights[i] / total, 1.0 / total, sums, squares, begin)
                at += size
    return pairs, worst


__all__ = ["soft_minima"]
