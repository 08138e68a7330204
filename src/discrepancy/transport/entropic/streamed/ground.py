"""Where the passes take their costs from: formed from the points inside the loop, or tile by tile from matrix products."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from discrepancy.costs import Cosine, Cost, Euclidean, Manhattan, PowerCost, Sphere, SquaredEuclidean
from discrepancy.transport.entropic.streamed.clouds import BOXED_DIMENSIONS, OrderedCloud, boxed_cloud, plain_cloud

# Bytes of one tile of costs, and rows of its blocks.
_TILE = 32 << 20
_TILE_BLOCK = 8
# Columns whose points are converted to float64 at a time: the copy is small beside the tile.
_CHUNK = 4096


def metric_of(cost: Cost) -> tuple[int, float, float] | None:
    """The loops' metric, its power, and the factor on it; None for a cost that only torch can evaluate."""
    from discrepancy._loops.pricing import ground as metrics

    if isinstance(cost, PowerCost) and type(cost) is PowerCost:
        return metrics.POWER, float(cost.p), 1.0
    known = {
        SquaredEuclidean: (metrics.SQUARED, 2.0, 1.0),
        Euclidean: (metrics.EUCLIDEAN, 1.0, 1.0),
        Manhattan: (metrics.MANHATTAN, 1.0, 1.0),
        Cosine: (metrics.SQUARED, 2.0, 0.5),  # half the squared distance of the directions
        Sphere: (metrics.GEODESIC, 1.0, 1.0),
    }
    return known.get(type(cost))


def directions(x: Tensor) -> Tensor:
    """Rows of norm one, in float64."""
    x = x.double()
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)


def mean_point(points: Tensor) -> Tensor:
    """The mean (d,) in float64, a block of points at a time."""
    total = torch.zeros(points.shape[-1], dtype=torch.float64)
    for start in range(0, len(points), _CHUNK):
        total += points[start : start + _CHUNK].double().sum(0)
    return total / len(points)


class PairedClouds:
    """Two clouds x (n, d), y (m, d) under a cost, as rows against columns; `among` masks leave points of weight zero out.

    Squared distances in more than 8 dimensions are matrix products, tile by tile; all other named costs are formed from
    the points; any other cost is evaluated by torch, tile by tile. Tiles take 32 MiB. Points are copied once where they are
    few numbers a row, else read block by block where they lie.
    """

    def __init__(self, x: Tensor, y: Tensor, cost: Cost) -> None:
        from discrepancy._loops.entropic_points.exponents import GIVEN
        from discrepancy._loops.pricing.ground import SQUARED

        found = metric_of(cost)
        self.cost = cost
        if isinstance(cost, Cosine) and found is not None:
            x, y = directions(x), directions(y)
        self.x, self.y, d = x.detach(), y.detach(), x.shape[-1]
        self.metric, self.power, self.factor = found if found is not None else (GIVEN, 1.0, 1.0)
        self.products = self.metric == SQUARED and d > BOXED_DIMENSIONS
        self.given = self.products or found is None
        self.boxed = not self.given and d <= BOXED_DIMENSIONS
        self.offset = mean_point(self.y) if self.products else None

    def cloud(self, points: Tensor, weights: np.ndarray | None) -> OrderedCloud:
        """The points of x or y for the passes; weights: leave out those of weight zero."""
        among = None if weights is None or bool((weights > 0).all()) else np.flatnonzero(weights > 0)
        if self.boxed:
            return boxed_cloud(points.double().contiguous().numpy(), among)
        return plain_cloud(
            None if self.given else points.double().contiguous().numpy(),
            len(points),
            among,
            _TILE_BLOCK if self.given else 64,
        )

    def ground(self, scale: float) -> Any:
        """What the loops take as their ground: exponents are -scale c."""
        from discrepancy._loops.entropic_points.exponents import GIVEN, Ground

        return Ground(GIVEN if self.given else self.metric, self.power, scale * self.factor)

    def tiles(self, left: Tensor, rows: OrderedCloud, right: Tensor, columns: OrderedCloud) -> Iterator[tuple[int, int, Any]]:
        """Ranges of row blocks with their costs; one range and no costs where the loops form them from the points."""
        from discrepancy._loops.entropic_points.exponents import Tile

        if not self.given:
            yield 0, rows.blocks, Tile(np.zeros((0, 0)), 0)
            return
        m = columns.size
        size = max(1, min(256, _TILE // (8 * m)) // _TILE_BLOCK)
        if not self.products:
            size = max(1, min(size, self.cost.block_size(m, left.shape[-1], 2 * _TILE, 8) // _TILE_BLOCK))
        if not columns.whole:
            right = right[torch.from_numpy(columns.order)]
        buffer = torch.empty(min(size * _TILE_BLOCK, rows.size), m, dtype=torch.float64)
        for first in range(0, rows.blocks, size):
            last = min(first + size, rows.blocks)
            start, stop = rows.cloud.starts[first], rows.cloud.starts[last]
            block = left[start:stop] if rows.whole else left[torch.from_numpy(rows.order[start:stop])]
            yield first, last, Tile(self.costs(block, right, buffer[: stop - start]).numpy(), start)

    def costs(self, block: Tensor, right: Tensor, out: Tensor) -> Tensor:
        """Costs of a block of rows against all columns, in `out` where they are |x|^2 + |y|^2 - 2 x.y about the mean of y."""
        if not self.products:
            with torch.no_grad():
                return self.cost.matrix(block.double(), right.double()).contiguous()
        assert self.offset is not None
        block = block.double() - self.offset
        norms = block.square().sum(-1, keepdim=True)
        for start in range(0, right.shape[0], _CHUNK):
            part = right[start : start + _CHUNK].double() - self.offset
            place = out[:, start : start + _CHUNK]
            place.copy_(norms + part.square().sum(-1))
            place.addmm_(block, part.mT, alpha=-2)
        return out


__all__ = ["PairedClouds", "directions", "mean_point", "metric_of"]
