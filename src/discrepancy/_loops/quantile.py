"""The monotone coupling of two weighted samples on the line, row by row, with its derivatives; and of resampled weights on one
sorted cloud.

All rows are sorted ascending. A *level* is a cumulative weight: row i of the first sample covers the levels from A[i-1] to A[i].
Sums run in float64 whatever the precision of the points.
"""

# pyright: reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import math

import numpy as np

from discrepancy._loops.compiled import compiled


@compiled(inline="always")
def _cost(gap: float, p: float) -> float:
    size = abs(gap)
    if p == 1.0:
        return size
    if p == 2.0:
        return size * size
    return size**p


@compiled(inline="always")
def _slope(gap: float, p: float) -> float:
    """The derivative of |gap|^p; zero at gap = 0."""
    if gap == 0.0:
        return 0.0
    if p == 1.0:
        return math.copysign(1.0, gap)
    if p == 2.0:
        return 2.0 * gap
    return math.copysign(p * abs(gap) ** (p - 1.0), gap)


@compiled
def couple_equal(u, v, p, points_u, points_v, cost, order_u, order_v, grad_u, grad_v):
    """Equal weights and sizes: point k meets point k. Writes cost (r,) and, if `points_u` or `points_v`, those gradients
    in the original order."""
    rows, n = u.shape
    for r in range(rows):
        total = 0.0
        if p == np.inf:
            best = 0
            for k in range(n):
                size = abs(float(u[r, k]) - float(v[r, k]))
                if size > total:
                    total, best = size, k
            sign = math.copysign(1.0, float(u[r, best]) - float(v[r, best]))
            if points_u and total > 0.0:
                grad_u[r, order_u[r, best]] = sign
            if points_v and total > 0.0:
                grad_v[r, order_v[r, best]] = -sign
            cost[r] = total
            continue
        for k in range(n):
            gap = float(u[r, k]) - float(v[r, k])
            total += _cost(gap, p)
            if points_u or points_v:
                slope = _slope(gap, p) / n
                if points_u:
                    grad_u[r, order_u[r, k]] = slope
                if points_v:
                    grad_v[r, order_v[r, k]] = -slope
        cost[r] = total / n


@compiled
def couple(u, v, A, B, p, tie, points_u, points_v, weights, cost, order_u, order_v, grad_u, grad_v, f, g):
    """General weights: merge the levels A (r or 1, n) and B (r or 1, m), whose last entries agree.

    Writes cost (r,) in units of the total level; if `points_u`, `points_v` the gradients in u and v, if `weights` Kantorovich
    potentials f and g, all in the original order. Levels closer than `tie` are the same: there the potential's jump is not
    unique, and the mean of its two extremes is taken, the derivative that central differences see.
    """
    rows, n = u.shape
    m = v.shape[1]
    for r in range(rows):
        ra, rb = r % A.shape[0], r % B.shape[0]
        whole = A[ra, n - 1]
        i, j = 0, 0
        previous, total = 0.0, 0.0
        worst_i, worst_j = -1, -1
        fi, gj = 0.0, 0.0
        if weights:
            gj = _cost(float(u[r, 0]) - float(v[r, 0]), p) if p != np.inf else 0.0
            f[r, order_u[r, 0]] = fi
            g[r, order_v[r, 0]] = gj
        while True:
            a, b = A[ra, i], B[rb, j]
            level = min(a, b)
            mass = (level - previous) / whole
            gap = float(u[r, i]) - float(v[r, j])
            if p == np.inf:
                if mass > tie and abs(gap) > total:
                    total, worst_i, worst_j = abs(gap), i, j
            elif mass > 0.0:
                total += mass * _cost(gap, p)
                if points_u or points_v:
                    slope = mass * _slope(gap, p)
                    if points_u:
                        grad_u[r, order_u[r, i]] += slope
                    if points_v:
                        grad_v[r, order_v[r, j]] -= slope
            if level > previous:
                previous = level
            if i == n - 1 and j == m - 1:
                break
            step_i = i < n - 1 and (j == m - 1 or a <= b + tie * whole)
            step_j = j < m - 1 and (i == n - 1 or b <= a + tie * whole)
            if weights and p != np.inf:
                here = _cost(gap, p)
                down = _cost(float(u[r, i + 1]) - float(v[r, j]), p) if step_i else 0.0
                right = _cost(float(u[r, i]) - float(v[r, j + 1]), p) if step_j else 0.0
                if step_i and step_j:
                    corner = _cost(float(u[r, i + 1]) - float(v[r, j + 1]), p)
                    fi += 0.5 * ((down - here) + (corner - right))
                    gj += 0.5 * ((right - here) + (corner - down))
                elif step_i:
                    fi += down - here
                else:
                    gj += right - here
            if step_i:
                i += 1
                if weights:
                    f[r, order_u[r, i]] = fi
            if step_j:
                j += 1
                if weights:
                    g[r, order_v[r, j]] = gj
        if p == np.inf and worst_i >= 0:
            sign = math.copysign(1.0, float(u[r, worst_i]) - float(v[r, worst_j]))
            if points_u:
                grad_u[r, order_u[r, worst_i]] = sign
            if points_v:
                grad_v[r, order_v[r, worst_j]] = -sign
        cost[r] = total


@compiled
def pooled_norm(D, z, order, out):
    """Writes W_1 = sum_k (z[k+1] - z[k]) |D_1 + .. + D_k| to out (r,), for weight differences D (r, n) on one sorted cloud z
    (n,)."""
    rows, n = D.shape
    for r in range(rows):
        total, level = 0.0, 0.0
        for k in range(n - 1):
            level += D[r, order[k]]
            total += (z[k + 1] - z[k]) * abs(level)
        out[r] = total


@compiled
def pooled_power(A, B, z, order, p, tie, out):
    """Writes W_p^p (W_inf for p = inf) to out (r,), for weight rows A and B (r, n) that sum to one on one sorted cloud z (n,)."""
    rows, n = A.shape
    for r in range(rows):
        i, j = 0, 0
        a, b = A[r, order[0]], B[r, order[0]]
        previous, total = 0.0, 0.0
        while True:
            level = min(a, b)
            mass = level - previous
            gap = z[i] - z[j]
            if p == np.inf:
                if mass > tie and abs(gap) > total:
                    total = abs(gap)
            elif mass > 0.0 and gap != 0.0:
                total += mass * _cost(gap, p)
            if level > previous:
                previous = level
            if i == n - 1 and j == n - 1:
                break
            step_i = i < n - 1 and (j == n - 1 or a <= b + tie)
            step_j = j < n - 1 and (i == n - 1 or b <= a + tie)
            if step_i:
                i += 1
                a += A[r, order[i]]
            if step_j:
                j += 1
                b += B[r, order[j]]
        out[r] = total
