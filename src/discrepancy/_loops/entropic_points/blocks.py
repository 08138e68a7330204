"""Which blocks of columns can matter to a block of rows: a bound from their boxes on every exponent between them."""

# pyright: reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import math
from collections import namedtuple

import numpy as np

from discrepancy._loops.compiled import compiled
from discrepancy._loops.entropic_points.exponents import GIVEN, exponents
from discrepancy._loops.pricing.ground import MANHATTAN, from_square

# The columns that a block of rows visits, side by side: their points (d, size), v and the blocks they come from.
Near = namedtuple("Near", ["transposed", "v", "blocks", "bounds"])


@compiled
def no_columns(columns, tops):
    """Room for all columns, to be filled for one block of rows after the other."""
    d, m = columns.transposed.shape[0], columns.starts[-1]
    return Near(np.empty((d, m)), np.empty(m), np.empty(tops.size, np.int64), np.empty(tops.size))


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
def gather(columns, values, near, count, out):
    """out (size,) = values (m,) of the columns in the first `count` blocks of `near`; returns size."""
    at = 0
    for q in range(count):
        begin, end = columns.starts[near.blocks[q]], columns.starts[near.blocks[q] + 1]
        out[at : at + end - begin] = values[begin:end]
        at += end - begin
    return at


@compiled
def scatter_add(columns, values, near, count, out):
    """out (m,) += values (size,) at the places of the columns in the first `count` blocks of `near`."""
    at = 0
    for q in range(count):
        begin, end = columns.starts[near.blocks[q]], columns.starts[near.blocks[q] + 1]
        for j in range(begin, end):
            out[j] += values[at + j - begin]
        at += end - begin


@compiled
def _collect(columns, v, level, near):
    """Fill `near` with the blocks whose bound reaches the level, in order; returns how many."""
    count = 0
    for b in range(near.bounds.size):
        if near.bounds[b] >= level:
            near.blocks[count] = b
            count += 1
    gather(columns, v, near, count, near.v)
    for k in range(columns.transposed.shape[0]):
        gather(columns, columns.transposed[k], near, count, near.transposed[k])
    return count


@compiled
def _unbounded(ground, rows, tops):
    """Whether nothing is known of where points lie, so that all blocks are visited."""
    return ground.metric == GIVEN or tops.size == 1 or rows.low.shape[0] == 0


@compiled
def near_columns(ground, rows, block, columns, v, tops, cut, given, near, buffer):
    """Gather the blocks of columns where some entry of some row exceeds 2^-cut of the row's largest entry; returns how many, and
    the share of a row's sum that the others hold at most.

    The largest entry of a row is bounded below by that inside the most promising block.
    """
    if _unbounded(ground, rows, tops):
        near.bounds[:] = 0.0
        return _collect(columns, v, -1.0, near), 0.0
    best = _bounds(ground, rows, block, columns, tops, near.bounds)
    near.blocks[0] = best
    size = gather(columns, v, near, 1, near.v)
    for k in range(columns.transposed.shape[0]):
        gather(columns, columns.transposed[k], near, 1, near.transposed[k])
    level = np.inf
    for i in range(rows.starts[block], rows.starts[block + 1]):
        level = min(level, exponents(ground, rows.points, i, near.transposed, near.v, size, given, buffer))
    missed = 0.0
    for b in range(tops.size):
        if near.bounds[b] < level - cut:
            missed += (columns.starts[b + 1] - columns.starts[b]) * math.exp2(max(near.bounds[b] - level, -1000.0))
    return _collect(columns, v, level - cut, near), missed


@compiled
def heavy_columns(ground, rows, block, columns, v, tops, u, cut, near):
    """Gather the blocks of columns where 2^(u_i + v_j - scale c_ij) may exceed 2^-cut for some row of the block; how many."""
    if _unbounded(ground, rows, tops):
        near.bounds[:] = 0.0
        return _collect(columns, v, -1.0, near)
    _bounds(ground, rows, block, columns, tops, near.bounds)
    top = -np.inf
    for i in range(rows.starts[block], rows.starts[block + 1]):
        top = max(top, u[i])
    return _collect(columns, v, -cut - top, near)


__all__ = ["Near", "block_tops", "gather", "heavy_columns", "near_columns", "no_columns", "scatter_add"]
