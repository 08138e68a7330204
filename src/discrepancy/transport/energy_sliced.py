"""Energy-weighted sliced Wasserstein: directions along which the samples differ more count more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from discrepancy._kinds import Claims, Discrepancy, PooledStatistic
from discrepancy._validate import SamplePair, positive, sample
from discrepancy.directions import Directions, Uniform
from discrepancy.linalg import root
from discrepancy.transport.pooled_line import PooledLines
from discrepancy.transport.sliced import SlicedWasserstein


class Energy(ABC):
    """How much a direction counts, from its W_p^p: logarithms of weights, which need not be normalised.

    `homogeneous` says whether the normalised weights stay as they are when all costs are scaled.
    """

    homogeneous: ClassVar[bool] = False

    @abstractmethod
    def log_weights(self, costs: Tensor) -> Tensor:
        """(..., L) from costs (..., L)."""


@dataclass(frozen=True)
class ExponentialEnergy(Energy):
    """Weights proportional to exp(W_p^p / scale). Not invariant to units: `scale` is in those of W_p^p."""

    scale: float = 1.0

    def __post_init__(self) -> None:
        """Check the scale."""
        positive(self.scale, "scale")

    def log_weights(self, costs: Tensor) -> Tensor:
        """W_p^p / scale."""
        return costs / self.scale


@dataclass(frozen=True)
class PowerEnergy(Energy):
    """Weights proportional to (W_p^p)^power: invariant to units."""

    power: float = 1.0
    homogeneous: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the power."""
        positive(self.power, "power")

    def log_weights(self, costs: Tensor) -> Tensor:
        """power log W_p^p; where all costs of a pair are zero all weights are equal."""
        nothing = (costs == 0).all(-1, keepdim=True)
        # A direction without cost has weight zero, and no gradient through its logarithm.
        safe = torch.where(costs > 0, costs, torch.ones_like(costs))
        logs = torch.where(costs > 0, self.power * safe.log(), torch.full_like(costs, -torch.inf))
        return torch.where(nothing, torch.zeros_like(costs), logs)


@dataclass(frozen=True)
class EnergySlicedWasserstein(Discrepancy):
    """EBSW_p = (E_theta w(theta) W_p^p(theta))^(1/p), with weights w that grow with W_p^p and have mean one over directions.

    Between the sliced distance and the largest projected one: SW_p <= EBSW_p <= Max-SW_p, on the same directions. Estimated by
    importance sampling from `directions`, self-normalised: sum_l softmax_l(energy(W_p^p)) W_p^p, with a bias of O(1/L). Zero only
    at equality and symmetric, in units of x; no triangle inequality, since the weights depend on the pair. Gradients go through
    the weights. With `PowerEnergy` it scales with its samples, with `ExponentialEnergy` (the default) the weights sharpen.
    Time L (n d + n log n), value and gradient (which sorts twice); memory that of the samples and one group of projections.
    Source: Nguyen and Ho (2023); as a loss on features: Le et al. (2024).
    """

    p: float = 2
    directions: Directions = field(default_factory=Uniform)
    energy: Energy = field(default_factory=ExponentialEnergy)
    claims: ClassVar[Claims] = Claims(random=True)
    references: ClassVar[tuple[str, ...]] = ("nguyen-ho-2023", "functional-maps-ot")

    def __post_init__(self) -> None:
        """Raise ValueError or TypeError for options that make no sense."""
        SlicedWasserstein(self.p, self.directions)
        if not isinstance(self.energy, Energy):
            raise TypeError(f"energy must be ExponentialEnergy(), PowerEnergy() or one like them, got {self.energy!r}")
        object.__setattr__(self, "claims", Claims(degree=1.0 if self.energy.homogeneous else None, random=True))

    @property
    def _sliced(self) -> SlicedWasserstein:
        return SlicedWasserstein(self.p, self.directions)

    def _weighted(self, costs: Tensor) -> Tensor:
        """The root of the weighted mean of W_p^p (..., L)."""
        weights = torch.softmax(self.energy.log_weights(costs), -1)
        return root((weights * costs).sum(-1), self.p)

    def _value(self, pair: SamplePair, generator: torch.Generator | None) -> Tensor:
        """EBSW_p over the batch."""
        theta = self._sliced._directions(pair.x.shape[-1], generator, pair.x)
        return self._weighted(self._sliced._costs(pair, theta)).to(pair.x.dtype)

    def pooled(self, z: object, *, generator: torch.Generator | None = None) -> PooledStatistic:
        """One draw of directions and one sort each; a pair of weight rows then costs one pass a direction."""
        cloud = sample(z, "z").detach()
        if cloud.ndim != 2:
            raise ValueError(f"z must be one cloud of shape (N, d), got {tuple(cloud.shape)}")
        theta = self._sliced._directions(cloud.shape[-1], generator, cloud)
        lines = PooledLines(torch.matmul(theta, (cloud - cloud.mean(0)).mT), self.p)
        return torch.no_grad()(lambda A, B: self._weighted(lines(A, B)).to(cloud.dtype))


__all__ = ["Energy", "EnergySlicedWasserstein", "ExponentialEnergy", "PowerEnergy"]
