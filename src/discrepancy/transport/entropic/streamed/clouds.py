"""A cloud as the compiled passes read it: in k-d order, cut into blocks with bounding boxes, so that far blocks are skipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

# Points in a block, a cell of the k-d order: small boxes skip more, blocks of this size still fill the vector registers.
_BLOCK = 64
# Boxes of 64 points exclude nothing in more dimensions than these.
BOXED_DIMENSIONS = 8


@dataclass(frozen=True)
class OrderedCloud:
    """`cloud` holds the points order[0], order[1], ... of the given array; `whole` says that the order is the given one."""

    order: np.ndarray
    cloud: Any
    whole: bool

    @property
    def size(self) -> int:
        """The number of points."""
        return self.order.size

    @property
    def blocks(self) -> int:
        """The number of blocks."""
        return self.cloud.starts.size - 1

    def gathered(self, values: np.ndarray) -> np.ndarray:
        """Values (n,) of the given array, in the cloud's order."""
        return values if self.whole else np.ascontiguousarray(values[..., self.order])

    def scattered(self, values: np.ndarray, n: int) -> np.ndarray:
        """Values (k, ...) in the cloud's order, at their places in an array of n rows; zero for points that are not here."""
        if self.whole:
            return values
        out = np.zeros((n, *values.shape[1:]))
        out[self.order] = values
        return out


def cell_width(n: int, cells: int) -> int:
    """The points of a cell of the k-d order of n points, a power of two, so that there are at most so many cells."""
    return 1 << max(0, (-(-n // cells) - 1).bit_length())


def boxed_cloud(points: np.ndarray, among: np.ndarray | None) -> OrderedCloud:
    """The points, or those among the given positions, in k-d order with boxes; O(n d log n) time, copies O(n d)."""
    from discrepancy._loops.cells import cell_order
    from discrepancy._loops.entropic_points.exponents import Cloud

    n = len(points) if among is None else among.size
    starts = np.append(np.arange(0, n, _BLOCK), n)
    order = np.arange(n) if among is None else among.copy()
    cell_order(points, order, cell_width(n, 1))
    inside = np.ascontiguousarray(points[order], dtype=np.float64)
    low = np.ascontiguousarray(np.minimum.reduceat(inside, starts[:-1], axis=0).T)
    high = np.ascontiguousarray(np.maximum.reduceat(inside, starts[:-1], axis=0).T)
    return OrderedCloud(order, Cloud(inside, np.ascontiguousarray(inside.T), starts, low, high), False)


def plain_cloud(points: np.ndarray | None, n: int, among: np.ndarray | None, block: int = _BLOCK) -> OrderedCloud:
    """The points as they come, without boxes: nothing is skipped. None: costs are given, and no points are held."""
    from discrepancy._loops.entropic_points.exponents import Cloud

    order = np.arange(n) if among is None else among
    starts = np.append(np.arange(0, order.size, block), order.size).astype(np.int64)
    inside = (
        np.zeros((0, 0)) if points is None else np.ascontiguousarray(points[order] if among is not None else points, np.float64)
    )
    empty = np.zeros((0, starts.size - 1))
    return OrderedCloud(order, Cloud(inside, np.ascontiguousarray(inside.T), starts, empty, empty), among is None)


__all__ = ["BOXED_DIMENSIONS", "OrderedCloud", "boxed_cloud", "cell_width", "plain_cloud"]
