"""One pass over a kept cost: soft-minima of the rows, their proximal step, column sums of the plan, the plan itself."""

from __future__ import annotations

import math

import numpy as np

from discrepancy._loops.compiled import compiled
from discrepancy._loops.exponential import exp2_double

_LOG2 = math.log(2.0)
# Stands for the logarithm of a zero weight: finite, so that no infinity meets the arithmetic, and below every exponent.
_NOTHING = -1e300
# Entries between two work arrays: more than any vector width times unrolling.
_APART = 128


@compiled(fastmath=True)
def _soft_row(cost, scaled, inverse, exponent, share):
    """Shares 2^(v_j - c_j / eps - top) of one row, with their top and sum."""
    top = _NOTHING
    for j in range(scaled.size):
        t = scaled[j] - inverse * cost[j]
        exponent[j] = t
        top = max(top, t)
    total = 0.0
    for j in range(scaled.size):
        x = exp2_double(exponent[j] - top)
        share[j] = x
        total += x
    return top, total


@compiled(fastmath=True)
def _spread(share, total, mass, columns, plan):
    """Add mass times the normalised shares to the columns, and keep them in float32."""
    inverse = 1.0 / total
    for j in range(share.size):
        x = share[j] * inverse
        columns[j] += mass * x
        plan[j] = np.float32(x)


@compiled
def softmin_pass(cost, g, log_b, a, epsilon, decay, lower, upper, s, f, ratio, columns, plan):
    """Fill s, f, ratio (B, n), columns (B, m) and the row-normalised plan (B, n, m) in float32 at the potentials g (B, m).

    cost (B, n, m), log_b (B, m) (-inf for weight zero), a (B, n), epsilon (B,). s is the soft-minimum of a row; f = s / (1 +
    decay epsilon) cut to [lower, upper]; ratio = exp((f - s) / epsilon) scales the row's mass. n m exponentials at most.
    """
    size, n, m = cost.shape
    # Far from all other arrays: LLVM takes a loop's scalar version, which rounds otherwise, where two of them lie close together.
    work = np.empty((4, m + 2 * _APART))
    exponent, share = work[0, _APART : _APART + m], work[1, _APART : _APART + m]
    scaled, sums = work[2, _APART : _APART + m], work[3, _APART : _APART + m]
    for k in range(size):
        inverse = 1.0 / (epsilon[k] * _LOG2)
        shrink = 1.0 / (1.0 + decay * epsilon[k])
        for j in range(m):
            scaled[j] = (g[k, j] / epsilon[k] + log_b[k, j]) / _LOG2 if log_b[k, j] > -np.inf else _NOTHING
            sums[j] = 0.0
        for i in range(n):
            top, total = _soft_row(cost[k, i], scaled, inverse, exponent, share)
            found = -epsilon[k] * _LOG2 * (top + np.log2(total))
            best = min(max(found * shrink, lower), upper)
            s[k, i] = found
            f[k, i] = best
            ratio[k, i] = np.exp((best - found) / epsilon[k])
            _spread(share, total, a[k, i] * ratio[k, i], sums, plan[k, i])
        columns[k] = sums
