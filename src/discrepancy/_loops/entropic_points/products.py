"""Products with the plan P_ij = 2^(u_i + v_j - s c_ij), formed again a row at a time."""

# pyright: reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import numpy as np

from discrepancy._loops.compiled import compiled
from discrepancy._loops.entropic_points.blocks import heavy_blocks
from discrepancy._loops.entropic_points.exponents import FAST, exponents
from discrepancy._loops.exponential import exp2_double


@compiled(fastmath=FAST)
def _row_sum(buffer, at, size, u, p, begin):
    """buffer[t] becomes the plan's entries of one block; returns their product with p."""
    total = 0.0
    for t in range(size):
        w = exp2_double(u + buffer[at + t])
        buffer[at + t] = w
        total += w * p[begin + t]
    return total


@compiled(fastmath=FAST)
def _spread(buffer, at, size, weight, out, begin):
    for t in range(size):
        out[begin + t] += weight * buffer[at + t]


@compiled
def plan_row(ground, rows, i, columns, v, u, p, count, visited, given, buffer):
    """The row's entries in the visited blocks, into `buffer`; returns their product with p."""
    at, total = 0, 0.0
    for q in range(count):
        begin = columns.starts[visited[q]]
        size = columns.starts[visited[q] + 1] - begin
        exponents(ground, rows, i, columns, v, begin, size, given, buffer[at : at + size])
        total += _row_sum(buffer, at, size, u, p, begin)
        at += size
    return total


@compiled
def normal_product(ground, rows, first, last, columns, v, tops, cut, given, u, inverse, p, out):
    """out += P^T (inverse * (P p)) over the rows of blocks first to last - 1; returns the pairs visited.

    Entries below 2^-cut are skipped by blocks. One exponential a visited pair; memory O(m).
    """
    bounds, visited = np.empty(tops.size), np.empty(tops.size, np.int64)
    buffer = np.empty(columns.starts[-1])
    pairs = 0
    for block in range(first, last):
        count = heavy_blocks(ground, rows, block, columns, tops, u, cut, bounds, visited)
        for i in range(rows.starts[block], rows.starts[block + 1]):
            if inverse[i] == 0.0:
                continue
            weight = inverse[i] * plan_row(ground, rows, i, columns, v, u[i], p, count, visited, given, buffer)
            at = 0
            for q in range(count):
                begin = columns.starts[visited[q]]
                size = columns.starts[visited[q] + 1] - begin
                _spread(buffer, at, size, weight, out, begin)
                at += size
            pairs += at
    return pairs


@compiled
def marginals(ground, rows, first, last, columns, v, tops, cut, given, u, weights, row_sums, sums, scaled):
    """row_sums_i = sum_j P_ij, sums_j += P_ij, scaled_j += r_i P_ij with r_i = min(1, weights_i / row_sums_i): what the
    rounding of a plan to its marginals needs. One exponential a visited pair."""
    bounds, visited = np.empty(tops.size), np.empty(tops.size, np.int64)
    buffer, ones = np.empty(columns.starts[-1]), np.ones(columns.starts[-1])
    for block in range(first, last):
        count = heavy_blocks(ground, rows, block, columns, tops, u, cut, bounds, visited)
        for i in range(rows.starts[block], rows.starts[block + 1]):
            total = plan_row(ground, rows, i, columns, v, u[i], ones, count, visited, given, buffer)
            row_sums[i] = total
            shrink = weights[i] / total if total > weights[i] else 1.0
            at = 0
            for q in range(count):
                begin = columns.starts[visited[q]]
                size = columns.starts[visited[q] + 1] - begin
                _spread(buffer, at, size, 1.0, sums, begin)
                _spread(buffer, at, size, shrink, scaled, begin)
                at += size


@compiled
def row_products(ground, rows, first, last, columns, v, tops, cut, given, u, p, out):
    """out[i, k] = sum_j P_ij p[k, j] for p (width, m), over the rows of blocks first to last - 1."""
    bounds, visited = np.empty(tops.size), np.empty(tops.size, np.int64)
    buffer = np.empty(columns.starts[-1])
    for block in range(first, last):
        count = heavy_blocks(ground, rows, block, columns, tops, u, cut, bounds, visited)
        for i in range(rows.starts[block], rows.starts[block + 1]):
            out[i, 0] = plan_row(ground, rows, i, columns, v, u[i], p[0], count, visited, given, buffer)
            for k in range(1, p.shape[0]):
                at, total = 0, 0.0
                for q in range(count):
                    begin = columns.starts[visited[q]]
                    size = columns.starts[visited[q] + 1] - begin
                    total += _dot(buffer, at, size, p, k, begin)
                    at += size
                out[i, k] = total


@compiled(fastmath=FAST)
def _dot(buffer, at, size, p, k, begin):
    total = 0.0
    for t in range(size):
        total += buffer[at + t] * p[k, begin + t]
    return total


__all__ = ["marginals", "normal_product", "plan_row", "row_products"]
