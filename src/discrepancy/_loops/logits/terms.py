"""The terms q f(p / q) of the table's f-divergences on a block, times a coefficient.

m, d, x, log m as in `block`; `flip` is 1, or -1 for the reversed divergence, whose d is the negative. With e = flip d, p is the
mass m where e > 0 and m (1 + x) elsewhere, and q the other one.
"""

# pyright: reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import math

from discrepancy._loops.compiled import compiled
from discrepancy._loops.logits.elementary import excess, growth, log1p, log1p_unit

KL, REVERSE_KL, CHI_SQUARED, NEYMAN, ALPHA, JENSEN_SHANNON, HELLINGER, LE_CAM, TOTAL_VARIATION, SKEWED_JENSEN_SHANNON = range(10)


@compiled(fastmath={"contract"})
def _kl(m, d, x, flip, c, w):
    # p (e^-d - 1 + d): the series where p is near q; p d + (q - p) elsewhere.
    one = flip * flip
    zero = one - one
    for i in range(m.size):
        e = flip * d[i]
        change = m[i] * x[i]
        p = m[i] if e > zero else m[i] + change
        far = p * e + (change if e > zero else -change)
        w[i] = c * (p * excess(-e) if abs(e) < one else far)


@compiled(fastmath={"contract"})
def _chi_squared(m, d, x, log_m, flip, c, w):
    # (p - q)^2 / q: q = m on the left; on the right q = m e^-|d|, whose reciprocal joins the exponent of m.
    zero = flip - flip
    for i in range(m.size):
        e = flip * d[i]
        lever = growth(log_m[i] + abs(e)) if e > zero else m[i]
        w[i] = c * (lever * (x[i] * x[i]))


@compiled(fastmath={"contract"}, error_model="numpy")
def _alpha(a, m, d, x, log_m, flip, c, w):
    # With b = min(a, 1 - a), y = e and W = q for a < 1/2, else y = -e and W = p:  W (X(y) - X(b y) / b) / (1 - b), where
    # X(y) = e^y - 1 - y. Where b y is large the linear terms cancel and are left out; W e^(b y) is one exponential.
    one = flip * flip
    zero = one - one
    half = one / (one + one)
    left = a < half
    b = a if left else one - a
    sign = flip if left else -flip
    c = c / (one - b)
    for i in range(m.size):
        y = sign * d[i]
        change = m[i] * x[i]
        # W is the mass that y is the other one's log-ratio to: the other is W e^y.
        mass = m[i] if y <= zero else m[i] + change
        log_mass = log_m[i] if y <= zero else log_m[i] - abs(y)
        gap = change if y <= zero else -change  # W e^y - W
        by = b * y
        whole = mass * excess(y) if abs(y) < one else gap - mass * y
        near = whole - mass * excess(by) / b
        far = gap - (growth(log_mass + by) - mass) / b
        w[i] = c * (near if abs(by) < one else far)


@compiled(fastmath={"contract"}, error_model="numpy")
def _jensen_shannon(m, d, x, c, w):
    # With r = tanh(|d| / 2) near equality: (1 + t) / 4 * (r |d| + log(1 - r^2)), t = 1 + x; the textbook form far from it.
    one = c / c
    two = one + one
    for i in range(m.size):
        a = -abs(d[i])
        t = one + x[i]
        r = x[i] / (two + x[i])
        near = a > -one
        log = log1p(-r * r if near else x[i] / two)
        close = (one + t) * (r * a + log) / (two + two)
        far = (t * a - (one + t) * log) / two
        w[i] = c * m[i] * (close if near else far)


@compiled(fastmath={"contract"})
def _skewed_jensen_shannon(a, m, d, x, c, w):
    # With k = a on the left and 1 - a on the right, and log = log(M / m) for the mixture M: the larger mass has the share 1 - k.
    one = c / c
    zero = one - one
    for i in range(m.size):
        k = a if d[i] <= zero else one - a
        e = abs(d[i])
        t = one + x[i]
        log = log1p_unit(k * x[i])
        close = k * t * excess(log + e) + (one - k) * excess(log)
        far = -k * t * (log + e) - (one - k) * log
        w[i] = c * m[i] * (close if e < one else far)


@compiled(fastmath={"contract"}, error_model="numpy")
def _hellinger(m, x, c, w):
    one = c / c
    half = one / (one + one)
    for i in range(m.size):
        h = x[i] / (one + math.sqrt(one + x[i]))
        w[i] = c * m[i] * (half * h * h)


@compiled(fastmath={"contract"}, error_model="numpy")
def _le_cam(m, x, c, w):
    one = c / c
    two = one + one
    for i in range(m.size):
        w[i] = c * m[i] * (x[i] * x[i] / (two * (two + x[i])))


@compiled(fastmath={"contract"})
def _total_variation(m, x, c, w):
    one = c / c
    half = one / (one + one)
    for i in range(m.size):
        w[i] = -c * (half * (m[i] * x[i]))


@compiled(inline="always")
def terms(kind, a, c, m, d, x, log_m, w):
    """w = c q f(p / q) for the divergence of this kind, a compile-time constant; `a` is an exponent or a share."""
    one = c / c
    if kind == KL:
        _kl(m, d, x, one, c, w)
    elif kind == REVERSE_KL:
        _kl(m, d, x, -one, c, w)
    elif kind == CHI_SQUARED:
        _chi_squared(m, d, x, log_m, one, c, w)
    elif kind == NEYMAN:
        _chi_squared(m, d, x, log_m, -one, c, w)
    elif kind == ALPHA:
        _alpha(a, m, d, x, log_m, one, c, w)
    elif kind == JENSEN_SHANNON:
        _jensen_shannon(m, d, x, c, w)
    elif kind == HELLINGER:
        _hellinger(m, x, c, w)
    elif kind == LE_CAM:
        _le_cam(m, x, c, w)
    elif kind == TOTAL_VARIATION:
        _total_variation(m, x, c, w)
    else:
        _skewed_jensen_shannon(a, m, d, x, c, w)


__all__ = [
    "ALPHA",
    "CHI_SQUARED",
    "HELLINGER",
    "JENSEN_SHANNON",
    "KL",
    "LE_CAM",
    "NEYMAN",
    "REVERSE_KL",
    "SKEWED_JENSEN_SHANNON",
    "TOTAL_VARIATION",
    "terms",
]
