"""Pricing all pairs of two clouds without their matrix: the columns of smallest reduced cost of every row, and the reverse."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import torch

from discrepancy._results import NumericalError
from discrepancy.costs import Cost
from discrepancy.transport.exact.hierarchy import Side

# Boxes tell cells apart in low dimension only: measured, they lose from d = 5 on.
_BOX_DIMENSION = 4
# Rows of one matrix product, so that the block stays near the cache, and rows a thread takes of it.
_BLOCK_ENTRIES = 1 << 19


@dataclass(frozen=True)
class Nearest:
    """For every row: index (n, K) int32 of the columns of smallest key c - v, the first count (n,) of them valid, in ascending
    order; lowest (n,) the smallest key, or the ceiling where that is less."""

    index: np.ndarray
    count: np.ndarray
    lowest: np.ndarray


class Pricing(Protocol):
    """The costs of one pair of clouds, as the levels of the exact solver ask for them."""

    def pairs(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """The costs of listed pairs, (k,) float64."""
        ...

    def smallest(
        self, v: np.ndarray, k: int, limit: np.ndarray | None = None, ceiling: np.ndarray | None = None, *, back: bool = False
    ) -> Nearest:
        """The k columns of smallest c_ij - v_j below limit_i for every row i, and min(ceiling_i, min_j c_ij - v_j).

        back=True exchanges the roles: the rows of smallest c_ij - v_i for every column.
        """
        ...


class _Cloud:
    """One side as the loops read it: points by row and by coordinate, and two layers of boxes."""

    def __init__(self, side: Side) -> None:
        self.points, self.cells = side.points, side.tiles

    @cached_property
    def transposed(self) -> np.ndarray:
        return np.ascontiguousarray(self.points.T)

    @cached_property
    def groups(self) -> np.ndarray:
        """Bounds of groups of cells, about as many groups as cells in a group."""
        count = len(self.cells) - 1
        width = 1 << (max(1, count).bit_length() // 2)
        return np.r_[np.arange(0, count, width), count]

    @cached_property
    def boxes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The boxes of cells and of groups: low, high (d, cells), low, high (d, groups)."""
        from discrepancy._loops.pricing.boxes import extents

        low, high = (np.empty((self.points.shape[1], len(self.cells) - 1)) for _ in range(2))
        extents(self.transposed, self.cells, low, high)
        starts = self.groups[:-1]
        return low, high, np.minimum.reduceat(low, starts, axis=1), np.maximum.reduceat(high, starts, axis=1)

    @cached_property
    def squares(self) -> np.ndarray:
        """|x|^2, shrunk by the bound on the rounding of a distance from products."""
        from discrepancy._loops.pricing.products import shrink

        return np.einsum("ij,ij->i", self.points, self.points) * (1.0 - shrink(self.points.shape[1]))


@dataclass(frozen=True)
class PointPricing:
    """Pricing in compiled loops: boxes in up to 4 dimensions, above by matrix products, or by differences for the metric that has
    none (and for all, unpruned, where `every_pair`). Memory linear in n + m but for one block of products."""

    x: Side
    y: Side
    metric: int
    power: float
    every_pair: bool = False
    _clouds: tuple[_Cloud, _Cloud] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Arrange both sides."""
        object.__setattr__(self, "_clouds", (_Cloud(self.x), _Cloud(self.y)))

    def pairs(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """By direct differences."""
        from discrepancy._loops.pricing import ground

        out = np.empty(len(rows))
        ground.pairs(self.metric, self.power, self.x.points, self.y.points, rows, columns, out)
        return out

    def smallest(
        self, v: np.ndarray, k: int, limit: np.ndarray | None = None, ceiling: np.ndarray | None = None, *, back: bool = False
    ) -> Nearest:
        """O(n m d) by products or differences, far fewer pairs by boxes."""
        from discrepancy._loops.pricing import ground

        seen, other = self._clouds[::-1] if back else self._clouds
        n, d = seen.points.shape
        asked = _Asked.of(n, k, limit, ceiling)
        v = np.ascontiguousarray(v)
        if d <= _BOX_DIMENSION and not self.every_pair:
            self._by_boxes(seen, other, v, asked)
        elif self.metric == ground.MANHATTAN or self.every_pair:
            self._by_differences(seen, other, v, asked)
        else:
            self._by_products(seen, other, v, asked)
        return asked.answer()

    def _by_boxes(self, seen: _Cloud, other: _Cloud, v: np.ndarray, asked: _Asked) -> None:
        from discrepancy._loops.pricing import boxes
        from discrepancy._loops.threads import in_parallel

        low, high, group_low, group_high = other.boxes
        tops = np.maximum.reduceat(v, other.cells[:-1])
        group_tops = np.maximum.reduceat(tops, other.groups[:-1])

        def work(part: tuple[int, int]) -> None:
            boxes.smallest(
                self.metric, self.power, seen.points, other.transposed, v, other.cells, low, high, tops, other.groups, group_low,
                group_high, group_tops, asked.limit, asked.ceiling, *part, asked.keys, asked.index, asked.count, asked.lowest,
            )  # fmt: skip

        in_parallel(work, _parts(0, len(seen.points), boxes.RESTART))

    def _by_differences(self, seen: _Cloud, other: _Cloud, v: np.ndarray, asked: _Asked) -> None:
        from discrepancy._loops.pricing import differences
        from discrepancy._loops.threads import in_parallel

        def work(part: tuple[int, int]) -> None:
            differences.smallest(
                self.metric, self.power, seen.points, other.transposed, v, asked.limit, asked.ceiling, *part, asked.keys,
                asked.index, asked.count, asked.lowest,
            )  # fmt: skip

        in_parallel(work, _parts(0, len(seen.points), 64))

    def _by_products(self, seen: _Cloud, other: _Cloud, v: np.ndarray, asked: _Asked) -> None:
        from discrepancy._loops.pricing import products
        from discrepancy._loops.threads import in_parallel

        n, m = len(seen.points), len(other.points)
        tops = np.maximum.reduceat(v, np.arange(0, m, products.TILE))
        largest = float(other.squares.max())
        step = max(16, min(n, _BLOCK_ENTRIES // m))
        block = torch.empty(min(step, n), m, dtype=torch.float64)
        left, right = torch.from_numpy(seen.points), torch.from_numpy(other.transposed)
        for start in range(0, n, step):
            stop = min(start + step, n)
            torch.mm(left[start:stop], right, out=block[: stop - start])
            inner = block.numpy()

            def work(part: tuple[int, int], inner: np.ndarray = inner, start: int = start) -> None:
                products.smallest(
                    self.metric, self.power, inner[part[0] - start : part[1] - start], part[0], seen.points, other.points,
                    seen.squares, other.squares, largest, v, tops, asked.limit, asked.ceiling, asked.keys, asked.index,
                    asked.count, asked.lowest,
                )  # fmt: skip

            in_parallel(work, _parts(start, stop, 16, 4))


@dataclass(frozen=True)
class BlockPricing:
    """Pricing of any cost by blocks of its matrix, `budget` bytes each, from points in the dtype that the cost is given.

    Raises NumericalError for costs that are not finite.
    """

    x: Side
    y: Side
    cost: Cost
    dtype: torch.dtype
    budget: int

    def pairs(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """By the cost's own pairs."""
        x, y = self._tensors()
        step = max(1, self.budget // (16 * 8 * max(1, x.shape[1])))
        out = np.empty(len(rows))
        for start in range(0, len(rows), step):
            i, j = (torch.from_numpy(np.asarray(q[start : start + step], np.int64)) for q in (rows, columns))
            with torch.no_grad():
                out[start : start + step] = self.cost.pairs(x[i], y[j]).double().numpy()
        _require_finite(float(out.sum()))
        return out

    def smallest(
        self, v: np.ndarray, k: int, limit: np.ndarray | None = None, ceiling: np.ndarray | None = None, *, back: bool = False
    ) -> Nearest:
        """O(n m) costs, formed block by block."""
        from discrepancy._loops.pricing import blocks

        x, y = self._tensors()
        n, m = (len(y), len(x)) if back else (len(x), len(y))
        asked = _Asked.of(n, k, limit, ceiling)
        step = min(n, self.cost.block_size(m, x.shape[1], self.budget, 8))
        for start in range(0, n, step):
            part = slice(start, min(start + step, n))
            with torch.no_grad():
                found = self.cost.matrix(x, y[part]).mT if back else self.cost.matrix(x[part], y)
            costs = found.double().contiguous()
            _require_finite(float(costs.sum()))
            blocks.smallest(
                costs.numpy(), start, v, asked.limit, asked.ceiling, asked.keys, asked.index, asked.count, asked.lowest
            )
        return asked.answer()

    def _tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(self.x.points).to(self.dtype), torch.from_numpy(self.y.points).to(self.dtype)


@dataclass(frozen=True)
class _Asked:
    """What a walk is asked, and the arrays that it fills."""

    limit: np.ndarray
    ceiling: np.ndarray
    keys: np.ndarray
    index: np.ndarray
    count: np.ndarray
    lowest: np.ndarray

    @staticmethod
    def of(n: int, k: int, limit: np.ndarray | None, ceiling: np.ndarray | None) -> _Asked:
        free = np.full(n, np.inf) if limit is None or ceiling is None else None
        return _Asked(
            limit=free if limit is None else limit,  # type: ignore[arg-type]
            ceiling=free if ceiling is None else ceiling,  # type: ignore[arg-type]
            keys=np.empty((n, k)),
            index=np.empty((n, k), np.int32),
            count=np.empty(n, np.int32),
            lowest=np.empty(n),
        )

    def answer(self) -> Nearest:
        return Nearest(self.index, self.count, self.lowest)


def _parts(start: int, stop: int, multiple: int, most: int = 64) -> list[tuple[int, int]]:
    """[start, stop) in at most `most` ranges whose starts lie a multiple of `multiple` apart, whatever the number of threads."""
    step = multiple * max(1, -(-(stop - start) // (multiple * most)))
    return [(s, min(s + step, stop)) for s in range(start, stop, step)]


def _require_finite(total: float) -> None:
    if not np.isfinite(total):
        raise NumericalError(
            "the cost of some pair of points is not finite: form the matrix and use solve_cost, where +inf forbids a pair"
        )


__all__ = ["BlockPricing", "Nearest", "PointPricing", "Pricing"]
