"""The pairs of triangles of one surface that cross, by a walk down a tree of boxes (its order: see nearest.py).

Signs of volumes decide. A volume below the rounding of its own computation counts as zero, so that triangles which only touch,
at a shared corner or edge or by lying side by side in one plane, do not cross.
"""

# pyright: reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import numpy as np

from discrepancy._loops.compiled import compiled

# Rounding of a 3 x 3 determinant of differences no larger than L is below 1e-14 L^3 in float64.
_ROUNDING = 1e-14


@compiled
def _side(p, a, b, c, d, zero):
    """The sign of the volume of the tetrahedron of points a, b, c, d (numbers of rows of p); 0 within `zero` of nought."""
    bx, by, bz = p[b, 0] - p[a, 0], p[b, 1] - p[a, 1], p[b, 2] - p[a, 2]
    cx, cy, cz = p[c, 0] - p[a, 0], p[c, 1] - p[a, 1], p[c, 2] - p[a, 2]
    dx, dy, dz = p[d, 0] - p[a, 0], p[d, 1] - p[a, 1], p[d, 2] - p[a, 2]
    volume = bx * (cy * dz - cz * dy) + by * (cz * dx - cx * dz) + bz * (cx * dy - cy * dx)
    return 1 if volume > zero else -1 if volume < -zero else 0


@compiled
def _pierces(p, start, end, side_start, side_end, a, b, c, zero):
    """Whether the segment from `start` to `end`, whose ends lie on the given sides of the triangle's plane, goes through the
    triangle a, b, c, its edges included."""
    if side_start * side_end >= 0:
        return False
    one, two, three = _side(p, start, end, a, b, zero), _side(p, start, end, b, c, zero), _side(p, start, end, c, a, zero)
    return (one >= 0 and two >= 0 and three >= 0) or (one <= 0 and two <= 0 and three <= 0)


@compiled
def _overlap(p, first, second, zero):
    """Whether two triangles of one plane share area: no edge of either (outward in axes `first`, `second`) separates them by
    `zero` or more."""
    for base in (0, 3):
        for k in range(3):
            a, b, c = base + k, base + (k + 1) % 3, base + (k + 2) % 3
            nx, ny = p[b, second] - p[a, second], p[a, first] - p[b, first]
            own = nx * (p[c, first] - p[a, first]) + ny * (p[c, second] - p[a, second])
            sign = -1.0 if own > 0.0 else 1.0  # the third corner lies on the negative side
            apart = True
            for j in range(3 - base, 6 - base):
                if sign * (nx * (p[j, first] - p[a, first]) + ny * (p[j, second] - p[a, second])) < -zero:
                    apart = False
            if apart:
                return False
    return True


@compiled
def _extent(p, rows):
    """The longest side of the box around the first rows of p."""
    longest = 0.0
    for axis in range(3):
        low = high = p[0, axis]
        for j in range(1, rows):
            low, high = min(low, p[j, axis]), max(high, p[j, axis])
        longest = max(longest, high - low)
    return longest


@compiled
def _in_plane(p, length):
    """Whether two triangles of one plane share area, seen along the axis that their normal is nearest to."""
    bx, by, bz = p[1, 0] - p[0, 0], p[1, 1] - p[0, 1], p[1, 2] - p[0, 2]
    cx, cy, cz = p[2, 0] - p[0, 0], p[2, 1] - p[0, 1], p[2, 2] - p[0, 2]
    nx, ny, nz = abs(by * cz - bz * cy), abs(bz * cx - bx * cz), abs(bx * cy - by * cx)
    first, second = (1, 2) if nx >= ny and nx >= nz else (0, 2) if ny >= nz else (0, 1)
    return _overlap(p, first, second, _ROUNDING * length * length)


@compiled
def _cross(p, sides):
    """Whether the triangles of rows 0 to 2 and 3 to 5 of p (6, 3) cross, or overlap in one plane; `sides` (6,) is room."""
    length = _extent(p, 6)
    zero = _ROUNDING * length * length * length
    for base in (0, 3):
        least, most = 1, -1
        for j in range(3 - base, 6 - base):
            sides[j] = _side(p, base, base + 1, base + 2, j, zero)
            least, most = min(least, sides[j]), max(most, sides[j])
        if least == 0 and most == 0:
            return _in_plane(p, length)
        if least >= 0 or most <= 0:
            return False
    for base in (0, 3):
        for k in range(3):
            start, end = 3 - base + k, 3 - base + (k + 1) % 3
            if _pierces(p, start, end, sides[start], sides[end], base, base + 1, base + 2, zero):
                return True
    return False


@compiled
def _place(p, row, corners, triangle):
    """Copies a triangle's corners to three rows of p."""
    for j in range(3):
        for axis in range(3):
            p[row + j, axis] = corners[triangle, j, axis]


@compiled
def _apart(p, low, high, node):
    """Whether the box of the first three rows of p and box `node` have nothing in common."""
    for axis in range(3):
        least = min(p[0, axis], p[1, axis], p[2, axis])
        most = max(p[0, axis], p[1, axis], p[2, axis])
        if most < low[node, axis] or least > high[node, axis]:
            return True
    return False


@compiled
def crossing_pairs(corners, low, high, depth, pairs):
    """Writes the crossing pairs (as places in the tree's order, the smaller first) to `pairs` (capacity, 2) and returns how many
    there are, also where that is more than fit. About F log F box tests."""
    count, found = corners.shape[0], 0
    stack = np.empty(depth + 2, np.int64)
    p, sides = np.empty((6, 3), np.float64), np.empty(6, np.int64)
    for i in range(count):
        _place(p, 0, corners, i)
        stack[0], top = 0, 0
        while top >= 0:
            node = stack[top]
            top -= 1
            level = 0
            while node >= (2 << level) - 1:
                level += 1
            k = node - ((1 << level) - 1)
            end = ((k + 1) * count) >> level
            if end <= i + 1 or _apart(p, low, high, node):
                continue
            if level < depth:
                stack[top + 1], stack[top + 2] = 2 * node + 1, 2 * node + 2
                top += 2
                continue
            for t in range(max(i + 1, (k * count) >> level), end):
                _place(p, 3, corners, t)
                if _cross(p, sides):
                    if found < pairs.shape[0]:
                        pairs[found, 0], pairs[found, 1] = i, t
                    found += 1
    return found


__all__ = ["crossing_pairs"]
