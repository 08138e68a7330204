"""q g(p / q) with g(t) = f(t) - t f'(t): a term's derivative in q, times q.

Arguments as in `terms`. The gradient in the logits of Q is s_j - q_j sum(s), since probabilities sum to one. That in the
logits of P is the reversed divergence's, with the laws exchanged; and the sums of both make the value, q f = q g + p f'.
"""

# pyright: reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import math

from discrepancy._loops.compiled import compiled
from discrepancy._loops.logits.elementary import expm1, growth, log1p, log1p_unit
from discrepancy._loops.logits.terms import (
    ALPHA,
    CHI_SQUARED,
    HELLINGER,
    JENSEN_SHANNON,
    KL,
    LE_CAM,
    NEYMAN,
    REVERSE_KL,
    TOTAL_VARIATION,
)


@compiled(fastmath={"contract"})
def _kl(m, d, x, c, s):
    # g = 1 - t: q - p.
    zero = c - c
    for i in range(m.size):
        change = c * (m[i] * x[i])
        s[i] = change if d[i] > zero else -change


@compiled(fastmath={"contract"})
def _reverse_kl(m, d, x, c, s):
    # g = -log t.
    zero = c - c
    for i in range(m.size):
        q = m[i] + m[i] * x[i] if d[i] > zero else m[i]
        s[i] = -c * (q * d[i])


@compiled(fastmath={"contract"})
def _chi_squared(m, d, x, log_m, c, s):
    # g = 1 - t^2, where q t^2 is p^2 / q.
    one = c / c
    zero, two = one - one, one + one
    for i in range(m.size):
        right = x[i] * (m[i] + growth(log_m[i] + abs(d[i])))
        s[i] = c * (right if d[i] > zero else -(m[i] * x[i]) * (two + x[i]))


@compiled(fastmath={"contract"})
def _neyman(m, d, x, log_m, c, s):
    # g = 2 (1 - t) / t, where q / t is q^2 / p.
    one = c / c
    zero, two = one - one, one + one
    for i in range(m.size):
        left = -growth(log_m[i] + abs(d[i])) * x[i]
        s[i] = two * c * (m[i] * (one + x[i]) * x[i] if d[i] > zero else left)


@compiled(fastmath={"contract"}, error_model="numpy")
def _alpha(a, m, d, x, log_m, c, s):
    # g = (1 - t^a) / a, where q t^a is one exponential.
    one = c / c
    zero = one - one
    c = c / a
    for i in range(m.size):
        right = d[i] > zero
        q = m[i] + m[i] * x[i] if right else m[i]
        log_q = log_m[i] - abs(d[i]) if right else log_m[i]
        y = a * d[i]
        near = abs(y) < one
        s[i] = -c * (q * expm1(y if near else zero) if near else growth(log_q + y) - q)


@compiled(fastmath={"contract"}, error_model="numpy")
def _jensen_shannon(m, d, x, c, s):
    # g = -log((1 + t) / 2) / 2; right of one, log((1 + t) / 2) = |d| + log((1 + 1/t) / 2).
    one = c / c
    zero, two = one - one, one + one
    c = -c / two
    for i in range(m.size):
        log = log1p(x[i] / two)
        right = (m[i] + m[i] * x[i]) * (abs(d[i]) + log)
        s[i] = c * (right if d[i] > zero else m[i] * log)


@compiled(fastmath={"contract"})
def _skewed_jensen_shannon(a, m, d, x, c, s):
    # g = -(1 - a) log(M / q) for the mixture M.
    one = c / c
    zero = one - one
    c = c * (a - one)
    for i in range(m.size):
        left = d[i] <= zero
        log = log1p_unit((a if left else one - a) * x[i])
        s[i] = c * (m[i] * log if left else (m[i] + m[i] * x[i]) * (log + abs(d[i])))


@compiled(fastmath={"contract"}, error_model="numpy")
def _hellinger(m, d, x, c, s):
    # g = (1 - sqrt t) / 2.
    one = c / c
    zero, two = one - one, one + one
    c = c / two
    for i in range(m.size):
        root = math.sqrt(one + x[i])
        h = m[i] * x[i] / (one + root)
        s[i] = c * (root * h if d[i] > zero else -h)


@compiled(fastmath={"contract"}, error_model="numpy")
def _le_cam(m, d, x, c, s):
    # With r = (t - 1) / (t + 1): f' = r (2 - r) / 2 and, f being symmetric, g(t) = f'(1 / t) = -r (2 + r) / 2.
    one = c / c
    zero, two = one - one, one + one
    c = c / two
    for i in range(m.size):
        r = x[i] / (two + x[i])
        left = -r * (two + r)
        right = (one + x[i]) * r * (two - r)
        s[i] = c * m[i] * (right if d[i] > zero else left)


@compiled(fastmath={"contract"}, error_model="numpy")
def _total_variation(m, d, x, c, s):
    # g = 1/2 left of one, -1/2 right of it, and the subgradient 0 there.
    one = c / c
    zero = one - one
    c = c / (one + one)
    for i in range(m.size):
        left = m[i] if d[i] < zero else zero
        s[i] = c * (-(m[i] + m[i] * x[i]) if d[i] > zero else left)


@compiled(inline="always")
def slopes(kind, a, c, m, d, x, log_m, s):
    """s = c q g(p / q) for the divergence of this kind, a compile-time constant; `a` is an exponent or a share."""
    if kind == KL:
        _kl(m, d, x, c, s)
    elif kind == REVERSE_KL:
        _reverse_kl(m, d, x, c, s)
    elif kind == CHI_SQUARED:
        _chi_squared(m, d, x, log_m, c, s)
    elif kind == NEYMAN:
        _neyman(m, d, x, log_m, c, s)
    elif kind == ALPHA:
        _alpha(a, m, d, x, log_m, c, s)
    elif kind == JENSEN_SHANNON:
        _jensen_shannon(m, d, x, c, s)
    elif kind == HELLINGER:
        _hellinger(m, d, x, c, s)
    elif kind == LE_CAM:
        _le_cam(m, d, x, c, s)
    elif kind == TOTAL_VARIATION:
        _total_variation(m, d, x, c, s)
    else:
        _skewed_jensen_shannon(a, m, d, x, c, s)


__all__ = ["slopes"]
