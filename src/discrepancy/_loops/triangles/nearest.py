"""The triangle nearest to each point, by a walk down a tree of boxes.

Triangles lie in the order of the tree: node k of level l covers the triangles floor(k F / 2^l) to floor((k + 1) F / 2^l) - 1,
and boxes are stored level after level, so that node k of level l is box 2^l - 1 + k.
"""

# pyright: reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import numpy as np

from discrepancy._loops.compiled import compiled


@compiled(inline="always")
def _box_square(x, y, z, low, high, node):
    """The squared distance from a point to a box; zero inside."""
    total = 0.0
    for value, axis in ((x, 0), (y, 1), (z, 2)):
        gap = max(low[node, axis] - value, value - high[node, axis], 0.0)
        total += gap * gap
    return total


@compiled
def _along(x, y, z, corner, start, end):
    """Where on the edge from corner `start` to corner `end` (as a share in [0, 1]) the nearest point is, and the squared
    distance to it."""
    ex, ey, ez = corner[end, 0] - corner[start, 0], corner[end, 1] - corner[start, 1], corner[end, 2] - corner[start, 2]
    px, py, pz = x - corner[start, 0], y - corner[start, 1], z - corner[start, 2]
    length = ex * ex + ey * ey + ez * ez
    share = 0.0
    if length > 0.0:
        share = min(1.0, max(0.0, (px * ex + py * ey + pz * ez) / length))
    gx, gy, gz = px - share * ex, py - share * ey, pz - share * ez
    return share, gx * gx + gy * gy + gz * gz


@compiled
def _triangle(x, y, z, corner):
    """Squared distance to a triangle and the barycentric coordinates of its nearest point; triangles without area are edges."""
    bx, by, bz = corner[1, 0] - corner[0, 0], corner[1, 1] - corner[0, 1], corner[1, 2] - corner[0, 2]
    cx, cy, cz = corner[2, 0] - corner[0, 0], corner[2, 1] - corner[0, 1], corner[2, 2] - corner[0, 2]
    px, py, pz = x - corner[0, 0], y - corner[0, 1], z - corner[0, 2]
    nx, ny, nz = by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx
    square = nx * nx + ny * ny + nz * nz
    if square > 0.0:
        u = (nx * (py * cz - pz * cy) + ny * (pz * cx - px * cz) + nz * (px * cy - py * cx)) / square
        v = (nx * (by * pz - bz * py) + ny * (bz * px - bx * pz) + nz * (bx * py - by * px)) / square
        if u >= 0.0 and v >= 0.0 and u + v <= 1.0:
            height = px * nx + py * ny + pz * nz
            return height * height / square, 1.0 - u - v, u, v
    share, best = _along(x, y, z, corner, 0, 1)
    one, two, three = 1.0 - share, share, 0.0
    share, found = _along(x, y, z, corner, 1, 2)
    if found < best:
        best, one, two, three = found, 0.0, 1.0 - share, share
    share, found = _along(x, y, z, corner, 2, 0)
    if found < best:
        best, one, two, three = found, share, 0.0, 1.0 - share
    return best, one, two, three


@compiled
def nearest_triangles(points, corners, low, high, depth, square, face, barycentric):
    """Writes, for each point (n, 3), the squared distance to the nearest of the triangles corners (F, 3, 3), its place in the
    tree's order, and the barycentric coordinates (n, 3) of the nearest point on it.

    About log F boxes a point near the surface; memory of a stack of `depth` nodes.
    """
    count = corners.shape[0]
    stack = np.empty(depth + 2, np.int64)
    bound = np.empty(depth + 2, np.float64)
    for i in range(points.shape[0]):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        best, top = np.inf, 0
        stack[0], bound[0] = 0, _box_square(x, y, z, low, high, 0)
        while top >= 0:
            node, least = stack[top], bound[top]
            top -= 1
            if least >= best:
                continue
            # Nodes 2^l - 1 to 2^(l+1) - 2 are those of level l.
            if node >= (1 << depth) - 1:
                k = node - ((1 << depth) - 1)
                for t in range((k * count) >> depth, ((k + 1) * count) >> depth):
                    found, one, two, three = _triangle(x, y, z, corners[t])
                    if found < best:
                        best = found
                        face[i] = t
                        barycentric[i, 0], barycentric[i, 1], barycentric[i, 2] = one, two, three
                continue
            left, right = 2 * node + 1, 2 * node + 2
            to_left, to_right = _box_square(x, y, z, low, high, left), _box_square(x, y, z, low, high, right)
            if to_left > to_right:
                left, right, to_left, to_right = right, left, to_right, to_left
            if to_right < best:
                top += 1
                stack[top], bound[top] = right, to_right
            if to_left < best:
                top += 1
                stack[top], bound[top] = left, to_left
        square[i] = best


__all__ = ["nearest_triangles"]
