"""Costs of points in compiled loops: one pair, a tile of columns, and the least cost between a point and a box."""

# pyright: reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import math

import numpy as np

from discrepancy._loops.compiled import compiled

# The metrics, as the loops know them. GEODESIC is the angle between unit vectors.
SQUARED, EUCLIDEAN, POWER, MANHATTAN, GEODESIC = 0, 1, 2, 3, 4

# Reassociation and contraction only: infinities and NaN keep their meaning.
SIMD = {"contract", "reassoc", "nsz", "arcp"}


@compiled(fastmath=SIMD)
def pair(metric, power, x, i, y, j):
    """c(x_i, y_j) by direct differences; x (n, d), y (m, d); O(d)."""
    total, opposite = 0.0, 0.0
    if metric == MANHATTAN:
        for k in range(x.shape[1]):
            total += abs(x[i, k] - y[j, k])
        return total
    for k in range(x.shape[1]):
        e = x[i, k] - y[j, k]
        total += e * e
    if metric == SQUARED:
        return total
    if metric == EUCLIDEAN:
        return math.sqrt(total)
    if metric == POWER:
        return total ** (0.5 * power)
    for k in range(x.shape[1]):
        e = x[i, k] + y[j, k]
        opposite += e * e
    return 2.0 * math.atan2(math.sqrt(total), math.sqrt(opposite))


@compiled
def pairs(metric, power, x, y, rows, columns, out):
    """out[k] = c(x[rows[k]], y[columns[k]]); O(d) each."""
    for k in range(rows.size):
        out[k] = pair(metric, power, x, rows[k], y, columns[k])


@compiled(fastmath=SIMD)
def tile(metric, power, x, i, yt, begin, size, out):
    """out[t] = c(x_i, y_{begin + t}) for t < size, from the transposed points yt (d, m): loops that vectorise over t."""
    for t in range(size):
        out[t] = 0.0
    if metric == MANHATTAN:
        for k in range(x.shape[1]):
            a, q = x[i, k], yt[k, begin : begin + size]
            for t in range(size):
                out[t] += abs(a - q[t])
        return
    for k in range(x.shape[1]):
        a, q = x[i, k], yt[k, begin : begin + size]
        for t in range(size):
            e = a - q[t]
            out[t] += e * e
    if metric == EUCLIDEAN:
        for t in range(size):
            out[t] = math.sqrt(out[t])
    elif metric == POWER:
        for t in range(size):
            out[t] = out[t] ** (0.5 * power)
    elif metric == GEODESIC:
        # On unit vectors |x + y|^2 = 4 - |x - y|^2 loses digits only near opposite points: there it is summed again.
        for t in range(size):
            opposite = 4.0 - out[t]
            if opposite < 1.0:
                opposite = 0.0
                for k in range(x.shape[1]):
                    e = x[i, k] + yt[k, begin + t]
                    opposite += e * e
            out[t] = 2.0 * math.atan2(math.sqrt(out[t]), math.sqrt(opposite))


@compiled
def from_square(metric, power, square):
    """The cost at squared distance `square` (of chords, for the geodesic): increasing, so it turns bounds into bounds."""
    if metric == SQUARED:
        return square
    if metric == EUCLIDEAN:
        return math.sqrt(square)
    if metric == POWER:
        return square ** (0.5 * power)
    return 2.0 * math.asin(min(1.0, 0.5 * math.sqrt(square)))


@compiled
def to_square(metric, power, cost):
    """The squared distance at which the cost reaches `cost`: the inverse of `from_square`; 0 below, +inf where never."""
    if metric == SQUARED:
        return cost
    if cost <= 0.0:
        return 0.0
    if metric == EUCLIDEAN:
        return cost * cost
    if metric == POWER:
        return cost ** (2.0 / power)
    if cost >= math.pi:
        return np.inf
    return 4.0 * math.sin(0.5 * cost) ** 2


@compiled(fastmath=SIMD)
def box_squares(metric, x, i, low, high, begin, size, out):
    """out[t]: the squared (MANHATTAN: absolute) distance from x_i to the box [low, high] (d, boxes) number begin + t."""
    for t in range(size):
        out[t] = 0.0
    for k in range(x.shape[1]):
        a = x[i, k]
        p, q = low[k, begin : begin + size], high[k, begin : begin + size]
        if metric == MANHATTAN:
            for t in range(size):
                out[t] += max(max(p[t] - a, a - q[t]), 0.0)
        else:
            for t in range(size):
                e = max(max(p[t] - a, a - q[t]), 0.0)
                out[t] += e * e


__all__ = [
    "EUCLIDEAN",
    "GEODESIC",
    "MANHATTAN",
    "POWER",
    "SIMD",
    "SQUARED",
    "box_squares",
    "from_square",
    "pair",
    "pairs",
    "tile",
    "to_square",
]
