"""The K smallest keys of a row, kept in ascending order."""

# pyright: reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

from discrepancy._loops.compiled import compiled


@compiled
def insert(keys, index, row, held, key, j):
    """Insert (key, j) into the sorted row of at most K; the caller has checked key < keys[row, K-1] if K are held.

    Returns how many are held. Equal keys stay in the order met. O(K).
    """
    k = keys.shape[1]
    if held < k:
        s = held
        held += 1
    else:
        s = k - 1
    while s > 0 and keys[row, s - 1] > key:
        keys[row, s] = keys[row, s - 1]
        index[row, s] = index[row, s - 1]
        s -= 1
    keys[row, s] = key
    index[row, s] = j
    return held


__all__ = ["insert"]
