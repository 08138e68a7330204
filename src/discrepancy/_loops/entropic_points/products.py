"""Products with the plan P_ij = 2^(u_i + v_j - s c_ij), formed again a row at a time."""

# pyright: reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import numpy as np

from discrepancy._loops.apart import apart
from discrepancy._loops.compiled import compiled
from discrepancy._loops.entropic_points.blocks import gather, heavy_columns, no_columns, scatter_add
from discrepancy._loops.entropic_points.exponents import FAST, exponents
from discrepancy._loops.exponential import exp2_double


@compiled(fastmath=FAST)
def _entries(buffer, size, u, p):
    """buffer[t] becomes the plan's entry 2^(u + buffer[t]); returns the row's product with p."""
    total = 0.0
    for t in range(size):
        w = exp2_double(u + buffer[t])
        buffer[t] = w
        total += w * p[t]
    return total


@compiled(fastmath=FAST)
def _entries_and_exponents(buffer, size, u):
    """The same with the row's sum, and the sum of its entries times their terms v_j - s c_ij."""
    total, weighted = 0.0, 0.0
    for t in range(size):
        w = exp2_double(u + buffer[t])
        weighted += w * buffer[t]
        buffer[t] = w
        total += w
    return total, weighted


@compiled(fastmath=FAST)
def _spread(buffer, size, weight, out):
    for t in range(size):
        out[t] += weight * buffer[t]


@compiled(fastmath=FAST)
def _dot(buffer, size, p):
    total = 0.0
    for t in range(size):
        total += buffer[t] * p[t]
    return total


@compiled
def plan_row(ground, x, i, near, size, u, p, given, buffer):
    """The row's entries against the gathered columns, into `buffer`; returns their product with p (size,)."""
    exponents(ground, x, i, near.transposed, near.v, size, given, buffer)
    return _entries(buffer, size, u, p)


@compiled
def normal_product(ground, rows, first, last, columns, v, tops, cut, given, u, inverse, p, out):
    """out += P^T (inverse * (P p)) over the rows of blocks first to last - 1; returns the pairs visited.

    Entries below 2^-cut are skipped by blocks. One exponential a visited pair; memory O(m d).
    """
    near = no_columns(columns, tops)
    m = columns.starts[-1]
    buffer, near_p, near_out = apart(m), apart(m), apart(m)
    pairs = 0
    for block in range(first, last):
        count = heavy_columns(ground, rows, block, columns, v, tops, u, cut, near)
        size = gather(columns, p, near, count, near_p)
        near_out[:size] = 0.0
        for i in range(rows.starts[block], rows.starts[block + 1]):
            if inverse[i] == 0.0:
                continue
            weight = inverse[i] * plan_row(ground, rows.points, i, near, size, u[i], near_p, given, buffer)
            _spread(buffer, size, weight, near_out)
            pairs += size
        scatter_add(columns, near_out, near, count, out)
    return pairs


@compiled
def marginals(ground, rows, first, last, columns, v, tops, cut, given, u, weights, row_sums, row_terms, sums, scaled):
    """row_sums_i = sum_j P_ij, row_terms_i = sum_j P_ij (v_j - s c_ij), sums_j += P_ij, and scaled_j += r_i P_ij with
    r_i = min(1, weights_i / row_sums_i): a plan's cost and what its rounding to its marginals needs. One exponential a
    visited pair."""
    near = no_columns(columns, tops)
    m = columns.starts[-1]
    buffer, near_sums, near_scaled = apart(m), apart(m), apart(m)
    for block in range(first, last):
        count = heavy_columns(ground, rows, block, columns, v, tops, u, cut, near)
        size = gather(columns, v, near, count, near.v)
        near_sums[:size] = 0.0
        near_scaled[:size] = 0.0
        for i in range(rows.starts[block], rows.starts[block + 1]):
            exponents(ground, rows.points, i, near.transposed, near.v, size, given, buffer)
            total, row_terms[i] = _entries_and_exponents(buffer, size, u[i])
            row_sums[i] = total
            _spread(buffer, size, 1.0, near_sums)
            _spread(buffer, size, weights[i] / total if total > weights[i] else 1.0, near_scaled)
        scatter_add(columns, near_sums, near, count, sums)
        scatter_add(columns, near_scaled, near, count, scaled)


@compiled
def row_products(ground, rows, first, last, columns, v, tops, cut, given, u, p, out):
    """out[i, k] = sum_j P_ij p[k, j] for p (width, m), over the rows of blocks first to last - 1."""
    near = no_columns(columns, tops)
    buffer, near_p = apart(columns.starts[-1]), np.empty(p.shape)
    for block in range(first, last):
        count = heavy_columns(ground, rows, block, columns, v, tops, u, cut, near)
        size = 0
        for k in range(p.shape[0]):
            size = gather(columns, p[k], near, count, near_p[k])
        for i in range(rows.starts[block], rows.starts[block + 1]):
            out[i, 0] = plan_row(ground, rows.points, i, near, size, u[i], near_p[0], given, buffer)
            for k in range(1, p.shape[0]):
                out[i, k] = _dot(buffer, size, near_p[k])


@compiled
def _share_out(buffer, size, groups, out):
    for t in range(size):
        out[groups[t]] += buffer[t]


@compiled
def group_sums(ground, rows, first, last, columns, v, tops, cut, given, u, groups, out):
    """out[i - start, k] = the sum of P_ij over the columns of group k, groups (m,); start is the first row of block `first`."""
    near = no_columns(columns, tops)
    m, start = columns.starts[-1], rows.starts[first]
    buffer, ones, near_groups = apart(m), np.ones(m), np.empty(m, np.int64)
    for block in range(first, last):
        count = heavy_columns(ground, rows, block, columns, v, tops, u, cut, near)
        size = gather(columns, groups, near, count, near_groups)
        for i in range(rows.starts[block], rows.starts[block + 1]):
            plan_row(ground, rows.points, i, near, size, u[i], ones, given, buffer)
            out[i - start] = 0.0
            _share_out(buffer, size, near_groups, out[i - start])


@compiled(fastmath=FAST)
def _tile_row(costs, u, v, scale):
    for t in range(v.size):
        costs[t] = exp2_double(u + v[t] - scale * costs[t])


@compiled
def plan_tile(costs, first, last, u, v, scale):
    """Rows first to last - 1 of a tile of costs (rows, m) become the plan's entries 2^(u_i + v_j - scale c_ij), in place."""
    for i in range(first, last):
        _tile_row(costs[i], u[i], v, scale)


__all__ = ["group_sums", "marginals", "normal_product", "plan_row", "plan_tile", "row_products"]
