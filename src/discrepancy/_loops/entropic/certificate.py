"""The sums over a plan that its certificate needs, from potentials and costs: nothing of the plan is kept."""

# pyright: reportIndexIssue=false, reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

from discrepancy._loops.apart import apart
from discrepancy._loops.compiled import compiled
from discrepancy._loops.entropic.arithmetic import FAST
from discrepancy._loops.exponential import exp2_double


@compiled(fastmath=FAST)
def plan_sums(cost, scale, u, h, a, rows, columns, lowered):
    """With P_ij = 2^(u_i + h_j - scale C_ij): writes row sums (n,), column sums (m,) and the column sums `lowered` (m,) after
    rows above their weight a were scaled down to it; returns <P, C>. One pass, n m exponentials."""
    n, m = cost.shape
    share = apart(m)
    columns[:] = 0.0
    lowered[:] = 0.0
    total = 0.0
    for i in range(n):
        row = cost[i]
        mass = moved = 0.0
        for j in range(m):
            w = exp2_double(min(u[i] + h[j] - scale * row[j], 1000.0))
            share[j] = w
            mass += w
            moved += w * row[j] if w > 0.0 else 0.0
        rows[i] = mass
        total += moved
        keep = a[i] / mass if mass > a[i] else 1.0
        for j in range(m):
            columns[j] += share[j]
            lowered[j] += keep * share[j]
    return total


@compiled(fastmath=FAST)
def scaled_row_sums(cost, scale, u, h, row_scale, column_scale, out):
    """Writes sum_j r_i P_ij s_j (n,) for scales r (n,), s (m,). One pass, n m exponentials."""
    n, m = cost.shape
    for i in range(n):
        row = cost[i]
        mass = 0.0
        for j in range(m):
            mass += column_scale[j] * exp2_double(min(u[i] + h[j] - scale * row[j], 1000.0))
        out[i] = row_scale[i] * mass


@compiled(fastmath=FAST)
def product_cost(cost, left, right):
    """<left right^T, C>, pairs without mass left out whatever their cost. One pass over the costs, where left is positive."""
    total = 0.0
    for i in range(left.size):
        if left[i] > 0.0:
            row = cost[i]
            inner = 0.0
            for j in range(right.size):
                inner += right[j] * row[j] if right[j] > 0.0 else 0.0
            total += left[i] * inner
    return total
