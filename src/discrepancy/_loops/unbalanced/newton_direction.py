"""Conjugate gradients for a Newton system diag(d) - E Q^T diag(w) Q E on a kept float32 plan."""

from __future__ import annotations

import numpy as np

from discrepancy._loops.compiled import compiled
from discrepancy._loops.unbalanced.plan_products import normal_product


@compiled
def newton_direction(plan, weight, tilt, diagonal, scale, residual, enough, limit, solution):
    """Fill solution (B, m) with x, (diag(diagonal) - E Q^T diag(weight) Q E) x = residual, E = diag(tilt); returns the products.

    plan (B, n, m), weight (B, n) in float32; the others (B, m) in float64. scale: the inverse preconditioner, zero for variables
    that are held at zero. Each problem stops when the L1 norm of what is left falls to enough (B,), at non-positive curvature, or
    after `limit` products of n m steps each.
    """
    size, _, m = plan.shape
    x, left, p, image = np.zeros(m), np.zeros(m), np.zeros(m), np.zeros(m)
    vector, product = np.zeros((1, m), np.float32), np.zeros((1, m), np.float32)
    done = 0
    for k in range(size):
        size_left, rz = 0.0, 0.0
        for j in range(m):
            x[j] = 0.0
            left[j] = residual[k, j] if scale[k, j] > 0.0 else 0.0
            p[j] = left[j] * scale[k, j]
            rz += left[j] * p[j]
            size_left += abs(left[j])
        taken = 0
        while size_left > enough[k] and rz > 0.0 and taken < limit:
            taken += 1
            for j in range(m):
                vector[0, j] = np.float32(p[j] * tilt[k, j])
            normal_product(plan[k : k + 1], weight[k : k + 1], vector, product)
            curvature = 0.0
            for j in range(m):
                image[j] = diagonal[k, j] * p[j] - tilt[k, j] * np.float64(product[0, j]) if scale[k, j] > 0.0 else 0.0
                curvature += p[j] * image[j]
            if not curvature > 0.0:
                break
            step = rz / curvature
            fresh, size_left = 0.0, 0.0
            for j in range(m):
                x[j] += step * p[j]
                left[j] -= step * image[j]
                fresh += left[j] * left[j] * scale[k, j]
                size_left += abs(left[j])
            for j in range(m):
                p[j] = left[j] * scale[k, j] + fresh / rz * p[j]
            rz = fresh
        solution[k] = x
        done += taken
    return done
