"""Which blocks of columns can matter to a block of rows: a bound from their boxes on every exponent between them."""

# pyright: reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import math

import numpy as np

from discrepancy._loops.compiled import compiled
from discrepancy._loops.entropic_points.exponents import GIVEN, exponents
from discrepancy._loops.pricing.ground import MANHATTAN, from_square


@compiled
def block_tops(columns, v, tops):
    """tops[J] = the largest v in block J of the columns."""
    for b in range(columns.starts.size - 1):
        top = -np.inf
        for j in range(columns.starts[b], columns.starts[b + 1]):
            top = max(top, v[j])
        tops[b] = top


@compiled
def _bounds(ground, rows, block, columns, tops, bounds):
    """bounds[J] >= v_j - scale c(x_i, y_j) for all rows i of the block and all columns j of block J; returns the best J."""
    best = 0
    for b in range(tops.size):
        gap = 0.0
        for k in range(rows.low.shape[0]):
            e = max(max(columns.low[k, b] - rows.high[k, block], rows.low[k, block] - columns.high[k, b]), 0.0)
            gap += e if ground.metric == MANHATTAN else e * e
        least = gap if ground.metric == MANHATTAN else from_square(ground.metric, ground.power, gap)
        bounds[b] = tops[b] - ground.scale * least
        if bounds[b] > bounds[best]:
            best = b
    return best


@compiled
def _above(level, bounds, visited):
    """The blocks whose bound reaches the level, in order; returns how many there are."""
    count = 0
    for b in range(bounds.size):
        if bounds[b] >= level:
            visited[count] = b
            count += 1
    return count


@compiled
def visits(ground, rows, block, columns, v, tops, cut, given, bounds, visited, buffer):
    """The blocks of columns where some entry of some row exceeds 2^-cut of the row's largest entry; returns how many, and
    the share of a row's sum that the others hold at most.

    The largest entry of a row is bounded below by that inside the most promising block. Given costs are visited whole.
    """
    if ground.metric == GIVEN or tops.size == 1 or rows.low.shape[0] == 0:
        for b in range(tops.size):
            visited[b] = b
        return tops.size, 0.0
    best = _bounds(ground, rows, block, columns, tops, bounds)
    begin = columns.starts[best]
    size = columns.starts[best + 1] - begin
    level = np.inf
    for i in range(rows.starts[block], rows.starts[block + 1]):
        level = min(level, exponents(ground, rows, i, columns, v, begin, size, given, buffer))
    count = _above(level - cut, bounds, visited)
    missed = 0.0
    if count < tops.size:
        for b in range(tops.size):
            if bounds[b] < level - cut:
                missed += (columns.starts[b + 1] - columns.starts[b]) * math.exp2(max(bounds[b] - level, -1000.0))
    return count, missed


@compiled
def heavy_blocks(ground, rows, block, columns, tops, u, cut, bounds, visited):
    """The blocks of columns where 2^(u_i + v_j - scale c_ij) may exceed 2^-cut for some row of the block; how many."""
    if ground.metric == GIVEN or tops.size == 1 or rows.low.shape[0] == 0:
        for b in range(tops.size):
            visited[b] = b
        return tops.size
    _bounds(ground, rows, block, columns, tops, bounds)
    top = -np.inf
    for i in range(rows.starts[block], rows.starts[block + 1]):
        top = max(top, u[i])
    return _above(-cut - top, bounds, visited)


__all__ = ["block_tops", "heavy_blocks", "visits"]
