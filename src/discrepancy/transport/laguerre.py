"""Laguerre cells: the map and the potential of transport onto finitely many points, everywhere in space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from discrepancy._validate import sample
from discrepancy.costs import Cost

# Bytes of one block of pairs.
_BLOCK_BYTES = 64 << 20


@dataclass(frozen=True)
class LaguerreCells:
    """The cells of targets y (m, d) with potentials g (m,): z belongs to the j that minimises c(z, y_j) - g_j.

    Under the squared Euclidean cost they are convex polytopes (a power diagram). Time n m, memory of one block.
    """

    targets: Tensor
    potential: Tensor
    cost: Cost

    def assign(self, z: Any) -> Tensor:
        """The cell of each row of z (k, d), as indices (k,); ValueError where z does not fit the targets."""
        return self._nearest(z)[1]

    def map(self, z: Any) -> Tensor:
        """T(z) = y_j for the cell j of z, (k, d): optimal from any law to the masses that it gives to the cells."""
        return self.targets[self._nearest(z)[1]]

    def value(self, z: Any) -> Tensor:
        """f(z) = min_j c(z, y_j) - g_j, (k,), differentiable in z."""
        points = self._points(z)
        j = self._nearest(points)[1]
        chosen = self.targets.double()[j]
        found = self.cost.pairs(points.double(), chosen) - self.potential.double()[j]
        return found.to(self.targets.dtype)

    def margin(self, z: Tensor) -> Tensor:
        """By how much the second best target is worse than the best, (k,); zero on the faces of cells."""
        best = [
            torch.topk(self._reduced(block), 2, dim=-1, largest=False).values
            if self.targets.shape[0] > 1
            else torch.zeros(block.shape[0], 2, dtype=torch.float64, device=block.device)
            for block in self._blocks(self._points(z))
        ]
        found = torch.cat(best)
        return found[:, 1] - found[:, 0]

    def _points(self, z: Any) -> Tensor:
        points = sample(z, "z", like=self.targets)
        if points.ndim != 2 or points.shape[-1] != self.targets.shape[-1]:
            raise ValueError(f"z must be points of shape (k, {self.targets.shape[-1]}), got {tuple(points.shape)}")
        self.cost.check(points, "z")
        return points

    def _blocks(self, points: Tensor) -> tuple[Tensor, ...]:
        m, d = self.targets.shape
        return points.detach().double().split(self.cost.block_size(m, d, _BLOCK_BYTES, 8))

    def _reduced(self, block: Tensor) -> Tensor:
        return self.cost.matrix(block, self.targets.detach().double()) - self.potential.double()

    def _nearest(self, z: Any) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            found = [self._reduced(block).min(-1) for block in self._blocks(self._points(z))]
        return torch.cat([b.values for b in found]), torch.cat([b.indices for b in found])


__all__ = ["LaguerreCells"]
