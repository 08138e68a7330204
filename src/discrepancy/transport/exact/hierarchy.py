"""A cloud seen at several scales: cells of a k-d tree, each a representative point with the integer mass of its members."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

# A tile holds so many points (or cells): wide enough for SIMD, small enough for a tight box.
_TILE = 32
# Cells grow by 4 from level to level, by 2 where a level has more than 2^15 of them (a better start is worth more there:
# measured, 10 % at n = 100,000); the coarsest level has some hundred cells a side.
_STEP = 2
_LARGE_DEPTH = 15
_COARSEST = 100


@dataclass(frozen=True)
class Side:
    """One side of the problem at one level, in k-d order.

    points (k, d) representatives, mass (k,) int64, tiles (T + 1,) bounds of the ranges that share a box, and children (k + 1,)
    bounds into the next finer level (None at the finest).
    """

    points: np.ndarray
    mass: np.ndarray
    tiles: np.ndarray
    children: np.ndarray | None = None


def depth_of(n: int) -> int:
    """The depth at which each of n points is a cell of its own."""
    return max(0, (n - 1).bit_length())


def cell_bounds(n: int, depth: int) -> np.ndarray:
    """Bounds of the cells of n points at a depth: ranges of 2^(depth of the points - depth) points, the last one shorter.

    Equal weights thus give equal masses at every level. Cells of 3 and 4 points, halves of halves, would make the coarse
    problems those of their own rounding (measured: five times the pivots at 65,536 cells).
    """
    return np.r_[np.arange(0, n, 1 << max(0, depth_of(n) - depth)), n]


def kd_order(points: np.ndarray) -> np.ndarray:
    """The permutation (n,) that puts points (n, d) into k-d order; O(n d log n)."""
    from discrepancy._loops.cells import cell_order

    order = np.arange(len(points))
    cell_order(points, order, 1 << depth_of(len(points)))
    return order


def level_depths(n: int, m: int) -> list[int]:
    """The depths of the levels above the points, finest first; empty where both sides are small.

    The deeper side decides: a side that has reached its points stays there while the other goes on.
    """
    depths, depth = [], max(depth_of(n), depth_of(m))
    while True:
        depth -= _STEP if depth <= _LARGE_DEPTH + 1 else 1
        if depth < 0 or (1 << depth) <= _COARSEST:
            return depths
        depths.append(depth)


def finest(points: np.ndarray, mass: np.ndarray) -> Side:
    """The side of the points themselves, (n, d) in k-d order, with mass (n,) int64."""
    return Side(points, mass, np.r_[np.arange(0, len(points), _TILE), len(points)])


def sides(points: Side, depths: list[int], flat: bool) -> list[Side]:
    """The side at every level, finest first, from that of the points.

    A cell is represented by the mean of its members by mass, or, where means make no sense (flat=False), by the member nearest
    to it. O(n d) time, a third of the points' memory.
    """
    n = len(points.mass)
    found, previous = [points], np.arange(n + 1)
    for depth in depths:
        finer = found[-1]
        bounds = cell_bounds(n, depth)
        children = np.searchsorted(previous, bounds)
        if len(bounds) == len(previous):
            found.append(Side(finer.points, finer.mass, finer.tiles, children))
            continue
        mass = np.add.reduceat(finer.mass, children[:-1])
        means = np.add.reduceat(finer.points * finer.mass[:, None], children[:-1], axis=0) / mass[:, None]
        cells = finest(means if flat else _members(finer.points, children, means), mass)
        found.append(replace(cells, children=children))
        previous = bounds
    return found


def _members(points: np.ndarray, children: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Of every range of points the one nearest to its mean."""
    difference = points - np.repeat(means, np.diff(children), axis=0)
    distance = np.einsum("ij,ij->i", difference, difference)
    least = np.minimum.reduceat(distance, children[:-1])
    hit = distance == np.repeat(least, np.diff(children))
    cell = np.repeat(np.arange(len(means)), np.diff(children))
    _, first = np.unique(cell[hit], return_index=True)
    return np.ascontiguousarray(points[np.flatnonzero(hit)[first]])


__all__ = ["Side", "finest", "kd_order", "level_depths", "sides"]
