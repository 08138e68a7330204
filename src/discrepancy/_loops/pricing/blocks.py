"""The K smallest reduced costs of rows whose costs are given as a block."""

# pyright: reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import numpy as np

from discrepancy._loops.compiled import compiled
from discrepancy._loops.pricing.selection import insert

_TILE = 128


@compiled
def smallest(costs, offset, v, limit, ceiling, keys, index, count, lowest):
    """The contract of this folder for rows offset, offset + 1, ... with costs (rows, m); O(rows m).

    +inf is a forbidden pair: it is never below a finite limit.
    """
    rows, m = costs.shape
    k = keys.shape[1]
    buffer = np.empty(_TILE)
    for r in range(rows):
        i = offset + r
        held, worst, low = 0, limit[i], ceiling[i]
        for j0 in range(0, m, _TILE):
            size = min(_TILE, m - j0)
            least = np.inf
            for t in range(size):
                buffer[t] = costs[r, j0 + t] - v[j0 + t]
                least = min(least, buffer[t])
            if least >= max(worst, low):
                continue
            low = min(low, least)
            for t in range(size):
                if buffer[t] < worst:
                    held = insert(keys, index, i, held, buffer[t], j0 + t)
                    if held == k:
                        worst = keys[i, k - 1]
        count[i], lowest[i] = held, low


__all__ = ["smallest"]
