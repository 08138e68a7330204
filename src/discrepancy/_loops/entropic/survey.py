"""What one look at a cost matrix tells."""

# pyright: reportIndexIssue=false, reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

import numpy as np

from discrepancy._loops.compiled import compiled
from discrepancy._loops.entropic.arithmetic import FAST


@compiled(fastmath=FAST)
def survey(cost, a, b):
    """sum a_i b_j C_ij, sum a_i b_j |C_ij| and sum a_i b_j over the allowed pairs, and whether one is forbidden: one pass."""
    n, m = cost.shape
    total = size = mass = 0.0
    forbidden = 0
    for i in range(n):
        row = cost[i]
        inner = length = reached = 0.0
        closed = 0
        for j in range(m):
            allowed = row[j] < np.inf
            moved = b[j] * row[j] if allowed else 0.0
            inner += moved
            length += abs(moved)
            reached += b[j] if allowed else 0.0
            closed += 0 if allowed else 1
        total += a[i] * inner
        size += a[i] * length
        mass += a[i] * reached
        forbidden += closed
    return total, size, mass, forbidden > 0
