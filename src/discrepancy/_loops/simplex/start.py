"""Start flows of a transport problem with integer weights of equal total: acyclic sets of arcs with positive flow."""

from __future__ import annotations

import numpy as np

from discrepancy._loops.compiled import compiled


@compiled
def match_leftovers(left_rows, left_columns, rows, columns, flows, count):
    """Serve what is left of both sides in order of index (north-west corner), appending from place `count`; the new count."""
    i = 0
    j = 0
    while True:
        while i < left_rows.size and left_rows[i] == 0:
            i += 1
        while j < left_columns.size and left_columns[j] == 0:
            j += 1
        if i == left_rows.size or j == left_columns.size:
            return count
        flow = min(left_rows[i], left_columns[j])
        rows[count] = i
        columns[count] = j
        flows[count] = flow
        left_rows[i] -= flow
        left_columns[j] -= flow
        count += 1


@compiled
def north_west(a, b):
    """(rows, columns, flows) of the north-west corner rule for int64 weights a (n,), b (m,); O(n + m) time."""
    most = a.size + b.size
    rows, columns, flows = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    count = match_leftovers(a.copy(), b.copy(), rows, columns, flows, 0)
    return rows[:count], columns[:count], flows[:count]


@compiled
def greedy(row_of, column_of, a, b):
    """(rows, columns, flows, of which by arcs): each arc in turn takes what both ends have left, the rest goes north-west.

    Every arc taken exhausts one of its ends, so that at most n + m - 1 are taken and they form a forest. O(arcs + n + m) time.
    """
    left_rows = a.copy()
    left_columns = b.copy()
    most = a.size + b.size
    rows, columns, flows = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    count = 0
    for e in range(row_of.size):
        i = row_of[e]
        j = column_of[e]
        flow = min(left_rows[i], left_columns[j])
        if flow > 0:
            rows[count] = i
            columns[count] = j
            flows[count] = flow
            left_rows[i] -= flow
            left_columns[j] -= flow
            count += 1
    by_arcs = count
    count = match_leftovers(left_rows, left_columns, rows, columns, flows, count)
    return rows[:count], columns[:count], flows[:count], by_arcs
