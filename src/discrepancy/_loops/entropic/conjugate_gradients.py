"""Newton's direction on the semi-dual, by conjugate gradients on the plan."""

# pyright: reportIndexIssue=false, reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

from discrepancy._loops.apart import apart, apart_like, copied
from discrepancy._loops.compiled import compiled
from discrepancy._loops.entropic.arithmetic import FAST
from discrepancy._loops.entropic.systems import normal_product, square_sums


@compiled(fastmath=FAST)
def newton_direction(system, inverse_a, columns, residual, shift, floor, enough, limit, x):
    """Solves (diag(c) (1 + shift) - P^T diag(1/a) P) x = residual until the L1 norm of what is left is at most `enough`.

    Preconditioned by the diagonal c_j (1 + shift) - sum_i P_ij^2 / a_i, not below floor c_j. Writes x (m,), returns the number
    of products, at most `limit`. P's precision is that of inverse_a.
    """
    m = residual.size
    inner = apart_like(m, inverse_a)
    square_sums(system, inverse_a, inner)
    precondition = apart(m)
    for j in range(m):
        d = columns[j] * (1.0 + shift)
        d = max(d - inner[j], floor * columns[j])
        precondition[j] = 1.0 / d if d > 1e-300 else 0.0
    left = copied(residual)
    p = apart(m)
    probe = apart_like(m, inverse_a)
    image = apart_like(m, inverse_a)
    rz = 0.0
    for j in range(m):
        x[j] = 0.0
        z = left[j] * precondition[j]
        p[j] = z
        rz += z * left[j]
    products = 0
    while products < limit:
        for j in range(m):
            probe[j] = p[j]
        normal_product(system, inverse_a, probe, image)
        products += 1
        curvature = 0.0
        for j in range(m):
            curvature += p[j] * (columns[j] * (1.0 + shift) * p[j] - image[j])
        if not curvature > 0.0:
            break
        step = rz / curvature
        size = 0.0
        fresh = 0.0
        for j in range(m):
            x[j] += step * p[j]
            r = left[j] - step * (columns[j] * (1.0 + shift) * p[j] - image[j])
            left[j] = r
            size += abs(r)
            fresh += r * r * precondition[j]
        if size <= enough or not fresh > 0.0:
            break
        ratio = fresh / rz
        rz = fresh
        for j in range(m):
            p[j] = left[j] * precondition[j] + ratio * p[j]
    return products
