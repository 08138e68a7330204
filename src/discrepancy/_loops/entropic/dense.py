"""Passes over a dense plan P = diag(a) Q, Q the row-wise softmax of h_j - scale C_ij: the plan itself, its marginals, its
products.

Potentials are in units of log 2: h = log2 b + g scale, scale = 1 / (epsilon ln 2), so that P_ij = a_i 2^(h_j - scale C_ij -
level_i). The plan may be kept in single precision: it serves as the Hessian and as a direction, never as the residual.
"""

# pyright: reportIndexIssue=false, reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

import numpy as np

from discrepancy._loops.apart import apart
from discrepancy._loops.compiled import compiled
from discrepancy._loops.entropic.arithmetic import FAST
from discrepancy._loops.exponential import exp2_double


@compiled(fastmath=FAST)
def evaluate_dense(cost, plan, scale, h, a, columns, levels):
    """Writes the plan (n, m), its column sums (m,) and levels_i = log2 sum_j 2^(h_j - scale C_ij) (n,); returns -<a, levels>.

    Exponents and sums are in double precision whatever the plan's. n m exponentials.
    """
    n, m = cost.shape
    share = apart(m)
    columns[:] = 0.0
    total = 0.0
    for i in range(n):
        row, kept = cost[i], plan[i]
        top = -1e300
        for j in range(m):
            t = h[j] - scale * row[j]
            share[j] = t
            top = max(top, t)
        mass = 0.0
        for j in range(m):
            w = exp2_double(share[j] - top)
            share[j] = w
            mass += w
        weight = a[i] / mass
        for j in range(m):
            w = weight * share[j]
            columns[j] += w
            kept[j] = w
        level = top + np.log2(mass)
        levels[i] = level
        total -= a[i] * level
    return total


@compiled(fastmath=FAST)
def column_levels(cost, scale, u, j):
    """log2 sum_i 2^(u_i - scale C_ij) of one column j; n exponentials, for columns whose sum underflows."""
    n = cost.shape[0]
    top = -1e300
    for i in range(n):
        top = max(top, u[i] - scale * cost[i, j])
    mass = 0.0
    for i in range(n):
        mass += exp2_double(u[i] - scale * cost[i, j] - top)
    return top + np.log2(mass)


@compiled(fastmath=FAST)
def square_sums_dense(plan, inverse_a, out):
    """Writes sum_i P_ij^2 / a_i (m,): with the column sums the diagonal of the Newton system. One pass over the plan."""
    n, m = plan.shape
    out[:] = 0.0
    for i in range(n):
        row, weight = plan[i], inverse_a[i]
        for j in range(m):
            out[j] += weight * row[j] * row[j]


@compiled(fastmath=FAST)
def normal_product_dense(plan, inverse_a, p, out):
    """Writes P^T diag(1/a) P p (m,), all in the plan's precision, in one pass over memory: four rows are read for their inner
    products and, still in cache, for their contribution."""
    n, m = plan.shape
    out[:] = 0
    zero = plan.dtype.type(0)
    i = 0
    while i + 4 <= n:
        r0, r1, r2, r3 = plan[i], plan[i + 1], plan[i + 2], plan[i + 3]
        q0 = q1 = q2 = q3 = zero
        for j in range(m):
            x = p[j]
            q0 += r0[j] * x
            q1 += r1[j] * x
            q2 += r2[j] * x
            q3 += r3[j] * x
        q0 *= inverse_a[i]
        q1 *= inverse_a[i + 1]
        q2 *= inverse_a[i + 2]
        q3 *= inverse_a[i + 3]
        for j in range(m):
            out[j] += q0 * r0[j] + q1 * r1[j] + q2 * r2[j] + q3 * r3[j]
        i += 4
    while i < n:
        row = plan[i]
        q = zero
        for j in range(m):
            q += row[j] * p[j]
        q *= inverse_a[i]
        for j in range(m):
            out[j] += q * row[j]
        i += 1
