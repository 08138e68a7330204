"""The exponents of one row against a range of columns, in base 2: v_j - s c(x_i, y_j)."""

# pyright: reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

from collections import namedtuple

from discrepancy._loops.compiled import compiled
from discrepancy._loops.pricing.ground import SIMD, SQUARED, tile

# Costs come from a tile of given ones, tile[i - first, j], and not from points.
GIVEN = -1

# No NaN can enter: exponents are differences of finite numbers. Infinities keep their meaning.
FAST = SIMD | {"nnan"}

# points (n, d) and their transpose (d, n); block k holds the points starts[k] to starts[k + 1], inside low[:, k] to high[:, k].
Cloud = namedtuple("Cloud", ["points", "transposed", "starts", "low", "high"])

# The metric and its power; scale turns a cost into an exponent, 1 / (epsilon log 2).
Ground = namedtuple("Ground", ["metric", "power", "scale"])

# Costs of rows first, first + 1, ... against all columns, where the metric is GIVEN; else empty.
Tile = namedtuple("Tile", ["costs", "first"])


@compiled(fastmath=FAST)
def _squares(x, i, yt, v, begin, size, scale, out):
    """Exponents under |x - y|^2 in up to three dimensions, in one loop; returns the largest."""
    top = -1e300
    w, p = v[begin : begin + size], yt[0, begin : begin + size]
    a = x[i, 0]
    if x.shape[1] == 1:
        for t in range(size):
            d = a - p[t]
            e = w[t] - scale * (d * d)
            out[t] = e
            top = max(top, e)
        return top
    b, q = x[i, 1], yt[1, begin : begin + size]
    if x.shape[1] == 2:
        for t in range(size):
            d, f = a - p[t], b - q[t]
            e = w[t] - scale * (d * d + f * f)
            out[t] = e
            top = max(top, e)
        return top
    c, r = x[i, 2], yt[2, begin : begin + size]
    for t in range(size):
        d, f, g = a - p[t], b - q[t], c - r[t]
        e = w[t] - scale * (d * d + f * f + g * g)
        out[t] = e
        top = max(top, e)
    return top


@compiled(fastmath=FAST)
def exponents(ground, rows, i, columns, v, begin, size, given, out):
    """out[t] = v_j - scale c(x_i, y_j) for j = begin + t, t < size; returns the largest. O(size d)."""
    if ground.metric == SQUARED and rows.points.shape[1] <= 3:
        return _squares(rows.points, i, columns.transposed, v, begin, size, ground.scale, out)
    top, scale, w = -1e300, ground.scale, v[begin : begin + size]
    if ground.metric == GIVEN:
        c = given.costs[i - given.first, begin : begin + size]
        for t in range(size):
            e = w[t] - scale * c[t]
            out[t] = e
            top = max(top, e)
        return top
    tile(ground.metric, ground.power, rows.points, i, columns.transposed, begin, size, out)
    for t in range(size):
        e = w[t] - scale * out[t]
        out[t] = e
        top = max(top, e)
    return top


__all__ = ["FAST", "GIVEN", "Cloud", "Ground", "Tile", "exponents"]
