"""The smallest reduced costs in each row and in each column of a cost matrix, read once in blocks of rows."""

from __future__ import annotations

import numpy as np

from discrepancy._loops.compiled import compiled

_TILE = 128  # entries whose minimum is taken by SIMD before any is looked at singly
# No assumption on infinities: a forbidden pair costs +inf.
_REAL = {"nnan", "nsz", "contract", "reassoc"}


@compiled(fastmath=_REAL)
def smallest_in_rows(block, g, threshold, values, places, count, least):
    """Per row i of `block` (r, m): up to K entries with the smallest block_ij - g_j below threshold_i, and the row minimum.

    values (r, K) sorted ascending, places (r, K) their columns, count (r,) how many, least (r,) the minimum over all columns;
    all are filled. O(r m) with SIMD, plus K for every entry that enters.
    """
    wanted = values.shape[1]
    m = block.shape[1]
    reduced = np.empty(_TILE, np.float64)
    for i in range(block.shape[0]):
        found = 0
        worst = threshold[i]
        lowest = np.inf
        tiles = (m + _TILE - 1) // _TILE
        for k in range(tiles):
            # Each row begins at a tile of its own: where many entries tie, the rows keep different ones.
            begin = ((i + k) % tiles) * _TILE
            length = min(_TILE, m - begin)
            entries = block[i, begin : begin + length]
            shifts = g[begin : begin + length]
            smallest = np.inf
            for t in range(length):
                r = entries[t] - shifts[t]
                reduced[t] = r
                smallest = r if r < smallest else smallest
            if smallest < lowest:
                lowest = smallest
            if smallest < worst:
                for t in range(length):
                    r = reduced[t]
                    if r < worst:
                        if found < wanted:
                            s = found
                            found += 1
                        else:
                            s = wanted - 1
                        while s > 0 and values[i, s - 1] > r:
                            values[i, s] = values[i, s - 1]
                            places[i, s] = places[i, s - 1]
                            s -= 1
                        values[i, s] = r
                        places[i, s] = begin + t
                        if found == wanted:
                            worst = min(worst, values[i, wanted - 1])
        count[i] = found
        least[i] = lowest


@compiled(fastmath=_REAL)
def smallest_in_columns(block, first, f, values, places):
    """Per column j: the K smallest block_ij - f_(first + i), merged into values (m, K) ascending and places (m, K).

    values must hold +inf before the first block; rows are numbered from `first`. O(r m) with SIMD, plus K for every entry that
    enters.
    """
    wanted = values.shape[1]
    m = block.shape[1]
    worst = values[:, wanted - 1].copy()
    for i in range(block.shape[0]):
        above = f[first + i]
        for begin in range(0, m, _TILE):
            length = min(_TILE, m - begin)
            entries = block[i, begin : begin + length]
            bound = worst[begin : begin + length]
            entering = 0
            for t in range(length):
                entering += entries[t] - above < bound[t]
            if entering > 0:
                for t in range(length):
                    r = entries[t] - above
                    if r < bound[t]:
                        j = begin + t
                        s = wanted - 1
                        while s > 0 and values[j, s - 1] > r:
                            values[j, s] = values[j, s - 1]
                            places[j, s] = places[j, s - 1]
                            s -= 1
                        values[j, s] = r
                        places[j, s] = first + i
                        bound[t] = values[j, wanted - 1]


@compiled(fastmath=_REAL)
def lower_to_columns(block, first, f, g):
    """g_j = min(g_j, min_i block_ij - f_(first + i)), in place. O(r m) with SIMD."""
    for i in range(block.shape[0]):
        above = f[first + i]
        for j in range(block.shape[1]):
            r = block[i, j] - above
            g[j] = r if r < g[j] else g[j]
