"""Products with a kept row-normalised plan in float32: one pass over memory each."""

from __future__ import annotations

import numpy as np

from discrepancy._loops.compiled import compiled


@compiled(fastmath=True)
def normal_product(plan, weight, vector, out):
    """out (B, m) = Q^T (w * (Q v)) for Q (B, n, m), w (B, n), v (B, m), float32 and finite; four rows at a time: n m steps."""
    size, n, m = plan.shape
    zero = np.float32(0)
    for k in range(size):
        total, v, w = out[k], vector[k], weight[k]
        total[:] = zero
        whole = n - n % 4
        for i in range(0, whole, 4):
            first, second, third, fourth = plan[k, i], plan[k, i + 1], plan[k, i + 2], plan[k, i + 3]
            p, q, r, s = zero, zero, zero, zero
            for j in range(m):
                x = v[j]
                p += first[j] * x
                q += second[j] * x
                r += third[j] * x
                s += fourth[j] * x
            p *= w[i]
            q *= w[i + 1]
            r *= w[i + 2]
            s *= w[i + 3]
            for j in range(m):
                total[j] += p * first[j] + q * second[j] + r * third[j] + s * fourth[j]
        for i in range(whole, n):
            row = plan[k, i]
            p = zero
            for j in range(m):
                p += row[j] * v[j]
            p *= w[i]
            for j in range(m):
                total[j] += p * row[j]


@compiled(fastmath=True)
def squared_columns(plan, weight, out):
    """out (B, m) = sum_i w_i Q_ij^2 for Q (B, n, m), w (B, n), float32 and finite: n m steps."""
    size, n, m = plan.shape
    for k in range(size):
        total = out[k]
        total[:] = np.float32(0)
        for i in range(n):
            row, w = plan[k, i], weight[k, i]
            for j in range(m):
                total[j] += w * row[j] * row[j]
