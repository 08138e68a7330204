"""The exponents of one row against the columns at hand, in base 2: v_j - s c(x_i, y_j)."""

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
def _given(costs, v, scale, size, out):
    top = -1e300
    for t in range(size):
        e = v[t] - scale * costs[t]
        out[t] = e
        top = max(top, e)
    return top


@compiled(fastmath=FAST)
def _line(a, p, v, scale, size, out):
    top = -1e300
    for t in range(size):
        d = a - p[t]
        e = v[t] - scale * (d * d)
        out[t] = e
        top = max(top, e)
    return top


@compiled(fastmath=FAST)
def _plane(a, b, p, q, v, scale, size, out):
    top = -1e300
    for t in range(size):
        d, f = a - p[t], b - q[t]
        e = v[t] - scale * (d * d + f * f)
        out[t] = e
        top = max(top, e)
    return top


@compiled(fastmath=FAST)
def _space(a, b, c, p, q, r, v, scale, size, out):
    top = -1e300
    for t in range(size):
        d, f, g = a - p[t], b - q[t], c - r[t]
        e = v[t] - scale * (d * d + f * f + g * g)
        out[t] = e
        top = max(top, e)
    return top


@compiled
def exponents(ground, x, i, yt, v, size, given, out):
    """out[t] = v[t] - scale c(x_i, y_t) for t < size, y given transposed as yt (d, size); returns the largest. O(size d).

    |x - y|^2 in up to three dimensions takes one loop; other costs are written first, then turned into exponents.
    """
    if ground.metric == GIVEN:
        return _given(given.costs[i - given.first], v, ground.scale, size, out)
    if ground.metric == SQUARED and x.shape[1] == 1:
        return _line(x[i, 0], yt[0], v, ground.scale, size, out)
    if ground.metric == SQUARED and x.shape[1] == 2:
        return _plane(x[i, 0], x[i, 1], yt[0], yt[1], v, ground.scale, size, out)
    if ground.metric == SQUARED and x.shape[1] == 3:
        return _space(x[i, 0], x[i, 1], x[i, 2], yt[0], yt[1], yt[2], v, ground.scale, size, out)
    for begin in range(0, size, 512):  # a piece of costs stays in the innermost cache while coordinates are added up
        piece = min(512, size - begin)
        tile(ground.metric, ground.power, x, i, yt, begin, piece, out[begin : begin + piece])
    return _given(out, v, ground.scale, size, out)


__all__ = ["FAST", "GIVEN", "Cloud", "Ground", "Tile", "exponents"]
