"""High dimension: distances from a matrix product, whose rounding is bounded and whose winners are computed again.

|x - y|^2 = |x|^2 + |y|^2 - 2 x.y is fast and cancels. Its error is below (d + 3) eps (|x|^2 + |y|^2), so that squares shrunk by
this factor give lower bounds; only pairs whose lower bound passes are computed by direct differences, and those values alone
are compared and returned. Nothing is missed and nothing wrong is believed.
"""

# pyright: reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import math

import numpy as np

from discrepancy._loops.compiled import compiled
from discrepancy._loops.pricing.ground import EUCLIDEAN, SIMD, SQUARED, pair, to_square
from discrepancy._loops.pricing.selection import insert

TILE = 128


@compiled
def shrink(d):
    """The part of |x|^2 + |y|^2 by which a squared distance from products may be wrong, with room for its own rounding."""
    return (d + 4) * 2.220446049250313e-16


@compiled(fastmath=SIMD)
def _bounds(metric, products, r, j0, size, row_square, column_squares, v, out):
    """Lower bounds of a tile and their minimum: of keys c - v for SQUARED and EUCLIDEAN, else of squared distances."""
    g, s, w = products[r, j0 : j0 + size], column_squares[j0 : j0 + size], v[j0 : j0 + size]
    least = np.inf
    if metric == SQUARED:
        for t in range(size):
            out[t] = s[t] - 2.0 * g[t] + (row_square - w[t])
            least = min(least, out[t])
    elif metric == EUCLIDEAN:
        for t in range(size):
            out[t] = math.sqrt(max(s[t] - 2.0 * g[t] + row_square, 0.0)) - w[t]
            least = min(least, out[t])
    else:
        for t in range(size):
            out[t] = max(s[t] - 2.0 * g[t] + row_square, 0.0)
            least = min(least, out[t])
    return least


@compiled
def _ceiling_of_least(minima, k, sorted_least):
    """The k-th smallest of `minima`, above which no key can be among the k smallest; +inf for fewer than k. O(tiles k)."""
    held = 0
    for least in minima:
        if held < k or least < sorted_least[k - 1]:
            s = min(held, k - 1)
            held = min(held + 1, k)
            while s > 0 and sorted_least[s - 1] > least:
                sorted_least[s] = sorted_least[s - 1]
                s -= 1
            sorted_least[s] = least
    return sorted_least[k - 1] if held == k else np.inf


@compiled
def smallest(
    metric,
    power,
    products,
    offset,
    x,
    y,
    row_squares,
    column_squares,
    largest_square,
    v,
    tops,
    limit,
    ceiling,
    keys,
    index,
    count,
    lowest,
):
    """The contract of this folder for rows offset, offset + 1, ... with products x.y (rows, m).

    x (n, d), y (m, d), row_squares and column_squares the squared norms shrunk by `shrink(d)`, largest_square that of all
    columns, tops the largest v of every 128 columns. O(rows m), and O(d) for every pair that comes close.
    """
    rows, m = products.shape
    k = keys.shape[1]
    bounds = np.empty(m)
    minima = np.empty((m + TILE - 1) // TILE)
    sorted_least = np.empty(k)
    keyed = metric in (SQUARED, EUCLIDEAN)
    for r in range(rows):
        i = offset + r
        held, worst, low = 0, limit[i], ceiling[i]
        gate = max(worst, low)
        ready = keyed and gate == np.inf
        if ready:
            for b in range(minima.size):
                j0 = b * TILE
                size = min(TILE, m - j0)
                minima[b] = _bounds(metric, products, r, j0, size, row_squares[i], column_squares, v, bounds[j0 : j0 + size])
            # Bounds lie below their keys by at most this: twice the error, or its root.
            slack = 4.0 * shrink(x.shape[1]) * (row_squares[i] + largest_square)
            gate = _ceiling_of_least(minima, k, sorted_least) + (slack if metric == SQUARED else math.sqrt(slack))
        for b in range(minima.size):
            j0 = b * TILE
            size = min(TILE, m - j0)
            # Without a first pass over all tiles one buffer serves them all.
            first = j0 if ready else 0
            near = bounds[first : first + size]
            if not ready:
                minima[b] = _bounds(metric, products, r, j0, size, row_squares[i], column_squares, v, near)
            passes = gate if keyed else to_square(metric, power, gate + tops[b])
            if minima[b] >= passes:
                continue
            for t in range(size):
                if near[t] < passes:
                    j = j0 + t
                    key = pair(metric, power, x, i, y, j) - v[j]
                    low = min(low, key)
                    if key < worst:
                        held = insert(keys, index, i, held, key, j)
                        if held == k:
                            worst = keys[i, k - 1]
                    if max(worst, low) < gate:
                        gate = max(worst, low)
                        passes = gate if keyed else to_square(metric, power, gate + tops[b])
        count[i], lowest[i] = held, low


__all__ = ["TILE", "shrink", "smallest"]
