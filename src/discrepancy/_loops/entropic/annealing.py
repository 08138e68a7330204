"""The whole ladder for small problems, compiled: epsilon annealed, dense Newton at every level, many problems in one call."""

# pyright: reportIndexIssue=false, reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

import numpy as np

from discrepancy._loops.apart import apart, copied
from discrepancy._loops.compiled import compiled
from discrepancy._loops.entropic.arithmetic import FAST
from discrepancy._loops.entropic.newton import CALM, EVALUATIONS, LN2, PRODUCTS, STUCK, newton, sweeps
from discrepancy._loops.entropic.systems import Dense, evaluate
from discrepancy._loops.exponential import exp2_double


@compiled(fastmath=FAST)
def anneal(system, a, b, epsilon, first, factor, goal, steps, shift, budget, g, levels, tally):
    """The potential g (m,) of one problem with positive weights, in units of the cost, and levels (n,) at epsilon; returns the
    L1 error.

    From `g` at epsilon = first, by `factor` down to epsilon. At each level a sweep where it is far off and at most `steps`
    Newton steps to an error of 0.01 (to `goal` at the last, as many as the budget allows), the next starting on the line
    through the last two.
    """
    m = b.size
    log_b, inverse_a = np.log2(b), 1.0 / a
    h, columns = apart(m), apart(m)
    before, at = copied(g), -1.0
    level = max(first, epsilon)
    while True:
        last = level <= epsilon
        scale = 1.0 / (level * LN2)
        for j in range(m):
            h[j] = log_b[j] + g[j] * scale
        evaluate(system, scale, h, a, columns, levels)
        tally[EVALUATIONS] += 1
        aim = goal if last else max(0.01, goal)
        sweeps(system, scale, h, a, b, aim, CALM if at > 0.0 else 0.0, 1, columns, levels, tally)
        tally[STUCK] = 0
        error = newton(
            system,
            scale,
            h,
            a,
            b,
            inverse_a,
            aim,
            budget if last else steps,
            shift,
            1e-9,
            1e300,
            budget,
            columns,
            levels,
            tally,
        )
        following = max(level / factor, epsilon)
        for j in range(m):
            found = (h[j] - log_b[j]) / scale
            if not last:
                # Potentials are nearly linear in epsilon.
                g[j] = found + (found - before[j]) * ((following - level) / (level - at)) if at > 0.0 else found
                before[j] = found
            else:
                g[j] = found
        if last:
            return error
        at, level = level, following
        if tally[EVALUATIONS] + tally[PRODUCTS] >= budget:
            level = epsilon  # nothing is left to spend: where we are is evaluated at the epsilon asked for


@compiled(fastmath=FAST)
def soft_minimum(cost, i, columns, scale, weights, potential):
    """-log2 sum_j weights_j 2^(scale (potential_j - C_ij)) / scale along row i, or along column i if `columns`; 0 where no pair
    is allowed."""
    size = weights.size
    top = -1e300
    for j in range(size):
        if weights[j] > 0.0:
            c = cost[j, i] if columns else cost[i, j]
            top = max(top, scale * (potential[j] - c))
    if top <= -1e299:
        return 0.0
    mass = 0.0
    for j in range(size):
        if weights[j] > 0.0:
            c = cost[j, i] if columns else cost[i, j]
            mass += weights[j] * exp2_double(scale * (potential[j] - c) - top)
    return -(top + np.log2(mass)) / scale


@compiled(fastmath=FAST)
def solve_range(cost, a, b, epsilon, mean, first, warm, factor, goal, budget, start, stop, f, g, errors, tally):
    """Problems start ... stop - 1 of a batch: cost (B, n, m), a (B, n), b (B, m), epsilon, mean cost and
    first epsilon (B,); writes f (B, n),
    g (B, m), errors (B,) and their tally (5,), whose last entry counts problems that rounding stopped.

    Points of weight zero are left out, and given their soft-minimum at the end. With `warm`, from the potentials in g at
    epsilon; otherwise, and where that does not reach the goal, annealed from `first`, if need be a second time
    in finer levels.
    """
    n, m = cost.shape[1], cost.shape[2]
    plan = apart(n * m)
    ground = apart(n * m)
    rows, columns = np.empty(n, np.int64), np.empty(m, np.int64)
    own = np.zeros(5, np.int64)
    for k in range(start, stop):
        p = q = 0
        for i in range(n):
            if a[k, i] > 0.0:
                rows[p] = i
                p += 1
        for j in range(m):
            if b[k, j] > 0.0:
                columns[q] = j
                q += 1
        dense = ground[: p * q].reshape((p, q))
        for i in range(p):
            for j in range(q):
                dense[i, j] = cost[k, rows[i], columns[j]]
        system = Dense(dense, plan[: p * q].reshape((p, q)))
        left, right = a[k][rows[:p]], b[k][columns[:q]]
        levels, potential = apart(p), apart(q)
        potential[:] = 0.0
        own[:] = 0
        scale = 1.0 / (epsilon[k] * LN2)
        error = np.inf
        if warm:
            potential[:] = g[k][columns[:q]]
            limit = min(budget, 300)
            error = anneal(system, left, right, epsilon[k], epsilon[k], factor, goal, 6, 0.1, limit, potential, levels, own)
        if not error <= goal and own[EVALUATIONS] + own[PRODUCTS] < budget:
            potential[:] = 0.0
            error = anneal(system, left, right, epsilon[k], first[k], factor, goal, 6, 0.1, budget, potential, levels, own)
        if not error <= goal and own[EVALUATIONS] + own[PRODUCTS] < budget:
            potential[:] = 0.0
            error = anneal(system, left, right, epsilon[k], 0.5 * mean[k], 1.4, goal, 20, 0.3, budget, potential, levels, own)
        errors[k] = error
        for i in range(n):
            f[k, i] = 0.0
        for j in range(m):
            g[k, j] = 0.0
        for i in range(p):
            f[k, rows[i]] = -levels[i] / scale
        for j in range(q):
            g[k, columns[j]] = potential[j]
        if p < n:
            for i in range(n):
                if a[k, i] == 0.0:
                    f[k, i] = soft_minimum(cost[k], i, False, scale, b[k], g[k])
        if q < m:
            for j in range(m):
                if b[k, j] == 0.0:
                    g[k, j] = soft_minimum(cost[k], j, True, scale, a[k], f[k])
        for t in range(4):
            tally[t] += own[t]
        if not error <= goal and own[EVALUATIONS] + own[PRODUCTS] < budget:
            tally[STUCK] += 1
