"""The entropic problem between points whose pairs do not fit the memory budget, on the CPU: every pass is compiled and fused."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from discrepancy.costs import Cost
from discrepancy.transport.entropic.problem import Problem, Rows, StreamedProblem
from discrepancy.transport.entropic.streamed.passes import EXACT_CUT, PRODUCT_CUT, StreamedPairs

LOG2 = math.log(2.0)


class FusedProblem(StreamedProblem):
    """A batch of problems between x (B, n, d) and y (B, m, d) that forms costs again in every pass, a row at a time.

    Memory is linear in the points: O((n + m) d) for copies of points of few coordinates, tiles of 32 MiB for others, which are
    read block by block where they lie (a memory-mapped array stays on disk). Blocks of pairs that hold less than 2^-70 of a
    row's largest entry are left out of sums; `skipped` bounds what that was in any row, as a share of its sum. Products inside
    an iteration leave out blocks below 2^-44, and decide nothing.
    """

    kept = False

    def __init__(self, x: Tensor, y: Tensor, a: Tensor, b: Tensor, cost: Cost, budget: int, dtype: torch.dtype) -> None:
        """Keep the points as they are, ordered copies where a pass needs them."""
        Problem.__init__(self, a, b, dtype)  # the parent would copy all points in float64
        self.x, self.y, self.ground = x.detach(), y.detach(), cost
        self.step = cost.block_size(y.shape[-2] * x.shape[0], x.shape[-1], budget, 8)
        self.streams = [
            StreamedPairs(*points, *weights, cost)
            for points, weights in zip(
                zip(self.x, self.y, strict=True), zip(self.a.numpy(), self.b.numpy(), strict=True), strict=True
            )
        ]
        # What an iteration may leave out, in bits: intermediate levels of annealing need less than the last.
        self.cut, self.product_cut = EXACT_CUT, PRODUCT_CUT

    @property
    def skipped(self) -> float:
        """A bound on the share of any row's sum that left-out blocks held."""
        return max(s.skipped for s in self.streams)

    @property
    def pairs(self) -> int:
        """Pairs visited so far."""
        return sum(s.pairs for s in self.streams)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Freshly computed costs, for those who ask for blocks of the plan."""
        right = self.y.double()
        for start in range(0, self.x.shape[1], self.step):
            part = slice(start, min(start + self.step, self.x.shape[1]))
            with torch.no_grad():
                yield part, self.ground.matrix(self.x[:, part].double(), right)

    def mean_cost(self) -> Tensor:
        """sum_ij a_i b_j C_ij, shape (B,): one pass over the costs."""
        pairs = zip(self.streams, self.a.numpy(), self.b.numpy(), strict=True)
        return self.a.new_tensor([s.mean_cost(a, b) for s, a, b in pairs])

    def scaled(self, potential: Tensor, log_weights: Tensor, epsilon: Tensor) -> list[tuple[StreamedPairs, np.ndarray, float]]:
        """For each problem the exponents' column terms v in base 2 (zero where the weight is zero: they are left out) and
        their scale 1 / (epsilon log 2)."""
        light = torch.isinf(log_weights)
        v = (potential / epsilon[:, None] + torch.where(light, 0, log_weights)) / LOG2
        return [(s, w, 1 / (float(e) * LOG2)) for s, w, e in zip(self.streams, v.numpy(), epsilon, strict=True)]

    def rows(self, g: Tensor, epsilon: Tensor) -> Tensor:
        """The soft-minimum over the columns, (B, n)."""
        logs = [s.soft_minima(v, scale, cut=self.cut) for s, v, scale in self.scaled(g, self.log_b, epsilon)]
        return -epsilon[:, None] * LOG2 * torch.from_numpy(np.stack(logs))

    def columns(self, f: Tensor, epsilon: Tensor) -> Tensor:
        """The soft-minimum over the rows, (B, m)."""
        scaled = self.scaled(f, self.log_a, epsilon)
        logs = [s.soft_minima(v, scale, transposed=True, cut=self.cut) for s, v, scale in scaled]
        return -epsilon[:, None] * LOG2 * torch.from_numpy(np.stack(logs))

    def evaluate(self, g: Tensor, epsilon: Tensor) -> Rows:
        """One pass: f, column sums, the diagonal of the Newton system and the dual value at (f, g)."""
        scaled = self.scaled(g, self.log_b, epsilon)
        found = [s.evaluate(v, scale, cut=self.cut) for s, v, scale in scaled]
        self._last = [(s, -e.logs, v, scale) for (s, v, scale), e in zip(scaled, found, strict=True)]
        logs, sums, squares = (torch.from_numpy(np.stack([getattr(e, k) for e in found])) for k in ("logs", "sums", "squares"))
        self._squares = squares
        f = -epsilon[:, None] * LOG2 * logs
        self._at = (f, g, epsilon)
        return Rows(f, sums, (self.a * f).sum(-1) + (self.b * g).sum(-1))

    def normal_product(self, v: Tensor) -> Tensor:
        """Q^T (a * (Q v)) for v (B, m) at the last evaluation."""
        out = [
            s.normal_product(u, w, scale, a, p, cut=self.product_cut)
            for (s, u, w, scale), a, p in zip(self._last, self.a.numpy(), v.numpy(), strict=True)
        ]
        return torch.from_numpy(np.stack(out))

    def apply(self, f: Tensor, g: Tensor, epsilon: Tensor, values: Tensor, *, transposed: bool = False) -> Tensor:
        """P values (B, n, k) for values (B, m, k); transposed: P^T values (B, m, k) for values (B, n, k)."""
        left, right = self.scaled(f, self.log_a, epsilon), self.scaled(g, self.log_b, epsilon)
        out = [
            s.row_products(v if transposed else u, u if transposed else v, scale, p, transposed=transposed)
            for (s, u, scale), (_, v, _), p in zip(left, right, values.double().numpy(), strict=True)
        ]
        return torch.from_numpy(np.stack(out))


__all__ = ["LOG2", "FusedProblem"]
