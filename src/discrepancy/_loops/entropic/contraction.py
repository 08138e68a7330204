"""Envelope gradients of a batch of small problems under the squared distance."""

# pyright: reportIndexIssue=false, reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

from discrepancy._loops.apart import apart
from discrepancy._loops.compiled import compiled
from discrepancy._loops.entropic.arithmetic import FAST
from discrepancy._loops.exponential import exp2_double


@compiled(fastmath=FAST)
def contract_range(cost, scale, u, h, x, y, both, start, stop, left, right):
    """Writes 2 (x r - P y) to left (B, n, d) and, if `both`, 2 (y c - P^T x) to right (B, d, m), for problems start ... stop - 1.

    cost (B, n, m), scale (B,), u (B, n) and h (B, m): P_ij = 2^(u_i + h_j - scale C_ij), r and c its marginals; x (B, n, d), y
    (B, d, m) with its coordinates in rows. n m exponentials and n m d steps a problem.
    """
    n, d, m = x.shape[1], x.shape[2], y.shape[2]
    share = apart(m)
    for k in range(start, stop):
        if both:
            right[k, :, :] = 0.0
        for i in range(n):
            row, other, base, own_scale = cost[k, i], h[k], u[k, i], scale[k]
            mass = 0.0
            for j in range(m):
                w = exp2_double(min(base + other[j] - own_scale * row[j], 1000.0))
                share[j] = w
                mass += w
            for c in range(d):
                at, points = x[k, i, c], y[k, c]
                mean = 0.0
                for j in range(m):
                    mean += share[j] * points[j]
                left[k, i, c] = 2.0 * (at * mass - mean)
                if both:
                    reached = right[k, c]
                    for j in range(m):
                        reached[j] += 2.0 * share[j] * (points[j] - at)
