"""The k-d order of a point cloud: a permutation in which every cell, at every depth, is a contiguous range.

Of a cell of more than 2^k and at most 2^(k + 1) points the 2^k smallest along its widest side become its first half: the ranges
depend on the number of points alone, cells of one depth hold equally many points (but for the last), and the permutation is
all that must be kept.
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
def cell_order(points, order, width):
    """Permute `order` (n,) in place into the k-d order of points (n, d); `width` the least power of two that is not below n.

    O(n d log n) time, O(n) memory.
    """
    n = order.size
    key = np.empty(n)
    while width > 1:
        half = width // 2
        for low in range(0, n, width):
            high = min(low + width, n)
            if high - low > half:
                side = _widest(points, order, low, high)
                for q in range(low, high):
                    key[q] = points[order[q], side]
                _select(key, order, low, high, low + half)
        width = half


__all__ = ["cell_order"]
