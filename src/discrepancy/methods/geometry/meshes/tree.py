"""The triangles of a surface in a balanced tree of boxes, for the loops that search it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from discrepancy.methods.geometry.meshes.mesh import Mesh

_LEAF = 6  # triangles in a leaf at most: below, boxes cost more than they save


@dataclass(frozen=True)
class TriangleTree:
    """Triangles sorted so that each node's are neighbours: the node's longest axis is split in the middle, down to a few.

    `order` (F,) are face numbers in the tree's order, `corners` (F, 3, 3) the triangles in it, in float64; `low` and `high`
    (nodes, 3) the boxes, level after level. Time F (log F)^2, memory linear.
    """

    order: np.ndarray
    corners: np.ndarray
    low: np.ndarray
    high: np.ndarray
    depth: int

    @classmethod
    def of(cls, mesh: Mesh) -> TriangleTree:
        """The tree of a mesh. Raises TypeError for a mesh that is not on the CPU."""
        if mesh.vertices.device.type != "cpu":
            raise TypeError(f"searching a surface runs on CPU tensors, got a mesh on {mesh.vertices.device}: move it there first")
        corners = mesh.vertices.detach().double().numpy()[mesh.faces.numpy()]
        count = len(corners)
        depth = max(0, int(np.ceil(np.log2(count / _LEAF))))
        centres = corners.mean(1)
        order = np.arange(count)
        for level in range(depth):
            starts = _starts(count, level)
            mine = centres[order]
            extent = np.maximum.reduceat(mine, starts) - np.minimum.reduceat(mine, starts)
            node = np.repeat(np.arange(1 << level), np.diff(starts, append=count))
            order = order[np.lexsort((mine[np.arange(count), extent.argmax(1)[node]], node))]
        corners = np.ascontiguousarray(corners[order])
        starts = _starts(count, depth)
        low, high = [np.minimum.reduceat(corners.min(1), starts)], [np.maximum.reduceat(corners.max(1), starts)]
        for _ in range(depth):
            low.insert(0, np.minimum(low[0][::2], low[0][1::2]))
            high.insert(0, np.maximum(high[0][::2], high[0][1::2]))
        return cls(order, corners, np.concatenate(low), np.concatenate(high), depth)

    def nearest(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """The face (n,) nearest to each point (n, 3) and the barycentric coordinates (n, 3), in float64, of the nearest point."""
        from discrepancy._loops.triangles.nearest import nearest_triangles

        n = len(points)
        square, place, barycentric = np.empty(n), np.zeros(n, np.int64), np.empty((n, 3))
        queries = np.ascontiguousarray(points.detach().double().numpy())
        nearest_triangles(queries, self.corners, self.low, self.high, self.depth, square, place, barycentric)
        return torch.from_numpy(self.order[place]), torch.from_numpy(barycentric)

    def crossings(self) -> Tensor:
        """The pairs of faces (k, 2) that cross."""
        from discrepancy._loops.triangles.crossings import crossing_pairs

        pairs = np.empty((64, 2), np.int64)
        found = crossing_pairs(self.corners, self.low, self.high, self.depth, pairs)
        if found > len(pairs):
            pairs = np.empty((found, 2), np.int64)
            crossing_pairs(self.corners, self.low, self.high, self.depth, pairs)
        return torch.from_numpy(np.sort(self.order[pairs[:found]], -1))


def _starts(count: int, level: int) -> np.ndarray:
    """Where the nodes of a level begin."""
    return (np.arange(1 << level) * count) >> level


__all__ = ["TriangleTree"]
