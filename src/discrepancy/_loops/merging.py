"""Two ascending rows walked together: ranks of one among the other, and the area between their distribution functions."""

# pyright: reportIndexIssue=false

from __future__ import annotations

from discrepancy._loops.compiled import compiled


@compiled
def ranks(knots, at, right, out):
    """How many of knots (r, n) lie below each of at (r, k), both ascending: at or below it if `right`. Writes out (r, k); n + k
    steps a row."""
    rows, n = knots.shape
    for r in range(rows):
        j = 0
        for k in range(at.shape[1]):
            t = at[r, k]
            if right:
                while j < n and knots[r, j] <= t:
                    j += 1
            else:
                while j < n and knots[r, j] < t:
                    j += 1
            out[r, k] = j


@compiled
def squared_area(u, A, v, B, out):
    """Writes int (F - G)^2 to out (r,), for ascending u (r, n), v (r, m) and levels A (r, n + 1), B (r, m + 1): A[i] is the mass
    of the first i points. Exchanging the two sides changes no bit."""
    rows, n = u.shape
    m = v.shape[1]
    for r in range(rows):
        i, j = 0, 0
        previous = min(u[r, 0], v[r, 0])
        total = 0.0
        while i < n or j < m:
            t = u[r, i] if j == m or (i < n and u[r, i] <= v[r, j]) else v[r, j]
            height = A[r, i] - B[r, j]
            total += (t - previous) * height * height
            previous = t
            while i < n and u[r, i] == t:
                i += 1
            while j < m and v[r, j] == t:
                j += 1
        out[r] = total
