"""Fewer points that stand for many: means of k-d cells, or a random part where cells are too wide to mean anything."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from discrepancy.costs import Cost, Sphere
from discrepancy.transport.entropic.streamed.clouds import BOXED_DIMENSIONS, cell_width
from discrepancy.transport.entropic.streamed.ground import directions, metric_of


@dataclass(frozen=True)
class Summary:
    """Points (k, d) with weights (k,) that stand for a cloud, and the mean cost of moving it onto them (None: not known)."""

    points: Tensor
    weights: np.ndarray
    spread: float | None


def summarise(points: Tensor, weights: np.ndarray, cost: Cost, size: int, seed: int) -> Summary:
    """At most `size` points for the points of positive weight: cell means in up to 8 dimensions under a named cost, else a random
    part, drawn from a generator of its own so that the same cloud is summarised the same way."""
    heavy = np.flatnonzero(weights > 0)
    if metric_of(cost) is None or points.shape[-1] > BOXED_DIMENSIONS:
        chosen = np.sort(np.random.default_rng(seed).permutation(heavy)[:size])
        mass = weights[chosen]
        return Summary(points[torch.from_numpy(chosen)].double(), mass / mass.sum(), None)
    from discrepancy._loops.cells import cell_order

    inside, order = points.double().contiguous().numpy(), heavy.copy()
    cell_order(inside, order, cell_width(order.size, 1))
    bounds = np.append(np.arange(0, order.size, cell_width(order.size, size)), order.size)
    mass = weights[order]
    sums = np.add.reduceat(mass, bounds[:-1])
    means = torch.from_numpy(np.add.reduceat(mass[:, None] * inside[order], bounds[:-1], axis=0) / sums[:, None])
    if isinstance(cost, Sphere):
        means = directions(means)
    near = cost.pairs(torch.from_numpy(inside[order]), means.repeat_interleave(torch.from_numpy(np.diff(bounds)), 0))
    return Summary(means, sums, float((mass * near.numpy()).sum()))


__all__ = ["Summary", "summarise"]
