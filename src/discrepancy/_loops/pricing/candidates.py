"""The arcs of a level: what the rows found and what the columns found, each pair once."""

# pyright: reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

from discrepancy._loops.compiled import compiled


@compiled
def _holds(index, count, i, j):
    """Whether row i found column j."""
    for k in range(count[i]):  # noqa: SIM110 - a loop is what compiles
        if index[i, k] == j:
            return True
    return False


@compiled
def count_arcs(index, count, back_index, back_count, start):
    """start (n + 1,) the first arc of every row when row i holds its own pairs and those that only the columns found.

    index (n, K) with count (n,) are columns found by rows, back_index (m, K) with back_count rows found by columns.
    Returns the number of arcs; O((n + m) K^2).
    """
    n = count.size
    for i in range(n):
        start[i + 1] = count[i]
    start[0] = 0
    for j in range(back_count.size):
        for k in range(back_count[j]):
            i = back_index[j, k]
            if not _holds(index, count, i, j):
                start[i + 1] += 1
    for i in range(n):
        start[i + 1] += start[i]
    return start[n]


@compiled
def fill_arcs(index, count, back_index, back_count, start, rows, columns):
    """Write the arcs, sorted by row; `start` is used up. O((n + m) K^2)."""
    for i in range(count.size):
        for k in range(count[i]):
            e = start[i]
            rows[e], columns[e] = i, index[i, k]
            start[i] = e + 1
    for j in range(back_count.size):
        for k in range(back_count[j]):
            i = back_index[j, k]
            if not _holds(index, count, i, j):
                e = start[i]
                rows[e], columns[e] = i, j
                start[i] = e + 1


@compiled
def mark_blocks(rows, columns, costs, u, v, tolerance, width, marked):
    """marked[b] = True where one of the `width` arcs of block b has a reduced cost below -tolerance max(|c|, |u|). O(arcs)."""
    for block in range(marked.size):
        for e in range(block * width, min((block + 1) * width, rows.size)):
            f = u[rows[e]]
            if costs[e] - f - v[columns[e]] < -tolerance * max(abs(costs[e]), abs(f)):
                marked[block] = True
                break


__all__ = ["count_arcs", "fill_arcs", "mark_blocks"]
