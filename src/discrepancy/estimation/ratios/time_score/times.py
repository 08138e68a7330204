"""Times of training, drawn where time scores are large."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy.estimation.ratios.time_score.network import PathMoments

_CELLS = 256


@dataclass(frozen=True)
class TimeSampler:
    """A piecewise constant density on [0, 1]: half uniform, half in proportion to the scale of the time score.

    The cells crowd at the ends like (1 - cos(pi k / 256)) / 2, because a bridge's scores change there within epsilon / gamma.
    """

    edges: Tensor
    density: Tensor
    cumulative: Tensor

    @staticmethod
    def of(moments: PathMoments) -> TimeSampler:
        """The sampler of a path."""
        like = moments.means
        edges = ((1 - torch.cos(math.pi * torch.linspace(0, 1, _CELLS + 1, dtype=torch.float64))) / 2).to(like)
        middle, width = (edges[1:] + edges[:-1]) / 2, edges.diff()
        scale = moments.scale(middle)
        density = 0.5 + 0.5 * scale / (scale * width).sum()
        mass = density * width
        return TimeSampler(edges, density / mass.sum(), torch.cat([mass.new_zeros(1), mass.cumsum(0)]) / mass.sum())

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`count` times, one from each of as many equal parts of the mass, with their densities."""
        u = (torch.arange(count) + torch.rand(count, generator=generator)).to(self.edges) / count
        cell = (torch.searchsorted(self.cumulative, u, right=True) - 1).clamp(0, _CELLS - 1)
        inside = (u - self.cumulative[cell]) / self.cumulative.diff()[cell]
        t = self.edges[cell] + inside.clamp(0, 1) * self.edges.diff()[cell]
        order = torch.randperm(count, generator=generator)  # rows come paired with times at random
        return t[order], self.density[cell][order]


__all__ = ["TimeSampler"]
