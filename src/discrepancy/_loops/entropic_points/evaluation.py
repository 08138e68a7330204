"""The soft-minimum of every row, and with it column sums and squares of the plan whose rows it makes exact."""

# pyright: reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import math

from discrepancy._loops.apart import apart
from discrepancy._loops.compiled import compiled
from discrepancy._loops.entropic_points.blocks import near_columns, no_columns, scatter_add
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
def _add(buffer, size, weight, share, sums, squares):
    """sums += weight e and squares += weight share e^2."""
    for t in range(size):
        w = weight * buffer[t]
        sums[t] += w
        squares[t] += w * (share * buffer[t])


@compiled
def soft_minima(ground, rows, first, last, columns, v, tops, cut, given, weights, logs, sums, squares):
    """logs[i] = log2 sum_j 2^(v_j - s c_ij) for the rows of blocks first to last - 1; where `sums` is not empty also
    sums_j += a_i Q_ij and squares_j += a_i Q_ij^2, with Q_ij the row's shares, which sum to one.

    Skips blocks of columns whose entries are below 2^-cut of the row's largest. Returns the pairs visited, and the largest share
    of a row's sum that can have been skipped. One exponential a visited pair; memory O(m d).
    """
    near = no_columns(columns, tops)
    m, summed = columns.starts[-1], sums.size > 0
    buffer = apart(m)
    near_sums, near_squares = apart(m), apart(m)
    near_sums[:] = 0.0
    near_squares[:] = 0.0
    pairs, worst = 0, 0.0
    for block in range(first, last):
        count, missed = near_columns(ground, rows, block, columns, v, tops, cut, given, near, buffer)
        worst = max(worst, missed)
        size = 0
        for q in range(count):
            size += columns.starts[near.blocks[q] + 1] - columns.starts[near.blocks[q]]
        if summed:
            near_sums[:size] = 0.0
            near_squares[:size] = 0.0
        for i in range(rows.starts[block], rows.starts[block + 1]):
            top = exponents(ground, rows.points, i, near.transposed, near.v, size, given, buffer)
            total = _powers(buffer, size, top)
            logs[i] = top + math.log2(total)
            pairs += size
            if summed and weights[i] > 0.0:
                _add(buffer, size, weights[i] / total, 1.0 / total, near_sums, near_squares)
        if summed:
            scatter_add(columns, near_sums, near, count, sums)
            scatter_add(columns, near_squares, near, count, squares)
    return pairs, worst


__all__ = ["soft_minima"]
