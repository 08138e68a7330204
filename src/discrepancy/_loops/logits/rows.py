"""What all divergences of rows of logits share: normalisers, blocks, and the categories that one of two laws excludes.

`facts` (n, 9) holds, a row, what the gradient needs of the value.
"""

# pyright: reportIndexIssue=false, reportArgumentType=false, reportOptionalOperand=false

from __future__ import annotations

import math

import numpy as np

from discrepancy._loops.compiled import compiled
from discrepancy._loops.logits.block import LANES, leave_edges_out, mass_alone, normaliser, prepare

BLOCK = 1024
FACTS = 9
TOP_U, REST_U, TOP_V, REST_V, VALUE, MEAN_P, MEAN_Q, STATUS, EDGES = range(FACTS)
FINE, BAD_U, BAD_V, EMPTY_U, EMPTY_V = range(5)  # STATUS: a NaN or +inf, or no category, in one of the rows


@compiled
def normalise(u, v, keep, facts):
    """Start the facts of rows u, v (n, V): log-normalisers, and whether the rows are laws; of rows not to `keep`, zeros.

    Returns whether some row excludes a category, and whether some row is no law.
    """
    some, bad = False, False
    low, high, scratch = np.empty(LANES, u.dtype), np.empty(LANES, u.dtype), np.empty(BLOCK, u.dtype)
    for row in range(u.shape[0]):
        fact = facts[row]
        fact[:] = 0.0
        if keep[row]:
            low_u, fact[TOP_U], fact[REST_U] = normaliser(u[row], low, high, scratch)
            low_v, fact[TOP_V], fact[REST_V] = normaliser(v[row], low, high, scratch)
            fact[EDGES] = low_u == -np.inf or low_v == -np.inf
            some = some or fact[EDGES] != 0.0
            if not math.isfinite(fact[REST_V]):
                fact[STATUS] = EMPTY_V if fact[TOP_V] == -np.inf else BAD_V
            if not math.isfinite(fact[REST_U]):
                fact[STATUS] = EMPTY_U if fact[TOP_U] == -np.inf else BAD_U
            bad = bad or fact[STATUS] != FINE
    return some, bad


@compiled
def scalars(fact, one):
    """The facts in the block's precision, and the difference of the log-normalisers as a leading part and what it drops."""
    exact = np.empty(FACTS + 2, one.dtype)
    exact[:FACTS] = fact
    whole = (fact[TOP_U] - fact[TOP_V]) + (fact[REST_U] - fact[REST_V])
    exact[FACTS] = whole
    exact[FACTS + 1] = whole - float(exact[FACTS])
    return exact


@compiled
def block_of(u, v, exact, edges, work):
    """Fill work[:4] with m, d, x and log m of a block."""
    m, d, x, log_m = work[0, : u.size], work[1, : u.size], work[2, : u.size], work[3, : u.size]
    prepare(u, v, exact[TOP_U], exact[REST_U], exact[TOP_V], exact[REST_V], exact[FACTS], exact[FACTS + 1], m, d, x, log_m)
    if edges:
        leave_edges_out(u, v, m, d, x, log_m)
    return m, d, x, log_m


@compiled
def add_edges(u, v, keep, at_zero, at_infinity, facts):
    """Add what categories of one law alone cost: f(0+) Q(p = 0) + f'(inf) P(q = 0)."""
    for row in range(u.shape[0]):
        fact = facts[row]
        if keep[row] and fact[EDGES] != 0.0:
            # A mass that underflows still costs infinitely much: it is not zero.
            only_q, some_q = mass_alone(v[row], u[row], fact[TOP_V] + fact[REST_V])
            only_p, some_p = mass_alone(u[row], v[row], fact[TOP_U] + fact[REST_U])
            cost_q = at_zero * (only_q if math.isfinite(at_zero) else 1.0) if some_q else 0.0
            cost_p = at_infinity * (only_p if math.isfinite(at_infinity) else 1.0) if some_p else 0.0
            fact[MEAN_Q] += cost_q
            fact[MEAN_P] += cost_p
            fact[VALUE] += cost_q + cost_p


@compiled
def edge_gradient(u, v, keep, at_zero, facts, scales, out):
    """Write the gradient in v at categories that Q alone has, or has not, into out (n, V); see `sweeps`."""
    for row in range(u.shape[0]):
        fact = facts[row]
        if keep[row] and fact[EDGES] != 0.0 and math.isfinite(fact[VALUE]):
            price = at_zero if math.isfinite(at_zero) else 0.0  # no category is Q's alone, or the value were infinite
            for i in range(u.shape[1]):
                if v[row, i] == -np.inf:
                    out[row, i] = 0
                elif u[row, i] == -np.inf:
                    q = math.exp(float(v[row, i]) - fact[TOP_V] - fact[REST_V])
                    out[row, i] = scales[row] * (q * (price - fact[MEAN_Q]))


__all__ = ["add_edges", "edge_gradient", "normalise"]
