"""Where a low-rank coupling starts: points spread over a weighted cloud by k-means++ and a few rounds of Lloyd's algorithm."""

from __future__ import annotations

import torch
from torch import Tensor

from discrepancy.costs import Cost, SquaredEuclidean

_ROUNDS = 5


def landmarks(x: Tensor, a: Tensor, rank: int, cost: Cost, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """rank points (rank, d) with the mass that is nearest to each (rank,), from x (n, d) with weights a (n,).

    Each is drawn with probability proportional to its weight times its cost to the nearest one drawn before; under the squared
    Euclidean cost they then move to the means of their cells. rank passes over the points, linear memory.
    """
    n = x.shape[0]
    first = torch.multinomial(a, 1, generator=generator)
    chosen, nearest = [first], cost.matrix(x, x[first])[:, 0].clamp_min(0)
    for _ in range(rank - 1):
        share = a * nearest
        # Where all points with weight are taken, or coincide, any point will do.
        pick = torch.multinomial(share if float(share.sum()) > 0 else a, 1, generator=generator)
        chosen.append(pick)
        nearest = torch.minimum(nearest, cost.matrix(x, x[pick])[:, 0].clamp_min(0))
    z = x[torch.cat(chosen)]
    cell = cost.matrix(x, z).argmin(1)
    if isinstance(cost, SquaredEuclidean):
        for _ in range(_ROUNDS):
            mass = torch.zeros(rank, dtype=x.dtype, device=x.device).index_add_(0, cell, a)
            sums = torch.zeros_like(z).index_add_(0, cell, a[:, None] * x)
            z = torch.where(mass[:, None] > 0, sums / mass.clamp_min(1e-300)[:, None], z)
            cell = cost.matrix(x, z).argmin(1)
    mass = torch.zeros(rank, dtype=x.dtype, device=x.device).index_add_(0, cell, a)
    return z, mass.clamp_min(0.1 * float(a.sum()) / max(rank, n))


__all__ = ["landmarks"]
