"""Rows of a plan, formed from its potentials."""

# pyright: reportIndexIssue=false, reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

from discrepancy._loops.compiled import compiled
from discrepancy._loops.entropic.arithmetic import FAST
from discrepancy._loops.exponential import exp2_double


@compiled(fastmath=FAST)
def plan_rows(cost, scale, u, h, first, out):
    """Writes P_ij = 2^(u_i + h_j - scale C_ij) for the rows from `first` on that fit out (k, m), in its precision; exponents
    are in double precision. k m exponentials."""
    m = h.size
    for i in range(out.shape[0]):
        row, kept, base = cost[first + i], out[i], u[first + i]
        for j in range(m):
            kept[j] = exp2_double(min(base + h[j] - scale * row[j], 1000.0))
