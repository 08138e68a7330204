"""What all divergences of one block of two rows of logits share: the larger mass, the log-ratio and its exponential.

With p and q the two probabilities of a category, d = log p - log q, and m the larger of them, everything is written in
m, d, x = e^(-|d|) - 1 in [-1, 0] and log m: no exponential overflows, and nothing cancels where p is close to q.
"""

# pyright: reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import math

import numpy as np

from discrepancy._loops.compiled import compiled
from discrepancy._loops.logits.elementary import decay, expm1

LANES = 64


@compiled(fastmath={"contract", "reassoc", "nsz"})
def total(x):
    """The sum of a block, in as many partial sums as the processor adds at once."""
    found = x.dtype.type(0)
    for i in range(x.size):
        found += x[i]
    return found


@compiled
def _widen(x, low, high):
    for j in range(x.size):
        low[j] = x[j] if x[j] < low[j] else low[j]
        high[j] = x[j] if x[j] > high[j] else high[j]


@compiled
def _ends(x, least, most):
    for i in range(x.size):
        least = x[i] if x[i] < least else least
        most = x[i] if x[i] > most else most
    return least, most


@compiled
def extremes(x, low, high):
    """The smallest and the largest entry of a row (NaN ignored); `low` and `high` are scratch of `LANES` entries."""
    least, most = x.dtype.type(np.inf), x.dtype.type(-np.inf)
    whole = x.size - x.size % LANES
    if whole > 0:
        low[:] = np.inf
        high[:] = -np.inf
        for start in range(0, whole, LANES):
            _widen(x[start : start + LANES], low, high)
        least, _ = _ends(low, least, most)
        _, most = _ends(high, least, most)
    return _ends(x[whole:], least, most)


@compiled(fastmath={"contract"})
def _decays(x, top, w):
    zero = w.dtype.type(0)
    for i in range(x.size):
        w[i] = zero if x[i] == top else decay(x[i] - top)


@compiled
def _count(x, top):
    found = 0
    for i in range(x.size):
        found += 1 if x[i] == top else 0
    return found


@compiled
def normaliser(x, low, high, scratch):
    """(lowest, largest, log sum e^(x - largest)) of a row; the last is not finite where the row is no law."""
    lowest, top = extremes(x, low, high)
    if not math.isfinite(top):
        return lowest, top, np.nan
    # The largest entries are counted and the others summed apart: next to one, single precision would drop what they add.
    rest, ties = 0.0, 0
    for start in range(0, x.size, scratch.size):
        block = x[start : start + scratch.size]
        w = scratch[: block.size]
        _decays(block, top, w)
        rest += float(total(w))
        ties += _count(block, top)
    return lowest, top, math.log1p(rest + (ties - 1)) if ties > 0 else np.nan


@compiled(fastmath={"contract"})
def prepare(u, v, top_u, rest_u, top_v, rest_v, shift, shift_rest, m, d, x, log_m):
    """Fill m, d, x and log m from logits: log p = u - top - rest, and d = (u - v) - shift with what rounding drops added back."""
    for i in range(m.size):
        a, b = u[i], v[i]
        e = a - b
        back = a - e
        lost = (a - (e + back)) + (back - b)  # a - b = e + lost, exactly
        r = ((e - shift) + lost) - shift_rest
        p, q = (a - top_u) - rest_u, (b - top_v) - rest_v
        larger = p if p > q else q
        d[i] = r
        log_m[i] = larger
        m[i] = decay(larger)
        x[i] = expm1(-abs(r))


@compiled
def leave_edges_out(u, v, m, d, x, log_m):
    """Give categories that one of the laws excludes no mass, so that loops pass over them."""
    zero = m.dtype.type(0)
    for i in range(m.size):
        if u[i] == -np.inf or v[i] == -np.inf:
            m[i] = zero
            d[i] = zero
            x[i] = zero
            log_m[i] = -80.0


@compiled
def mass_alone(own, other, log_total):
    """(the mass of the categories that `other` excludes and `own` does not, whether there is one)."""
    mass, some = 0.0, False
    for i in range(own.size):
        if other[i] == -np.inf and own[i] != -np.inf:
            some = True
            mass += math.exp(float(own[i]) - log_total)
    return mass, some


__all__ = ["LANES", "extremes", "leave_edges_out", "mass_alone", "normaliser", "prepare", "total"]
