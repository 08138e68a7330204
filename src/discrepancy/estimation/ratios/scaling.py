"""Common coordinates of two samples: centred, every coordinate with unit pooled variance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scaling:
    """z -> (z - centre) / scale, by coordinate; a density ratio is the same in any coordinates."""

    centre: Tensor
    scale: Tensor

    @staticmethod
    def of(x: Tensor, y: Tensor) -> Scaling:
        """The half-and-half mixture of samples (n, d), (m, d) gets mean zero and variance one; constant columns stay at zero."""
        x, y = x.double(), y.double()
        centre = (x.mean(0) + y.mean(0)) / 2
        # In units of the largest entry first: squares of 1e200 overflow.
        unit = torch.maximum((x - centre).abs().amax(0), (y - centre).abs().amax(0))
        unit = torch.where(unit > 0, unit, torch.ones_like(unit))
        variance = (((x - centre) / unit).square().mean(0) + ((y - centre) / unit).square().mean(0)) / 2
        scale = unit * torch.where(variance > 0, variance, torch.ones_like(variance)).sqrt()
        return Scaling(centre, scale)

    def __call__(self, points: Tensor) -> Tensor:
        """Points (k, d) in the common coordinates, in float64; ValueError for another width."""
        if points.shape[-1] != len(self.centre):
            raise ValueError(f"points have {points.shape[-1]} features and the ratio was fitted on {len(self.centre)}")
        return (points.double() - self.centre) / self.scale


__all__ = ["Scaling"]
