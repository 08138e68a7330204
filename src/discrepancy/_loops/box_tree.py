"""A balanced tree of bounding boxes over points, searched for nearest neighbours and for counts within radii.

The tree is complete: node i has the children 2 i + 1 and 2 i + 2, its points lie side by side, its box is tight. Splits are by
rank and not by value, so that ties cannot make it deep. Points are kept by coordinate, columns (d, n), so that a leaf is scanned
by vector instructions.
"""

# pyright: reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from discrepancy._loops.compiled import compiled

LEAF = 32


class BoxTree(NamedTuple):
    """`columns` (d, n): the points in the tree's `order` (n,); node i holds the points start[i] to start[i + 1] of its level,
    in `first` and `last` (nodes,), inside the box `low`, `high` (nodes, d)."""

    columns: np.ndarray
    order: np.ndarray
    first: np.ndarray
    last: np.ndarray
    low: np.ndarray
    high: np.ndarray


def build(points: np.ndarray) -> BoxTree:
    """The tree over points (n, d), float64. Time O(n log n), memory O(n d)."""
    n, d = points.shape
    levels = max(0, int(np.ceil(np.log2(max(n / LEAF, 1)))))
    nodes = 2 ** (levels + 1) - 1
    order = np.arange(n)
    first, last = np.zeros(nodes, np.int64), np.zeros(nodes, np.int64)
    low, high = np.empty((nodes, d)), np.empty((nodes, d))
    last[0] = n
    for node in range(nodes):
        begin, end = first[node], last[node]
        inside = points[order[begin:end]]
        low[node], high[node] = inside.min(0), inside.max(0)
        left = 2 * node + 1
        if left >= nodes:
            continue
        axis = int(np.argmax(high[node] - low[node]))
        middle = (end - begin) // 2
        # In a sorted node of equal values any half is as good as another.
        order[begin:end] = order[begin:end][np.argpartition(inside[:, axis], middle)]
        first[left], last[left] = begin, begin + middle
        first[left + 1], last[left + 1] = begin + middle, end
    return BoxTree(np.ascontiguousarray(points[order].T), order, first, last, low, high)


@compiled(inline="always")
def _apart(query, low, high, node, maximum):
    """The distance of a query from a box: the largest excess of a coordinate (maximum norm), or the sum of squares."""
    total = 0.0
    for c in range(query.shape[0]):
        v = low[node, c] - query[c]
        w = query[c] - high[node, c]
        v = w if w > v else v
        if v > 0.0:
            if maximum:
                total = v if v > total else total
            else:
                total += v * v
    return total


@compiled(inline="always")
def _reach(query, low, high, node, maximum):
    """The largest distance of a query from a point of a box, measured like `_apart`."""
    total = 0.0
    for c in range(query.shape[0]):
        v = query[c] - low[node, c]
        w = high[node, c] - query[c]
        v = w if w > v else v
        if maximum:
            total = v if v > total else total
        else:
            total += v * v
    return total


@compiled(inline="always")
def _scan(query, columns, begin, end, maximum, found):
    """Distances of a query from the points begin to end, measured like `_apart`, into found."""
    for j in range(end - begin):
        found[j] = 0.0
    for c in range(columns.shape[0]):
        q = query[c]
        if maximum:
            for j in range(end - begin):
                v = abs(columns[c, begin + j] - q)
                found[j] = v if v > found[j] else found[j]
        else:
            for j in range(end - begin):
                v = columns[c, begin + j] - q
                found[j] += v * v


@compiled
def nearest(queries, own, columns, order, first, last, low, high, maximum, start, stop, distances, indices):
    """The k nearest points of the queries start to stop, ascending, into distances and indices (n, k); Euclidean distances come
    squared. own (n,) is the index that a query must not report, -1 where it may report all."""
    k = distances.shape[1]
    nodes = first.shape[0]
    stack = np.empty(128, np.int64)
    bound = np.empty(128)
    found = np.empty(2 * LEAF)
    for i in range(start, stop):
        query = queries[i]
        for j in range(k):
            distances[i, j] = np.inf
            indices[i, j] = -1
        stack[0] = 0
        bound[0] = 0.0
        top = 1
        while top > 0:
            top -= 1
            if bound[top] >= distances[i, k - 1]:
                continue
            node = stack[top]
            left = 2 * node + 1
            if left < nodes:
                a = _apart(query, low, high, left, maximum)
                b = _apart(query, low, high, left + 1, maximum)
                # The nearer child is taken from the stack first.
                if a <= b:
                    stack[top], bound[top] = left + 1, b
                    stack[top + 1], bound[top + 1] = left, a
                else:
                    stack[top], bound[top] = left, a
                    stack[top + 1], bound[top + 1] = left + 1, b
                top += 2
                continue
            _scan(query, columns, first[node], last[node], maximum, found)
            worst = distances[i, k - 1]
            for j in range(last[node] - first[node]):
                v = found[j]
                if v < worst:
                    index = order[first[node] + j]
                    if index == own[i]:
                        continue
                    p = k - 1
                    while p > 0 and distances[i, p - 1] > v:
                        distances[i, p] = distances[i, p - 1]
                        indices[i, p] = indices[i, p - 1]
                        p -= 1
                    distances[i, p] = v
                    indices[i, p] = index
                    worst = distances[i, k - 1]


@compiled
def count(queries, radii, strict, columns, first, last, low, high, maximum, start, stop, counts):
    """How many points lie within radii (n,) of the queries start to stop: nearer than the radius if strict, else also at it.
    Euclidean radii come squared. Boxes that lie inside are counted whole."""
    nodes = first.shape[0]
    stack = np.empty(128, np.int64)
    found = np.empty(2 * LEAF)
    for i in range(start, stop):
        query = queries[i]
        radius = radii[i]
        total = 0
        stack[0] = 0
        top = 1
        while top > 0:
            top -= 1
            node = stack[top]
            near = _apart(query, low, high, node, maximum)
            if near > radius or (strict and near == radius):
                continue
            far = _reach(query, low, high, node, maximum)
            if far < radius or (far == radius and not strict):
                total += last[node] - first[node]
                continue
            left = 2 * node + 1
            if left < nodes:
                stack[top] = left
                stack[top + 1] = left + 1
                top += 2
                continue
            _scan(query, columns, first[node], last[node], maximum, found)
            if strict:
                for j in range(last[node] - first[node]):
                    if found[j] < radius:
                        total += 1
            else:
                for j in range(last[node] - first[node]):
                    if found[j] <= radius:
                        total += 1
        counts[i] = total


__all__ = ["BoxTree", "build", "count", "nearest"]
