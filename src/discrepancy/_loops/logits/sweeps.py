"""The sweeps over rows of logits, for the value and for the gradient, one pair for each kind of divergence.

A divergence is a sum of terms of one kind each; a sweep adds one term. Kinds are compiled apart, when first used.
"""

# pyright: reportIndexIssue=false, reportArgumentType=false, reportOptionalOperand=false

from __future__ import annotations

import math

import numpy as np

from discrepancy._loops.compiled import compiled
from discrepancy._loops.logits.block import total
from discrepancy._loops.logits.rows import BLOCK, EDGES, MEAN_P, MEAN_Q, VALUE, block_of, scalars
from discrepancy._loops.logits.slopes import slopes
from discrepancy._loops.logits.terms import (
    ALPHA,
    CHI_SQUARED,
    HELLINGER,
    JENSEN_SHANNON,
    KL,
    LE_CAM,
    NEYMAN,
    REVERSE_KL,
    SKEWED_JENSEN_SHANNON,
    TOTAL_VARIATION,
    terms,
)


@compiled(inline="always")
def _evaluate(kind, exponent, factor, u, v, keep, asked, facts):
    """Add factor times the divergence to the facts' values and, if `asked`, to the means of the slopes in P and Q.

    Exponent and factor are arrays of one number in the precision of u and v; edges of the support are left to `add_edges`.
    """
    a, c = exponent[0], factor[0]
    work = np.empty((5, BLOCK), u.dtype)
    for row in range(u.shape[0]):
        if keep[row]:
            fact = facts[row]
            exact = scalars(fact, factor)
            value, mean_q = 0.0, 0.0
            for start in range(0, u.shape[1], BLOCK):
                left, right = u[row, start : start + BLOCK], v[row, start : start + BLOCK]
                m, d, x, log_m = block_of(left, right, exact, fact[EDGES] != 0.0, work)
                w = work[4, : left.size]
                terms(kind, a, c, m, d, x, log_m, w)
                value += float(total(w))
                if asked:
                    slopes(kind, a, c, m, d, x, log_m, w)
                    mean_q += float(total(w))
            fact[VALUE] += value
            fact[MEAN_Q] += mean_q
            fact[MEAN_P] += value - mean_q


@compiled(fastmath={"contract"})
def _centred(s, m, d, x, mean, scale, out):
    zero = scale - scale
    for i in range(s.size):
        q = m[i] + m[i] * x[i] if d[i] > zero else m[i]
        out[i] = scale * (s[i] - q * mean)


@compiled(fastmath={"contract"})
def _centred_more(s, m, d, x, mean, scale, out):
    zero = scale - scale
    for i in range(s.size):
        q = m[i] + m[i] * x[i] if d[i] > zero else m[i]
        out[i] += scale * (s[i] - q * mean)


@compiled(inline="always")
def _differentiate(kind, exponent, factor, u, v, keep, facts, scales, more, out):
    """Write scales (n,) times the gradient in v of factor times the divergence into out (n, V), or with `more` add it.

    The first term, without `more`, takes off the mean of the slopes for all. Zero where the value is infinite. The gradient in
    u is that of the reversed divergence with u and v exchanged, in the facts too.
    """
    a, c = exponent[0], factor[0]
    work = np.empty((5, BLOCK), u.dtype)
    for row in range(u.shape[0]):
        fact = facts[row]
        if not (keep[row] and math.isfinite(fact[VALUE]) and math.isfinite(fact[MEAN_P]) and math.isfinite(fact[MEAN_Q])):
            out[row] = 0
            continue
        exact = scalars(fact, factor)
        share = exact[MEAN_Q] if not more else exact[MEAN_Q] - exact[MEAN_Q]
        for start in range(0, u.shape[1], BLOCK):
            left, right = u[row, start : start + BLOCK], v[row, start : start + BLOCK]
            m, d, x, log_m = block_of(left, right, exact, fact[EDGES] != 0.0, work)
            s = work[4, : left.size]
            slopes(kind, a, c, m, d, x, log_m, s)
            if more:
                _centred_more(s, m, d, x, share, scales[row], out[row, start : start + BLOCK])
            else:
                _centred(s, m, d, x, share, scales[row], out[row, start : start + BLOCK])


@compiled
def _evaluate_kl(a, c, u, v, keep, asked, facts):
    _evaluate(KL, a, c, u, v, keep, asked, facts)


@compiled
def _differentiate_kl(a, c, u, v, keep, facts, scales, more, out):
    _differentiate(KL, a, c, u, v, keep, facts, scales, more, out)


@compiled
def _evaluate_reverse_kl(a, c, u, v, keep, asked, facts):
    _evaluate(REVERSE_KL, a, c, u, v, keep, asked, facts)


@compiled
def _differentiate_reverse_kl(a, c, u, v, keep, facts, scales, more, out):
    _differentiate(REVERSE_KL, a, c, u, v, keep, facts, scales, more, out)


@compiled
def _evaluate_chi_squared(a, c, u, v, keep, asked, facts):
    _evaluate(CHI_SQUARED, a, c, u, v, keep, asked, facts)


@compiled
def _differentiate_chi_squared(a, c, u, v, keep, facts, scales, more, out):
    _differentiate(CHI_SQUARED, a, c, u, v, keep, facts, scales, more, out)


@compiled
def _evaluate_neyman(a, c, u, v, keep, asked, facts):
    _evaluate(NEYMAN, a, c, u, v, keep, asked, facts)


@compiled
def _differentiate_neyman(a, c, u, v, keep, facts, scales, more, out):
    _differentiate(NEYMAN, a, c, u, v, keep, facts, scales, more, out)


@compiled
def _evaluate_alpha(a, c, u, v, keep, asked, facts):
    _evaluate(ALPHA, a, c, u, v, keep, asked, facts)


@compiled
def _differentiate_alpha(a, c, u, v, keep, facts, scales, more, out):
    _differentiate(ALPHA, a, c, u, v, keep, facts, scales, more, out)


@compiled
def _evaluate_jensen_shannon(a, c, u, v, keep, asked, facts):
    _evaluate(JENSEN_SHANNON, a, c, u, v, keep, asked, facts)


@compiled
def _differentiate_jensen_shannon(a, c, u, v, keep, facts, scales, more, out):
    _differentiate(JENSEN_SHANNON, a, c, u, v, keep, facts, scales, more, out)


@compiled
def _evaluate_hellinger(a, c, u, v, keep, asked, facts):
    _evaluate(HELLINGER, a, c, u, v, keep, asked, facts)


@compiled
def _differentiate_hellinger(a, c, u, v, keep, facts, scales, more, out):
    _differentiate(HELLINGER, a, c, u, v, keep, facts, scales, more, out)


@compiled
def _evaluate_le_cam(a, c, u, v, keep, asked, facts):
    _evaluate(LE_CAM, a, c, u, v, keep, asked, facts)


@compiled
def _differentiate_le_cam(a, c, u, v, keep, facts, scales, more, out):
    _differentiate(LE_CAM, a, c, u, v, keep, facts, scales, more, out)


@compiled
def _evaluate_total_variation(a, c, u, v, keep, asked, facts):
    _evaluate(TOTAL_VARIATION, a, c, u, v, keep, asked, facts)


@compiled
def _differentiate_total_variation(a, c, u, v, keep, facts, scales, more, out):
    _differentiate(TOTAL_VARIATION, a, c, u, v, keep, facts, scales, more, out)


@compiled
def _evaluate_skewed_jensen_shannon(a, c, u, v, keep, asked, facts):
    _evaluate(SKEWED_JENSEN_SHANNON, a, c, u, v, keep, asked, facts)


@compiled
def _differentiate_skewed_jensen_shannon(a, c, u, v, keep, facts, scales, more, out):
    _differentiate(SKEWED_JENSEN_SHANNON, a, c, u, v, keep, facts, scales, more, out)


EVALUATE = {
    KL: _evaluate_kl,
    REVERSE_KL: _evaluate_reverse_kl,
    CHI_SQUARED: _evaluate_chi_squared,
    NEYMAN: _evaluate_neyman,
    ALPHA: _evaluate_alpha,
    JENSEN_SHANNON: _evaluate_jensen_shannon,
    HELLINGER: _evaluate_hellinger,
    LE_CAM: _evaluate_le_cam,
    TOTAL_VARIATION: _evaluate_total_variation,
    SKEWED_JENSEN_SHANNON: _evaluate_skewed_jensen_shannon,
}
DIFFERENTIATE = {
    KL: _differentiate_kl,
    REVERSE_KL: _differentiate_reverse_kl,
    CHI_SQUARED: _differentiate_chi_squared,
    NEYMAN: _differentiate_neyman,
    ALPHA: _differentiate_alpha,
    JENSEN_SHANNON: _differentiate_jensen_shannon,
    HELLINGER: _differentiate_hellinger,
    LE_CAM: _differentiate_le_cam,
    TOTAL_VARIATION: _differentiate_total_variation,
    SKEWED_JENSEN_SHANNON: _differentiate_skewed_jensen_shannon,
}

__all__ = ["DIFFERENTIATE", "EVALUATE"]
