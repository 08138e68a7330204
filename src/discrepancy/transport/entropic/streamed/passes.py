"""The passes over all pairs of one problem: soft-minima, Newton products, marginals, gradients. Nothing n x m in any of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from discrepancy._loops.threads import in_parallel, ranges
from discrepancy.costs import Cost
from discrepancy.transport.entropic.streamed.clouds import OrderedCloud
from discrepancy.transport.entropic.streamed.ground import PairedClouds

# Bits below a row's largest entry at which blocks are left out: of the sums that decide, and of products inside an iteration.
# 2^-70 times the number of columns is below the rounding of the sum itself.
EXACT_CUT, PRODUCT_CUT = 70.0, 44.0
# Column sums are formed in so many parts, whatever the number of threads, so that the bits do not depend on it.
_PARTS = 16


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


class StreamedPairs:
    """One problem's points, cost and weights a (n,), b (m,), with its passes; arrays are float64 in the user's order.

    `pairs` counts the pairs visited so far, `skipped` bounds the share of a row's sum that left-out blocks held in any pass.
    """

    def __init__(self, x: Tensor, y: Tensor, a: np.ndarray, b: np.ndarray, cost: Cost) -> None:
        self.clouds = PairedClouds(x, y, cost)
        self.left, self.right = self._side(self.clouds.x, a), self._side(self.clouds.y, b)
        self.pairs, self.skipped = 0, 0.0

    def _side(self, points: Tensor, weights: np.ndarray) -> Side:
        every = self.clouds.cloud(points, None)
        light = bool((weights == 0).any())
        return Side(points, weights, every, self.clouds.cloud(points, weights) if light else every)

    def run(self, rows: Side, columns: Side, scale: float, v: np.ndarray, work: Callable[..., Any], every: bool = False) -> None:
        """Call work(part number, ground, row cloud, first, last, column cloud, v, tops, tile) over all blocks of rows."""
        from discrepancy._loops.entropic_points.blocks import block_tops

        across = columns.heavy
        down = rows.every if every else rows.heavy
        v = across.gathered(v)
        tops = np.empty(across.blocks)
        block_tops(across.cloud, v, tops)
        ground = self.clouds.ground(scale)
        for first, last, tile in self.clouds.tiles(rows.points, down, columns.points, across):
            parts = ranges(last - first, 1, _PARTS)

            def part(k: int, first: int = first, tile: Any = tile, parts: list[tuple[int, int]] = parts) -> None:
                start, stop = parts[k]
                work(k, ground, down.cloud, first + start, first + stop, across.cloud, v, tops, tile)

            in_parallel(part, range(len(parts)))

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


__all__ = ["EXACT_CUT", "PRODUCT_CUT", "Evaluation", "Marginals", "Side", "StreamedPairs"]
