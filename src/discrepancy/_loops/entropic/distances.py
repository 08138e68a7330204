"""Squared distances between points, written once to memory."""

# pyright: reportIndexIssue=false, reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

from discrepancy._loops.apart import apart
from discrepancy._loops.compiled import compiled
from discrepancy._loops.entropic.arithmetic import FAST


@compiled(fastmath=FAST)
def squared_distances(x, y, out):
    """Writes |x_i - y_j|^2 (n, m) for x (n, d) and y (d, m), coordinates of y in rows, by direct differences; n m d steps."""
    n, d = x.shape
    m = y.shape[1]
    row = apart(m)
    for i in range(n):
        row[:] = 0.0
        for k in range(d):
            at, others = x[i, k], y[k]
            for j in range(m):
                gap = at - others[j]
                row[j] += gap * gap
        out[i, :] = row


@compiled(fastmath=FAST)
def complete_squares(left, right, products):
    """Turns inner products x_i.y_j (n, m) into left_i + right_j - 2 x_i.y_j, not below zero, in place."""
    n, m = products.shape
    for i in range(n):
        row, own = products[i], left[i]
        for j in range(m):
            row[j] = max(own + right[j] - 2.0 * row[j], 0.0)
