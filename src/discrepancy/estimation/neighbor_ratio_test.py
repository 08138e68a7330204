"""Nearest-neighbour ratios as a discrepancy of samples, for permutation tests that search neighbours once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from discrepancy._kinds import Claims, Discrepancy, PooledStatistic
from discrepancy._validate import SamplePair, sample
from discrepancy.divergences import FDivergence, JensenShannon, RatioDivergence
from discrepancy.estimation.neighbor_ratios import ADMITS, NearestNeighborRatios, values_of
from discrepancy.neighbors import nearest_neighbors

_BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class NeighborRatioDiscrepancy(Discrepancy):
    """A divergence by `NearestNeighborRatios` as a `Discrepancy`: hand it to `permutation_test`.

    D(x, y) estimates D(P || Q), P the law of x, at the rows of y. Under weights a and b the counts are N_i = n sum a_j and
    M_i = m sum b_j over the neighbours, with the effective sizes n = 1 / sum a_j^2 and m = 1 / sum b_j^2, the numbers of rows
    where weights are equal. Not symmetric, not zero at equality (of order 1/k there), and without gradients.
    `pooled` searches the neighbours of all rows once: a permutation moves labels only, and costs O(n k). Its value is raw, not
    raised to zero, so that a test loses nothing.
    Raises TypeError for a divergence that is no function of p/q.
    """

    divergence: FDivergence | RatioDivergence = field(default_factory=JensenShannon)
    ratios: NearestNeighborRatios = field(default_factory=NearestNeighborRatios)

    claims = Claims(symmetric=False, non_negative=False, zero_at_equality=False, degree=0)
    references = ("nearest-neighbor-ratios",)

    def __post_init__(self) -> None:
        ADMITS.check(self.divergence)
        if not isinstance(self.ratios, NearestNeighborRatios):
            raise TypeError(f"ratios must be a NearestNeighborRatios, got {self.ratios!r}")

    @torch.no_grad()
    def _value(self, pair: SamplePair, generator: torch.Generator | None) -> Tensor:
        x, y, a, b = pair.x, pair.y, pair.a, pair.b
        if pair.batch:
            flat = [t.reshape(-1, *t.shape[len(pair.batch) :]) for t in (x, y, a, b)]
            uniform = {"uniform_a": pair.uniform_a, "uniform_b": pair.uniform_b}
            values = [self._value(SamplePair(*parts, **uniform), None) for parts in zip(*flat, strict=True)]
            return torch.stack(values).reshape(pair.batch)
        cloud = torch.cat([x, y])
        zero_a, zero_b = a.new_zeros(len(b)), b.new_zeros(len(a))
        rows = torch.cat([a, zero_a])[None], torch.cat([zero_b, b])[None]
        return self._statistic(cloud, len(x), len(y))(*rows)[0].to(x.dtype)

    def pooled(self, z: Any, *, generator: torch.Generator | None = None) -> PooledStatistic:
        """The statistic as a function of two weightings (R, N) of one cloud; k is that of two halves of it."""
        cloud = sample(z, "z")
        half = len(cloud) // 2
        return torch.no_grad()(self._statistic(cloud, half, len(cloud) - half))

    def _statistic(self, cloud: Tensor, n: int, m: int) -> PooledStatistic:
        ranks, weights = self.ratios.chosen(n, m, cloud.shape[1])
        found = nearest_neighbors(cloud, cloud, max(ranks), exclude_self=True, norm=self.ratios.norm)
        columns = torch.tensor(ranks) - 1

        least = math.sqrt(torch.finfo(torch.float64).eps)

        def block(a: Tensor, b: Tensor) -> Tensor:
            n_x, n_y = (1 / w.square().sum(1)[:, None, None] for w in (a, b))
            of_x = n_x * a[:, found.indices].cumsum(2)[:, :, columns]
            of_y = n_y * b[:, found.indices].cumsum(2)[:, :, columns]
            # A sum of weights 1/n is off by rounding, and a count of none must be none.
            u = n_y / n_x * torch.where(of_x < least, 0.0, of_x) / (of_y + 1)
            return values_of(self.divergence, u.movedim(1, 2), self.ratios.clip, (b / b.sum(1, keepdim=True))[:, None]) @ weights

        def statistic(A: Tensor, B: Tensor) -> Tensor:
            rows = max(1, _BLOCK_BYTES // (16 * found.indices.numel()))
            return torch.cat([block(a.double(), b.double()) for a, b in zip(A.split(rows), B.split(rows), strict=True)])

        return statistic


__all__ = ["NeighborRatioDiscrepancy"]
