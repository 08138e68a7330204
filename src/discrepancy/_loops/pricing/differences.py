"""Every column by direct differences: for metrics without a matrix product, and for a pass that prunes nothing."""

# pyright: reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import numpy as np

from discrepancy._loops.compiled import compiled
from discrepancy._loops.pricing.ground import tile
from discrepancy._loops.pricing.selection import insert

_TILE = 128


@compiled
def smallest(metric, power, x, yt, v, limit, ceiling, begin, end, keys, index, count, lowest):
    """The contract of this folder over all columns, x (n, d), yt (d, m); O(m d) a row, vectorised over tiles of columns."""
    m, k = yt.shape[1], keys.shape[1]
    buffer = np.empty(_TILE)
    for i in range(begin, end):
        held, worst, low = 0, limit[i], ceiling[i]
        for j0 in range(0, m, _TILE):
            size = min(_TILE, m - j0)
            tile(metric, power, x, i, yt, j0, size, buffer)
            least = np.inf
            for t in range(size):
                buffer[t] -= v[j0 + t]
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
