"""Passes over the entries of a plan that are worth keeping, in compressed rows: pointers (n + 1,), column indices (unsigned, so
that none can count from the end) and costs (k,).

Where epsilon is small, nearly all of a plan's mass sits in a few entries a row; Newton steps on those cost little beside one pass
over all pairs. Sums over kept entries are never a test of convergence: that takes a pass over all pairs.
"""

# pyright: reportIndexIssue=false, reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

import numpy as np

from discrepancy._loops.compiled import compiled
from discrepancy._loops.entropic.arithmetic import FAST
from discrepancy._loops.exponential import exp2_double


@compiled(fastmath=FAST)
def keep_entries(plan, cost, threshold, pointers, index, kept):
    """Writes the entries of the plan above threshold as pointers (n + 1,), column index and cost (capacity,); returns their
    number, -1 where the capacity is exceeded, -2 where a column has none. One pass over the plan."""
    n, m = plan.shape
    k = 0
    for i in range(n):
        pointers[i] = k
        row, ground = plan[i], cost[i]
        if k + m > index.size:
            return -1
        for start in range(0, m - 15, 16):
            top = row[start]
            for j in range(16):
                top = max(top, row[start + j])
            if top > threshold:
                for j in range(16):  # written always, counted where it holds: no branch to mispredict
                    index[k] = start + j
                    kept[k] = ground[start + j]
                    k += row[start + j] > threshold
        for j in range(m - m % 16, m):
            index[k] = j
            kept[k] = ground[j]
            k += row[j] > threshold
    pointers[n] = k
    seen = np.zeros(m, np.uint8)
    for j in index[:k]:
        seen[j] = 1
    for j in range(m):
        if seen[j] == 0:
            return -2
    return k


@compiled(fastmath=FAST)
def evaluate_sparse(pointers, index, cost, plan, scale, h, a, columns, levels):
    """`evaluate_dense` over the kept entries: plan (k,), column sums (m,), levels (n,); returns -<a, levels>."""
    columns[:] = 0.0
    total = 0.0
    for i in range(pointers.size - 1):
        first, last = pointers[i], pointers[i + 1]
        targets, ground, share = index[first:last], cost[first:last], plan[first:last]
        top = -1e300
        for k in range(share.size):
            t = h[targets[k]] - scale * ground[k]
            share[k] = t
            top = max(top, t)
        mass = 0.0
        for k in range(share.size):
            w = exp2_double(share[k] - top)
            share[k] = w
            mass += w
        weight = a[i] / mass
        for k in range(share.size):
            w = weight * share[k]
            share[k] = w
            columns[targets[k]] += w
        level = top + np.log2(mass)
        levels[i] = level
        total -= a[i] * level
    return total


@compiled(fastmath=FAST)
def square_sums_sparse(pointers, index, plan, inverse_a, out):
    """Writes sum_i P_ij^2 / a_i (m,)."""
    out[:] = 0.0
    for i in range(pointers.size - 1):
        first, last = pointers[i], pointers[i + 1]
        targets, share, weight = index[first:last], plan[first:last], inverse_a[i]
        for k in range(share.size):
            out[targets[k]] += weight * share[k] * share[k]


@compiled(fastmath=FAST)
def normal_product_sparse(pointers, index, plan, inverse_a, p, out):
    """Writes P^T diag(1/a) P p (m,)."""
    out[:] = 0.0
    for i in range(pointers.size - 1):
        first, last = pointers[i], pointers[i + 1]
        targets, share = index[first:last], plan[first:last]
        q = 0.0
        for k in range(share.size):
            q += share[k] * p[targets[k]]
        q *= inverse_a[i]
        for k in range(share.size):
            out[targets[k]] += q * share[k]
