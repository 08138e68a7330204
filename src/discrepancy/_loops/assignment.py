"""Assignment by shortest augmenting paths, after reductions that settle most rows [Jonker and Volgenant 1987].

State of all loops: `column_of` (n,) and `row_of` (n,) int64, -1 where free, and the columns' potentials g (n,), such that every
assigned column has the smallest c_ij - g_j of its row. A row's own potential is that minimum and is not kept.
"""

from __future__ import annotations

import numpy as np

from discrepancy._loops.compiled import compiled


@compiled
def two_smallest(entries, g):
    """(smallest c_j - g_j, its column, second smallest, its column) of one row."""
    first = np.inf
    second = np.inf
    first_at = 0
    second_at = 0
    for j in range(entries.size):
        r = entries[j] - g[j]
        if r < second:
            if r < first:
                second = first
                second_at = first_at
                first = r
                first_at = j
            else:
                second = r
                second_at = j
    return first, first_at, second, second_at


@compiled
def reduce_columns(cost, column_of, row_of, g):
    """g_j = min_i c_ij; each column, from the last to the first, is given to its cheapest row if that is still free. n^2 time."""
    n = cost.shape[0]
    cheapest = np.zeros(n, np.int64)
    for j in range(n):
        g[j] = cost[0, j]
    for i in range(1, n):
        for j in range(n):
            if cost[i, j] < g[j]:
                g[j] = cost[i, j]
                cheapest[j] = i
    for j in range(n - 1, -1, -1):
        i = cheapest[j]
        if column_of[i] < 0:
            column_of[i] = j
            row_of[j] = i


@compiled
def reduce_rows(cost, column_of, row_of, g, most):
    """Free rows bid: each takes its best column, lowering g there by the distance to its second best; who loses it is free.

    At most `most` bids, each one pass over a row. A row that ties waits for the next sweep; two sweeps.
    """
    n = cost.shape[0]
    free = np.flatnonzero(column_of < 0)
    bids = 0
    for _ in range(2):
        waiting = np.empty(free.size, np.int64)
        waits = 0
        for k in range(free.size):
            i = free[k]
            while i >= 0 and bids < most:
                bids += 1
                first, j, second, other = two_smallest(cost[i], g)
                loser = row_of[j]
                strict = first < second
                if strict:
                    g[j] -= second - first
                elif loser >= 0 and n > 1:
                    j = other
                    loser = row_of[j]
                column_of[i] = j
                row_of[j] = i
                if loser < 0:
                    break
                column_of[loser] = -1
                if not strict:
                    waiting[waits] = loser
                    waits += 1
                    break
                i = loser
        free = waiting[:waits]
    return bids


@compiled
def augment(cost, column_of, row_of, g, start, distance, through, order):
    """Assign the free row `start` along a shortest path in reduced costs and update g; returns the rows scanned.

    `order` is split in columns done, columns at the smallest distance, the rest. Scratch arrays (n,) are overwritten.
    """
    n = cost.shape[0]
    for j in range(n):
        distance[j] = cost[start, j] - g[j]
        through[j] = start
        order[j] = j
    done = 0
    reached = 0
    smallest = 0.0
    scans = 1
    end = -1
    while end < 0:
        if reached == done:
            # All columns at the former distance are done: find the next ones.
            smallest = np.inf
            for k in range(done, n):
                d = distance[order[k]]
                if d <= smallest:
                    if d < smallest:
                        smallest = d
                        reached = done
                    order[k], order[reached] = order[reached], order[k]
                    reached += 1
            for k in range(done, reached):
                if row_of[order[k]] < 0:
                    end = order[k]
                    break
            if end >= 0:
                break
        column = order[done]
        done += 1
        i = row_of[column]
        scans += 1
        offset = cost[i, column] - g[column] - smallest
        for k in range(reached, n):
            j = order[k]
            d = cost[i, j] - g[j] - offset
            if d < distance[j]:
                distance[j] = d
                through[j] = i
                if d <= smallest:
                    if row_of[j] < 0:
                        end = j
                        break
                    order[k], order[reached] = order[reached], order[k]
                    reached += 1
    for k in range(done):
        j = order[k]
        g[j] += distance[j] - smallest
    column = end
    while True:
        i = through[column]
        row_of[column] = i
        column, column_of[i] = column_of[i], column
        if i == start:
            return scans


@compiled
def assign(cost, trial_scans, most_free, most_scans):
    """(column_of, row_of, g, rows left free) for a finite cost matrix (n, n).

    Where no row is left free the assignment is optimal and g feasible with f_i = min_j c_ij - g_j; otherwise both are a good
    place to go on from. It gives up after about `most_scans` row scans of n steps each, or after `trial_scans` with more than
    `most_free` rows still free. All rows take a few n scans in high dimension, up to n^2 for clouds in the plane.
    """
    n = cost.shape[0]
    column_of = np.full(n, -1, np.int64)
    row_of = np.full(n, -1, np.int64)
    g = np.empty(n, np.float64)
    reduce_columns(cost, column_of, row_of, g)
    scans = reduce_rows(cost, column_of, row_of, g, 2 * n)
    free = np.flatnonzero(column_of < 0)
    distance = np.empty(n, np.float64)
    through = np.empty(n, np.int64)
    order = np.empty(n, np.int64)
    for k in range(free.size):
        left = free.size - k
        if scans >= most_scans or (scans >= trial_scans and left > most_free):
            return column_of, row_of, g, left
        scans += augment(cost, column_of, row_of, g, free[k], distance, through, order)
    return column_of, row_of, g, 0
