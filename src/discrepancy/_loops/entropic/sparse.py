"""Passes over the entries of a plan that are worth keeping, in compressed rows: pointers (n + 1,), columns and costs (k,).

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
    seen = np.zeros(m, np.uint8)
    for i in range(n):
        pointers[i] = k
        row, ground = plan[i], cost[i]
        for start in range(0, m, 16):
            stop = min(start + 16, m)
            top = row[start]
            for j in range(start + 1, stop):
                top = max(top, row[j])
            if top > threshold:
                if k + 16 > index.size:
                    return -1
                for j in range(start, stop):
                    if row[j] > threshold:
                        index[k] = j
                        kept[k] = ground[j]
                        seen[j] = 1
                        k += 1
    pointers[n] = k
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
        top = -1e300
        for k in range(first, last):
            t = h[index[k]] - scale * cost[k]
            plan[k] = t
            top = max(top, t)
        mass = 0.0
        for k in range(first, last):
            w = exp2_double(plan[k] - top)
            plan[k] = w
            mass += w
        weight = a[i] / mass
        for k in range(first, last):
            w = weight * plan[k]
            plan[k] = w
            columns[index[k]] += w
        level = top + np.log2(mass)
        levels[i] = level
        total -= a[i] * level
    return total


@compiled(fastmath=FAST)
def square_sums_sparse(pointers, index, plan, inverse_a, out):
    """Writes sum_i P_ij^2 / a_i (m,)."""
    out[:] = 0.0
    for i in range(pointers.size - 1):
        for k in range(pointers[i], pointers[i + 1]):
            out[index[k]] += inverse_a[i] * plan[k] * plan[k]


@compiled(fastmath=FAST)
def normal_product_sparse(pointers, index, plan, inverse_a, p, out):
    """Writes P^T diag(1/a) P p (m,)."""
    out[:] = 0.0
    for i in range(pointers.size - 1):
        first, last = pointers[i], pointers[i + 1]
        q = 0.0
        for k in range(first, last):
            q += plan[k] * p[index[k]]
        q *= inverse_a[i]
        for k in range(first, last):
            out[index[k]] += q * plan[k]
