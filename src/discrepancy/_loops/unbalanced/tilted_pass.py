"""The pass at potentials near those of a kept plan: its columns tilted, its rows normalised anew, no exponential an entry."""

from __future__ import annotations

import numpy as np

from discrepancy._loops.compiled import compiled

_APART = 256


@compiled(fastmath=True)
def _tilted_row(row, tilt):
    """sum_j Q_ij e_j in float32."""
    total = np.float32(0)
    for j in range(tilt.size):
        total += row[j] * tilt[j]
    return total


@compiled(fastmath=True)
def _add_row(row, mass, columns):
    """columns += mass * row in float32."""
    for j in range(columns.size):
        columns[j] += mass * row[j]


@compiled
def tilted_pass(plan, tilt, base, a, epsilon, decay, lower, upper, s, f, ratio, row_tilt, columns):
    """Fill s, f, ratio, row_tilt (B, n) and columns (B, m) in float64 at g + delta, from the float32 plan Q (B, n, m) at g.

    tilt (B, m) float32 = exp(delta / epsilon); base (B, n): the soft-minima at g; a (B, n), epsilon (B,). row_tilt_i is 1 /
    sum_j Q_ij tilt_j, s = base + epsilon log(row_tilt), the rest as in `softmin_pass`. Sums are good to about 1e-6: for steps far
    from convergence. One pass over memory, n m steps.
    """
    size, n, m = plan.shape
    # Apart from all other arrays, as in `softmin_pass`, for the same bits whatever the addresses.
    sums = np.empty(m + 2 * _APART, np.float32)[_APART : _APART + m]
    for k in range(size):
        shrink = 1.0 / (1.0 + decay * epsilon[k])
        sums[:] = np.float32(0)
        for i in range(n):
            q = 1.0 / np.float64(_tilted_row(plan[k, i], tilt[k]))
            found = base[k, i] + epsilon[k] * np.log(q)
            best = min(max(found * shrink, lower), upper)
            s[k, i] = found
            f[k, i] = best
            ratio[k, i] = np.exp((best - found) / epsilon[k])
            row_tilt[k, i] = q
            _add_row(plan[k, i], np.float32(a[k, i] * ratio[k, i] * q), sums)
        for j in range(m):
            columns[k, j] = np.float64(sums[j]) * tilt[k, j]
