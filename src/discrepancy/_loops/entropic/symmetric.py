"""A measure against itself under a symmetric cost: one potential, the upper triangle of the plan, and a Newton system with
condition number about two at every epsilon.

F = log2 a + f scale, P_ij = 2^(F_i + F_j - scale C_ij) and scale = 1 / (epsilon ln 2); P 1 = a is the whole condition.
"""

# pyright: reportIndexIssue=false, reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

import numpy as np

from discrepancy._loops.apart import apart, apart_like, copied
from discrepancy._loops.compiled import compiled
from discrepancy._loops.entropic.annealing import soft_minimum
from discrepancy._loops.entropic.arithmetic import FAST
from discrepancy._loops.entropic.newton import EVALUATIONS, LN2, PRODUCTS, STEPS, SWEEPS
from discrepancy._loops.exponential import exp2_double


@compiled(fastmath=FAST)
def evaluate_symmetric(cost, plan, scale, F, sums):
    """Writes the upper triangle of the plan, diagonal included, and its row sums (n,). n^2 / 2 exponentials."""
    n = F.size
    share = apart(n)
    sums[:] = 0.0
    for i in range(n):
        # Views that start at the diagonal: an index from zero is what the compiler vectorises.
        row, kept, other, base = cost[i, i:], plan[i, i:], F[i:], F[i]
        total = 0.0
        for j in range(row.size):
            # Far from the solution a pair may overflow; below the cap the next sweep brings it down.
            w = exp2_double(min(base + other[j] - scale * row[j], 400.0))
            share[j] = w
            total += w
        reached = sums[i:]
        for j in range(row.size):
            kept[j] = share[j]
            reached[j] += share[j]
        sums[i] += total - share[0]


@compiled(fastmath=FAST)
def product_symmetric(plan, p, out):
    """Writes P p (n,) from the upper triangle, in the plan's precision and one pass over memory."""
    n = p.size
    out[:] = 0
    for i in range(n):
        row, others, reached, own = plan[i, i:], p[i:], out[i:], p[i]
        total = plan.dtype.type(0)
        for j in range(row.size):
            total += row[j] * others[j]
            reached[j] += own * row[j]
        out[i] += total - own * row[0]


@compiled(fastmath=FAST)
def _direction(plan, sums, residual, enough, limit, x):
    """Conjugate gradients on (diag(P 1) + P) x = residual, preconditioned by the diagonal; returns the number of products."""
    n = residual.size
    left, p = copied(residual), apart(n)
    probe, image = apart_like(n, plan), apart_like(n, plan)
    rz = 0.0
    for i in range(n):
        x[i] = 0.0
        p[i] = left[i] / (sums[i] + plan[i, i])
        rz += p[i] * left[i]
    products = 0
    while products < limit:
        for i in range(n):
            probe[i] = p[i]
        product_symmetric(plan, probe, image)
        products += 1
        curvature = 0.0
        for i in range(n):
            curvature += p[i] * (sums[i] * p[i] + image[i])
        step = rz / curvature
        size = fresh = 0.0
        for i in range(n):
            x[i] += step * p[i]
            r = left[i] - step * (sums[i] * p[i] + image[i])
            left[i] = r
            size += abs(r)
            fresh += r * r / (sums[i] + plan[i, i])
        if size <= enough or not fresh > 0.0:
            break
        ratio = fresh / rz
        rz = fresh
        for i in range(n):
            p[i] = left[i] / (sums[i] + plan[i, i]) + ratio * p[i]
    return products


@compiled(fastmath=FAST)
def balance_symmetric(cost, plan, a, epsilon, goal, budget, f, tally):
    """Writes the potential f (n,), in units of the cost, of positive weights a; returns the L1 error |P 1 - a|_1 it stopped at.

    Two averaged sweeps F += w log2(a / P 1), then Newton steps cut to +-3, a sweep instead whenever one did not help. The last
    sweep, which costs no pass, is not in the error.
    """
    n = a.size
    scale = 1.0 / (epsilon * LN2)
    log_a = np.log2(a)
    F, best = apart(n), apart(n)
    sums, kept, x, residual = apart(n), apart(n), apart(n), apart(n)
    for i in range(n):
        F[i] = 0.5 * (log_a[i] + scale * cost[i, i])
    stepped, failures, previous = False, 0, 0.0
    while True:
        evaluate_symmetric(cost, plan, scale, F, sums)
        tally[EVALUATIONS] += 1
        error = 0.0
        for i in range(n):
            error += abs(sums[i] - a[i])
        left = budget - tally[EVALUATIONS] - tally[PRODUCTS]
        if error <= goal or left <= 0:
            break
        failed = stepped and not error < previous
        if failed:
            F[:] = best
            sums[:] = kept
            error = previous
            failures += 1
            if failures > 3:  # rounding: no step gains any more
                break
        if failed or tally[SWEEPS] < 2 or error > 0.3:
            weight = 0.5 if failed or tally[SWEEPS] < 2 else 2.0 / 3.0
            for i in range(n):
                F[i] += weight * (log_a[i] - np.log2(sums[i]))
            tally[SWEEPS] += 1
            stepped = False
            continue
        stepped, previous = True, error
        best[:] = F
        kept[:] = sums
        for i in range(n):
            residual[i] = a[i] - sums[i]
        share = max(min(0.1, error), 0.3 * goal / error)
        tally[PRODUCTS] += _direction(plan, sums, residual, share * error, min(100, left), x)
        tally[STEPS] += 1
        for i in range(n):
            F[i] += max(-3.0, min(3.0, x[i])) / LN2
    for i in range(n):
        f[i] = (0.5 * (log_a[i] - np.log2(sums[i])) + F[i] - log_a[i]) / scale
    return error


@compiled(fastmath=FAST)
def solve_symmetric_range(cost, a, epsilon, goal, budget, start, stop, f, errors, tally):
    """Problems start ... stop - 1 of a batch: cost (B, n, n), a (B, n), epsilon (B,); writes f (B, n) and errors (B,).

    Points of weight zero are left out, and given their soft-minimum at the end.
    """
    n = cost.shape[1]
    plan, ground = apart(n * n), apart(n * n)
    rows = np.empty(n, np.int64)
    own = np.zeros(5, np.int64)
    for k in range(start, stop):
        p = 0
        for i in range(n):
            if a[k, i] > 0.0:
                rows[p] = i
                p += 1
        dense = ground[: p * p].reshape((p, p))
        for i in range(p):
            for j in range(i, p):
                dense[i, j] = cost[k, rows[i], rows[j]]
        own[:] = 0
        found = apart(p)
        errors[k] = balance_symmetric(dense, plan[: p * p].reshape((p, p)), a[k][rows[:p]], epsilon[k], goal, budget, found, own)
        f[k, :] = 0.0
        for i in range(p):
            f[k, rows[i]] = found[i]
        if p < n:
            completed = f[k].copy()
            for i in range(n):
                if a[k, i] == 0.0:
                    completed[i] = soft_minimum(cost[k], i, False, 1.0 / (epsilon[k] * LN2), a[k], f[k])
            f[k, :] = completed
        for t in range(4):
            tally[t] += own[t]
