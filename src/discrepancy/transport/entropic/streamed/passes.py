"""The passes over all pairs of one problem: soft-minima, Newton products, marginals, gradients. Nothing n x m in any of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from discrepancy._loops.threads import in_parallel, ranges
from discrepancy.costs import Cost
from discrepancy.transport.entropic.streamed.clouds import BOXED_DIMENSIONS, OrderedCloud, cell_width
from discrepancy.transport.entropic.streamed.ground import PairedClouds

# Bits below a row's largest entry at which blocks are left out: of the sums that decide, and of products inside an iteration.
# 2^-70 times the number of columns is below the rounding of the sum itself.
EXACT_CUT, PRODUCT_CUT = 70.0, 44.0
# Column sums are formed in so many parts, whatever the number of threads, so that the bits do not depend on it.
_PARTS = 16
# Groups of columns on which the coarse part of the Newton system lives, at most.
_GROUPS = 128


@dataclass(frozen=True)
class Evaluation:
    """Row by row log2 sum_j 2^(v_j - s c_ij) (n,), and the column sums and squares (m,) of the plan whose rows are exact."""

    logs: np.ndarray
    sums: np.ndarray
    squares: np.ndarray


@dataclass(frozen=True)
class Marginals:
    """A plan's row sums (n,) and column sums (m,), its column sums once each row is scaled down to its weight, and <P, C>."""

    rows: np.ndarray
    columns: np.ndarray
    scaled_columns: np.ndarray
    cost: float


@dataclass(frozen=True)
class Side:
    """One cloud: all of its points, and those that have weight."""

    points: Tensor
    weights: np.ndarray
    every: OrderedCloud
    heavy: OrderedCloud


class Range(NamedTuple):
    """Row blocks first to last - 1 against all columns: the loops' first arguments."""

    ground: Any
    rows: Any
    first: int
    last: int
    columns: Any
    v: np.ndarray
    tops: np.ndarray
    tile: Any

    def spread(self, work: Callable[..., Any]) -> None:
        """Call work(part number, *loop arguments) on parts of the range, over the threads."""
        parts = ranges(self.last - self.first, 1, _PARTS)

        def part(k: int) -> None:
            start, stop = parts[k]
            work(k, *self._replace(first=self.first + start, last=self.first + stop))

        in_parallel(part, range(len(parts)))


class StreamedPairs:
    """One problem's points, cost and weights a (n,), b (m,), with its passes; arrays are float64 in the user's order.

    `pairs` counts the pairs visited so far, `skipped` bounds the share of a row's sum that left-out blocks held in any pass.
    """

    def __init__(self, x: Tensor, y: Tensor, a: np.ndarray, b: np.ndarray, cost: Cost) -> None:
        self.clouds = PairedClouds(x, y, cost)
        self.left, self.right = self._side(self.clouds.x, a), self._side(self.clouds.y, b)
        self.pairs, self.skipped = 0, 0.0
        self._groups: tuple[np.ndarray, int] | None = None

    def _side(self, points: Tensor, weights: np.ndarray) -> Side:
        every = self.clouds.cloud(points, None)
        light = bool((weights == 0).any())
        return Side(points, weights, every, self.clouds.cloud(points, weights) if light else every)

    def ranges(
        self, rows: Side, columns: Side, scale: float, v: np.ndarray, *, every: bool = False, most: int = 1 << 62
    ) -> Iterator[Range]:
        """All blocks of rows (`every`: of weightless ones too), at most `most` at a time, with what the loops need of them."""
        from discrepancy._loops.entropic_points.blocks import block_tops

        across = columns.heavy
        down = rows.every if every else rows.heavy
        v = across.gathered(v)
        tops = np.empty(across.blocks)
        block_tops(across.cloud, v, tops)
        ground = self.clouds.ground(scale)
        for first, last, tile in self.clouds.tiles(rows.points, down, columns.points, across):
            for start in range(first, last, most):
                yield Range(ground, down.cloud, start, min(start + most, last), across.cloud, v, tops, tile)

    def run(self, rows: Side, columns: Side, scale: float, v: np.ndarray, work: Callable[..., Any], every: bool = False) -> None:
        """Call work(part number, ground, row cloud, first, last, column cloud, v, tops, tile) over all blocks of rows."""
        for r in self.ranges(rows, columns, scale, v, every=every):
            r.spread(work)

    @property
    def row_weights(self) -> np.ndarray:
        """a (n,)."""
        return self.left.weights

    @property
    def column_weights(self) -> np.ndarray:
        """b (m,)."""
        return self.right.weights

    def soft_minima(self, v: np.ndarray, scale: float, *, transposed: bool = False, cut: float = EXACT_CUT) -> np.ndarray:
        """log2 sum_j 2^(v_j - s c_ij) for every row (n,); transposed: log2 sum_i 2^(v_i - s c_ij) for every column (m,)."""
        return self._evaluate(v, scale, transposed, cut, False).logs

    def evaluate(self, v: np.ndarray, scale: float, *, cut: float = EXACT_CUT) -> Evaluation:
        """The same with the column sums and squares of the plan a_i 2^(v_j - s c_ij - logs_i)."""
        return self._evaluate(v, scale, False, cut, True)

    def _evaluate(self, v: np.ndarray, scale: float, transposed: bool, cut: float, sums: bool) -> Evaluation:
        from discrepancy._loops.entropic_points.evaluation import soft_minima

        rows, columns = (self.right, self.left) if transposed else (self.left, self.right)
        down, across = rows.every, columns.heavy
        weights, logs = down.gathered(rows.weights), np.empty(down.size)
        totals = np.zeros((2, _PARTS, across.size if sums else 0))
        found: list[tuple[int, float]] = []

        def work(k: int, ground: Any, cloud: Any, first: int, last: int, other: Any, v: np.ndarray, tops: Any, tile: Any) -> None:
            found.append(
                soft_minima(ground, cloud, first, last, other, v, tops, cut, tile, weights, logs, totals[0, k], totals[1, k])
            )

        self.run(rows, columns, scale, v, work, every=True)
        self.pairs += sum(p for p, _ in found)
        self.skipped = max(self.skipped, max(share for _, share in found))
        n, m = len(rows.weights), len(columns.weights)
        if not sums:
            return Evaluation(down.scattered(logs, n), totals[0, 0], totals[1, 0])
        return Evaluation(down.scattered(logs, n), *(across.scattered(t.sum(0), m) for t in totals))

    def normal_product(
        self, u: np.ndarray, v: np.ndarray, scale: float, inverse: np.ndarray, p: np.ndarray, *, cut: float = PRODUCT_CUT
    ) -> np.ndarray:
        """Q^T (inverse * (Q p)) for Q_ij = 2^(u_i + v_j - s c_ij); blocks below 2^-cut are left out."""
        from discrepancy._loops.entropic_points.products import normal_product

        down, across = self.left.heavy, self.right.heavy
        u, inverse, p = down.gathered(u), down.gathered(inverse), across.gathered(p)
        totals, counted = np.zeros((_PARTS, across.size)), []

        def work(k: int, ground: Any, cloud: Any, first: int, last: int, other: Any, v: np.ndarray, tops: Any, tile: Any) -> None:
            counted.append(normal_product(ground, cloud, first, last, other, v, tops, cut, tile, u, inverse, p, totals[k]))

        self.run(self.left, self.right, scale, v, work)
        self.pairs += sum(counted)
        return across.scattered(totals.sum(0), len(self.right.weights))

    def groups(self) -> tuple[np.ndarray, int]:
        """A group (m,) of neighbouring columns for each column, of about equal size, and how many there are."""
        if self._groups is None:
            from discrepancy._loops.cells import cell_order

            order = self.right.every.order.copy()
            m = order.size
            width = cell_width(m, max(1, min(_GROUPS, m // 8)))
            if not self.clouds.boxed:
                cell_order(_shadow(self.right.points), order, cell_width(m, 1))
            groups = np.empty(m, np.int64)
            groups[order] = np.arange(m) // width
            self._groups = groups, -(-m // width)
        return self._groups

    def coarse_curvature(
        self,
        u: np.ndarray,
        v: np.ndarray,
        scale: float,
        weights: np.ndarray,
        groups: np.ndarray,
        count: int,
        *,
        cut: float = PRODUCT_CUT,
    ) -> np.ndarray:
        """Z^T Q^T diag(weights) Q Z (count, count), Q_ij = 2^(u_i + v_j - s c_ij), Z the indicators of groups (m,)."""
        from discrepancy._loops.entropic_points.products import group_sums

        down, across = self.left.heavy, self.right.heavy
        u, groups = down.gathered(u), across.gathered(groups)
        spread = torch.from_numpy(down.gathered(weights))[:, None]
        total = torch.zeros(count, count, dtype=torch.float64)

        for r in self.ranges(self.left, self.right, scale, v, most=_PARTS * 4):
            start, stop = (int(r.rows.starts[k]) for k in (r.first, r.last))
            sums = torch.empty(stop - start, count, dtype=torch.float64)

            def work(
                k: int, ground: Any, cloud: Any, first: int, last: int, other: Any, v: np.ndarray, tops: Any, tile: Any,
                sums: Tensor = sums, start: int = start,
            ) -> None:  # fmt: skip
                out = sums.numpy()[cloud.starts[first] - start : cloud.starts[last] - start]
                group_sums(ground, cloud, first, last, other, v, tops, cut, tile, u, groups, out)

            r.spread(work)
            total.addmm_(sums.mT, sums * spread[start:stop])
        return total.numpy()

    def marginals(self, u: np.ndarray, v: np.ndarray, scale: float) -> Marginals:
        """Marginals and cost of P_ij = 2^(u_i + v_j - s c_ij)."""
        from discrepancy._loops.entropic_points.products import marginals

        down, across = self.left.heavy, self.right.heavy
        u, weights = down.gathered(u), down.gathered(self.left.weights)
        row_sums, terms, totals = np.empty(down.size), np.empty(down.size), np.zeros((2, _PARTS, across.size))

        def work(k: int, ground: Any, cloud: Any, first: int, last: int, other: Any, v: np.ndarray, tops: Any, tile: Any) -> None:
            sums, scaled = totals[0, k], totals[1, k]
            marginals(ground, cloud, first, last, other, v, tops, EXACT_CUT, tile, u, weights, row_sums, terms, sums, scaled)

        self.run(self.left, self.right, scale, v, work)
        columns, scaled = totals.sum(1)
        cost = math.fsum(np.append(columns * across.gathered(v), -terms)) / scale
        n, m = len(self.left.weights), len(self.right.weights)
        return Marginals(down.scattered(row_sums, n), across.scattered(columns, m), across.scattered(scaled, m), cost)

    def row_products(self, u: np.ndarray, v: np.ndarray, scale: float, p: np.ndarray, *, transposed: bool = False) -> np.ndarray:
        """P p (n, k) for p (m, k); transposed: P^T p (m, k) for p (n, k), u then being the columns' and v the rows'."""
        from discrepancy._loops.entropic_points.products import row_products

        rows, columns = (self.right, self.left) if transposed else (self.left, self.right)
        down, across = rows.heavy, columns.heavy
        u, values = down.gathered(u), np.ascontiguousarray(across.gathered(np.ascontiguousarray(p.T)))
        out = np.empty((down.size, values.shape[0]))

        def work(k: int, ground: Any, cloud: Any, first: int, last: int, other: Any, v: np.ndarray, tops: Any, tile: Any) -> None:
            row_products(ground, cloud, first, last, other, v, tops, EXACT_CUT, tile, u, values, out)

        self.run(rows, columns, scale, v, work)
        return down.scattered(out, len(rows.weights))

    def mean_cost(self, a: np.ndarray, b: np.ndarray) -> float:
        """sum_ij a_i b_j c_ij; weights other than the problem's must vanish where its own do."""
        from discrepancy._loops.entropic_points.row_costs import row_costs

        down, across = self.left.heavy, self.right.heavy
        weights, out = across.gathered(b), np.empty(down.size)

        def work(k: int, ground: Any, cloud: Any, first: int, last: int, other: Any, v: np.ndarray, tops: Any, tile: Any) -> None:
            row_costs(ground, cloud, first, last, other, tile, weights, out)

        self.run(self.left, self.right, -1.0, b, work)
        return math.fsum(down.gathered(a) * out)


def _shadow(points: Tensor) -> np.ndarray:
    """The points in few dimensions, by a fixed random projection, for groups that need only be near each other."""
    if points.shape[-1] <= BOXED_DIMENSIONS:
        return points.double().contiguous().numpy()
    onto = torch.randn(points.shape[-1], BOXED_DIMENSIONS, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return torch.cat([p.double() @ onto for p in points.split(4096)]).numpy()


__all__ = ["EXACT_CUT", "PRODUCT_CUT", "Evaluation", "Marginals", "Side", "StreamedPairs"]
