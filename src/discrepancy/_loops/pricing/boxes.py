"""Low dimension: cells of columns are skipped when their bounding box is too far away for any of their keys to matter."""

# pyright: reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import numpy as np

from discrepancy._loops.compiled import compiled
from discrepancy._loops.pricing.ground import MANHATTAN, box_squares, from_square, tile
from discrepancy._loops.pricing.selection import insert

# Where the walk forgets which cell the previous row liked best, so that rows may be split there without changing a bit.
RESTART = 512


@compiled
def extents(points_t, bounds, low, high):
    """The bounding boxes low, high (d, cells) of the ranges bounds[c]:bounds[c+1] of points (d, n); O(n d)."""
    for k in range(points_t.shape[0]):
        for c in range(bounds.size - 1):
            smallest_, largest = np.inf, -np.inf
            for q in range(bounds[c], bounds[c + 1]):
                t = points_t[k, q]
                if t < smallest_:
                    smallest_ = t
                if t > largest:
                    largest = t
            low[k, c], high[k, c] = smallest_, largest


@compiled
def _least(metric, power, square, top):
    """The least key of a cell at `square` from the point whose largest v is `top`."""
    return (square if metric == MANHATTAN else from_square(metric, power, square)) - top


@compiled
def _nearest(metric, power, squares, tops, offset, size):
    """The cell offset + t, t < size, of least bound."""
    best, where = np.inf, 0
    for t in range(size):
        bound = _least(metric, power, squares[t], tops[offset + t])
        if bound < best:
            best, where = bound, t
    return offset + where


@compiled
def smallest(
    metric, power, x, yt, v, cells, low, high, tops, groups, group_low, group_high, group_tops,
    limit, ceiling, begin, end, keys, index, count, lowest,
):  # fmt: skip
    """The contract of this folder with two layers of boxes; returns the pairs that were looked at.

    x (n, d), yt (d, m); cells (T + 1,) bounds of columns with boxes low, high (d, T) and largest v tops (T,); groups (G + 1,)
    bounds of cells with group_low, group_high, group_tops. A key is at least the cost to the box minus the largest v in it.
    `begin` must be a multiple of RESTART. O(G + cells near by) a row.
    """
    k = keys.shape[1]
    widest, most = 0, 0
    for c in range(cells.size - 1):
        widest = max(widest, cells[c + 1] - cells[c])
    for g in range(groups.size - 1):
        most = max(most, groups[g + 1] - groups[g])
    buffer = np.empty(widest)
    squares = np.empty(most)
    group_squares = np.empty(groups.size - 1)
    favourite, touched = -1, 0
    for i in range(begin, end):
        held, worst, lowest_i = 0, limit[i], ceiling[i]
        gate = max(worst, lowest_i)
        box_squares(metric, x, i, group_low, group_high, 0, group_squares.size, group_squares)
        if i % RESTART == 0:
            g = _nearest(metric, power, group_squares, group_tops, 0, group_squares.size)
            size = groups[g + 1] - groups[g]
            box_squares(metric, x, i, low, high, groups[g], size, squares)
            favourite = _nearest(metric, power, squares, tops, groups[g], size)
        first = favourite
        for g in range(-1, groups.size - 1):
            if g >= 0 and _least(metric, power, group_squares[g], group_tops[g]) >= gate:
                continue
            c0, size = (first, 1) if g < 0 else (groups[g], groups[g + 1] - groups[g])
            if g >= 0:
                box_squares(metric, x, i, low, high, c0, size, squares)
            for t in range(size):
                c = c0 + t
                if g >= 0 and (c == first or _least(metric, power, squares[t], tops[c]) >= gate):
                    continue
                j0, width = cells[c], cells[c + 1] - cells[c]
                touched += width
                tile(metric, power, x, i, yt, j0, width, buffer)
                least = np.inf
                for s in range(width):
                    buffer[s] -= v[j0 + s]
                    least = min(least, buffer[s])
                if least >= gate:
                    continue
                if least < lowest_i:
                    lowest_i, favourite = least, c
                for s in range(width):
                    if buffer[s] < worst:
                        held = insert(keys, index, i, held, buffer[s], j0 + s)
                        if held == k:
                            worst = keys[i, k - 1]
                gate = max(worst, lowest_i)
        count[i], lowest[i] = held, lowest_i
    return touched


__all__ = ["RESTART", "extents", "smallest"]
