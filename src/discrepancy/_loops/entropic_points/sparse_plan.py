"""The entries of a plan that matter, row after row: where they are few they are kept, and products cost what is kept."""

# pyright: reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import numpy as np

from discrepancy._loops.apart import apart
from discrepancy._loops.compiled import compiled
from discrepancy._loops.entropic_points.blocks import gather, heavy_columns, no_columns
from discrepancy._loops.entropic_points.products import plan_row


@compiled
def _keep(buffer, size, places, threshold, at, indices, values):
    """Append the entries above the threshold; returns the new end. Pieces of 16 without any are passed over at once."""
    for begin in range(0, size, 16):
        end = min(begin + 16, size)
        top = 0.0
        for t in range(begin, end):
            top = max(top, buffer[t])
        if top > threshold:
            for t in range(begin, end):
                if buffer[t] > threshold:
                    indices[at], values[at] = places[t], buffer[t]
                    at += 1
    return at


@compiled
def sparse_rows(ground, rows, first, last, columns, v, tops, cut, given, u, threshold, starts, indices, values):
    """Write the entries 2^(u_i + v_j - s c_ij) > threshold of the rows of blocks first to last - 1: row number r of them lies at
    starts[r] to starts[r + 1]. Returns how many there are, or -1 where there is no room for them."""
    near = no_columns(columns, tops)
    m = columns.starts[-1]
    buffer, ones, places, near_places = apart(m), np.ones(m), np.arange(m), np.empty(m, np.int64)
    at, row = 0, 0
    starts[0] = 0
    for block in range(first, last):
        count = heavy_columns(ground, rows, block, columns, v, tops, u, cut, near)
        size = gather(columns, places, near, count, near_places)
        for i in range(rows.starts[block], rows.starts[block + 1]):
            if at + size > indices.size:  # room for all of the row, so that it need not be counted first
                return -1
            plan_row(ground, rows.points, i, near, size, u[i], ones, given, buffer)
            at = _keep(buffer, size, near_places, threshold, at, indices, values)
            row += 1
            starts[row] = at
    return at


@compiled
def sparse_normal_product(starts, indices, values, inverse, p, out):
    """out += Q^T (inverse * (Q p)) for the rows of Q that are kept; O(entries)."""
    for r in range(starts.size - 1):
        total = 0.0
        for k in range(starts[r], starts[r + 1]):
            total += values[k] * p[indices[k]]
        total *= inverse[r]
        for k in range(starts[r], starts[r + 1]):
            out[indices[k]] += total * values[k]


@compiled
def sparse_group_sums(starts, indices, values, groups, out):
    """out[r, k] = the sum of row r over the columns of group k."""
    for r in range(starts.size - 1):
        out[r] = 0.0
        for k in range(starts[r], starts[r + 1]):
            out[r, groups[indices[k]]] += values[k]


__all__ = ["sparse_group_sums", "sparse_normal_product", "sparse_rows"]
