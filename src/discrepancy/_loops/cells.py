"""The k-d order of a point cloud: a permutation in which every cell, at every depth, is a contiguous range.

At depth l there are 2^l cells; a cell [lo, hi) is halved at the median *index* (lo + hi) // 2 along its widest side, so that the
ranges depend on the number of points alone and the permutation is all that must be kept.
"""

# pyright: reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import numpy as np

from discrepancy._loops.compiled import compiled


@compiled
def _widest(points, order, low, high):
    """The coordinate in which the points order[low:high] spread most."""
    best, width = 0, -1.0
    for k in range(points.shape[1]):
        smallest, largest = np.inf, -np.inf
        for q in range(low, high):
            t = points[order[q], k]
            if t < smallest:
                smallest = t
            if t > largest:
                largest = t
        if largest - smallest > width:
            width, best = largest - smallest, k
    return best


@compiled
def _select(key, order, low, high, middle):
    """Hoare's quickselect: permute key and order in [low, high) so that position `middle` splits smaller from larger keys."""
    a, b = low, high - 1
    while b > a:
        pivot = key[(a + b) // 2]
        i, j = a, b
        while i <= j:
            while key[i] < pivot:
                i += 1
            while key[j] > pivot:
                j -= 1
            if i <= j:
                key[i], key[j] = key[j], key[i]
                order[i], order[j] = order[j], order[i]
                i += 1
                j -= 1
        if middle <= j:
            b = j
        elif middle >= i:
            a = i
        else:
            break


@compiled
def cell_order(points, order, depth):
    """Permute `order` (n,) in place into the k-d order of points (n, d) down to `depth`; O(n d depth) time, O(n) memory."""
    n = order.size
    key = np.empty(n)
    bounds = np.zeros(2, np.int64)
    bounds[1] = n
    for _ in range(depth):
        cells = bounds.size - 1
        finer = np.empty(2 * cells + 1, np.int64)
        for c in range(cells):
            low, high = bounds[c], bounds[c + 1]
            middle = (low + high) // 2
            finer[2 * c], finer[2 * c + 1] = low, middle
            if high - low > 1:
                side = _widest(points, order, low, high)
                for q in range(low, high):
                    key[q] = points[order[q], side]
                _select(key, order, low, high, middle)
        finer[2 * cells] = n
        bounds = finer


__all__ = ["cell_order"]
