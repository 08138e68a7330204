"""Velocity fields in space for deformations: a small network of position and time, and features of an image volume around it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from discrepancy._validate import as_tensor, positive, require_finite, whole_number
from discrepancy.networks import MLP


class VolumeFeatures(nn.Module):
    """An image volume and coarser copies of it, read at points in space by trilinear interpolation.

    volume (c, X, Y, Z) fills the box from `low` to `high` with its voxels, axis by axis; level k of the pyramid is the mean over
    cubes of 2^k voxels. Calling it with points (n, 3) gives features (n, c * levels), differentiable in the points; beyond the
    outermost voxel centres values continue as constants. Raises ValueError for a volume that is not (c, X, Y, Z) or not finite,
    a box without volume, or more levels than the shortest side can be halved.
    """

    def __init__(self, volume: Any, low: Any, high: Any, *, levels: int = 3) -> None:
        super().__init__()
        given = as_tensor(volume, "volume")
        if given.ndim != 4:
            raise ValueError(f"volume must be of shape (channels, X, Y, Z), got {tuple(given.shape)}")
        require_finite(given, "volume")
        if not isinstance(levels, int) or levels < 1 or min(given.shape[1:]) < 2 ** (levels - 1):
            raise ValueError(
                f"levels must be at least 1 and halve a shortest side of {min(given.shape[1:])} voxels, got {levels!r}"
            )
        corners = [as_tensor(c, name, like=given).to(given.dtype) for c, name in ((low, "low"), (high, "high"))]
        if any(c.shape != (3,) for c in corners) or not bool((corners[1] > corners[0]).all()):
            raise ValueError(f"low and high must be three coordinates each, low below high, got {low!r} and {high!r}")
        self.low: Tensor
        self.high: Tensor
        self.register_buffer("low", corners[0])
        self.register_buffer("high", corners[1])
        self.levels = levels
        for k in range(levels):
            self.register_buffer(f"level_{k}", nn.functional.avg_pool3d(given[None], 2**k) if k else given[None])

    @property
    def width(self) -> int:
        """The number of features."""
        return self.levels * self.get_buffer("level_0").shape[1]

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n w"]:
        """The features at the points."""
        share = 2 * (points.to(self.low.dtype) - self.low) / (self.high - self.low) - 1
        # A grid's last axis counts from the fastest index of the volume, here Z, to the slowest.
        grid = share.flip(-1)[None, :, None, None]
        read = [
            nn.functional.grid_sample(self.get_buffer(f"level_{k}"), grid, padding_mode="border", align_corners=False)
            for k in range(self.levels)
        ]
        return torch.cat([r[0, :, :, 0, 0] for r in read]).T.to(points.dtype)


class VelocityNetwork(nn.Module):
    """v(x, t): a network of the position in the unit of its box, of its waves, of time and, if there are any, of image features
    at x."""

    def __init__(
        self, net: nn.Module, centre: Tensor, scale: float, waves: int = 0, features: VolumeFeatures | None = None
    ) -> None:
        super().__init__()
        self.net = net
        self.waves = waves
        self.centre: Tensor
        self.register_buffer("centre", centre)
        self.scale = scale
        self.features = features

    def forward(self, x: Float[Tensor, "n 3"], t: Tensor) -> Float[Tensor, "n 3"]:
        """The velocity at points (n, 3) and time t."""
        place = (x - self.centre) / self.scale
        parts = [place, t.expand(len(x), 1)]
        for k in range(self.waves):
            parts += [torch.sin(2**k * math.pi * place), torch.cos(2**k * math.pi * place)]
        if self.features is not None:
            parts.append(self.features(x))
        return self.scale * self.net(torch.cat(parts, -1))


@dataclass(frozen=True)
class VelocityMLP:
    """A `VelocityNetwork` to be built: a smooth MLP of position, time and `features`, that starts at rest (its last layer is
    zero), so that the first deformation is the identity.

    The input also has sin and cos of pi 2^k x, k < `waves`, x in [-1, 1] over the template's box: without an image to tell places
    apart, a plain MLP does not learn folds in a few hundred steps. Smooth activations and few waves keep the field Lipschitz,
    which is what makes the flow one-to-one. Raises ValueError for a negative number of waves.
    """

    network: MLP = field(default_factory=lambda: MLP(width=64, depth=2, activation=nn.SiLU))
    waves: int = 2
    features: VolumeFeatures | None = None

    def __post_init__(self) -> None:
        """Check the number of waves."""
        whole_number(self.waves, 0, "waves")

    def build(self, centre: Tensor, scale: float, *, generator: torch.Generator | None = None) -> VelocityNetwork:
        """The field for a box around `centre` (3,) of half-width `scale`, in the precision of `centre`."""
        positive(scale, "scale")
        inputs = 4 + 6 * self.waves + (self.features.width if self.features is not None else 0)
        net = self.network.build(inputs, 3, generator=generator, dtype=centre.dtype)
        last = net[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.zero_()
            last.bias.zero_()
        return VelocityNetwork(net, centre, scale, self.waves, self.features).to(centre.device)


__all__ = ["VelocityMLP", "VelocityNetwork", "VolumeFeatures"]
