"""Isotonic regression of many rows by pooling adjacent violators."""

# pyright: reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import numpy as np

from discrepancy._loops.compiled import compiled


@compiled
def pool_adjacent_violators(values, weights, fitted, blocks):
    """Write the nearest non-decreasing sequence to each row of values (r, K), under weights (K,) > 0, to fitted (r, K), and the
    number of the pooled block of each entry to blocks (r, K) int64. Linear time: each entry is merged once.
    """
    rows, K = values.shape
    level, mass, first = np.empty(K), np.empty(K), np.empty(K, np.int64)
    for r in range(rows):
        top = -1
        for k in range(K):
            top += 1
            level[top], mass[top], first[top] = values[r, k], weights[k], k
            while top > 0 and level[top - 1] >= level[top]:
                joint = mass[top - 1] + mass[top]
                level[top - 1] += (level[top] - level[top - 1]) * (mass[top] / joint)
                mass[top - 1] = joint
                top -= 1
        for b in range(top + 1):
            end = first[b + 1] if b < top else K
            for k in range(first[b], end):
                fitted[r, k] = level[b]
                blocks[r, k] = b


__all__ = ["pool_adjacent_violators"]
