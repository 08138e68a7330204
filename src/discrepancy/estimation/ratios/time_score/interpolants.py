"""Paths of laws between two samples: x_t = alpha(t) x_0 + beta(t) x_1 + sqrt(v(t)) z with Gaussian z."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from discrepancy._validate import at_least
from discrepancy.estimation.ratios.time_score.schedules import LinearPath, PathSchedule
from discrepancy.transport import OptimalTransport
from discrepancy.transport.coupling import HasPlan, sample_coupling


class Coupling(ABC):
    """How the rows of a batch of x_0 and of x_1 are paired."""

    @abstractmethod
    def pairs(self, x0: Tensor, x1: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The rows of two batches (B, d), paired; both margins must be kept."""


@dataclass(frozen=True)
class IndependentCoupling(Coupling):
    """Pairs as they were drawn, independently."""

    def pairs(self, x0: Tensor, x1: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The batches as they are."""
        return x0, x1


@dataclass(frozen=True)
class MiniBatchTransport(Coupling):
    """Pairs drawn from the optimal plan between the two batches: the bridge then tends to the Schroedinger bridge.

    `transport` is any transport problem with a plan (`OptimalTransport()` by default). A plan between batches is not the plan
    between the laws: batches should have 256 rows or more. Costs one transport problem a step.
    Raises TypeError for a transport without a plan.
    """

    transport: HasPlan = field(default_factory=OptimalTransport)

    def __post_init__(self) -> None:
        """Check the option."""
        if isinstance(self.transport, type) or not hasattr(self.transport, "solve"):
            raise TypeError(
                f"transport must be an object whose solve() has a plan, such as Sinkhorn(0.1), got {self.transport!r}"
            )

    def pairs(self, x0: Tensor, x1: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The rows of x_0 in their order, each with a row of x_1 drawn from the plan."""
        drawn = sample_coupling(x0, x1, generator, transport=self.transport)
        return drawn.x, drawn.y


class Interpolant(ABC):
    """x_t = alpha(t) x_0 + beta(t) x_1 + sqrt(v(t)) z, x_0 from Q and x_1 from P; a subclass is a frozen dataclass.

    `schedule` gives alpha and beta, `coupling` pairs the rows, `epsilon` is the variance added to both ends.
    Units: coordinates in which the pooled sample has mean zero and variance one.
    """

    schedule: PathSchedule
    coupling: Coupling
    epsilon: float

    @abstractmethod
    def variance(self, t: Tensor) -> Tensor:
        """v(t)."""

    @abstractmethod
    def variance_slope(self, t: Tensor) -> Tensor:
        """v'(t)."""

    @property
    def noisy(self) -> bool:
        """Whether v is positive on the whole of [0, 1]."""
        return self.epsilon > 0

    def mean(self, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        """alpha x_0 + beta x_1 for rows (B, d) at times (B,)."""
        return self.schedule.alpha(t)[:, None] * x0 + self.schedule.beta(t)[:, None] * x1

    def mean_slope(self, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        """alpha' x_0 + beta' x_1."""
        return self.schedule.alpha_slope(t)[:, None] * x0 + self.schedule.beta_slope(t)[:, None] * x1

    def at(self, x0: Tensor, x1: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """x_t for noise z (B, d)."""
        return self.mean(x0, x1, t) + self.variance(t).sqrt()[:, None] * z

    def conditional_time_score(self, x0: Tensor, x1: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """d/dt log N(x_t; m_t, v I) at x_t = m_t + sqrt(v) z: m'.z / sqrt(v) + v' (|z|^2 - d) / (2 v), shape (B,).

        Its mean given x_t is the time score of the path. Needs v(t) > 0.
        """
        v = self.variance(t)
        along = (self.mean_slope(x0, x1, t) * z).sum(1) / v.sqrt()
        return along + self.variance_slope(t) / (2 * v) * (z.square().sum(1) - z.shape[1])


@dataclass(frozen=True)
class DeterministicInterpolant(Interpolant):
    """x_t = alpha(t) x_0 + beta(t) x_1 without noise (the DI of the paper, as in DRE-infinity).

    Where the supports are disjoint its time score is unbounded, and it has no conditional target.
    """

    schedule: PathSchedule = field(default_factory=LinearPath)
    coupling: Coupling = field(default_factory=IndependentCoupling)
    epsilon: ClassVar[float] = 0.0  # pyright: ignore[reportIncompatibleVariableOverride]  # no option of this one

    def variance(self, t: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(t)

    def variance_slope(self, t: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(t)


@dataclass(frozen=True)
class DiffusionBridge(Interpolant):
    """v(t) = gamma t (1 - t) + (alpha^2 + beta^2) epsilon: a dequantified diffusion bridge (DDBI).

    gamma: the variance of a Brownian bridge; epsilon: that of the Gaussian that smooths both ends, so that the time score stays
    bounded where the supports do not meet. The ratio is that of the smoothed laws: epsilon must be small against the square of
    the narrowest scale. Raises ValueError for a negative gamma or epsilon.
    """

    schedule: PathSchedule = field(default_factory=LinearPath)
    gamma: float = 0.5
    epsilon: float = 1e-3
    coupling: Coupling = field(default_factory=IndependentCoupling)

    def __post_init__(self) -> None:
        """Check the options."""
        at_least(self.gamma, 0.0, "gamma")
        at_least(self.epsilon, 0.0, "epsilon")
        if not isinstance(self.coupling, Coupling):
            raise TypeError(f"coupling must be a Coupling such as MiniBatchTransport(), got {self.coupling!r}")

    def variance(self, t: Tensor) -> Tensor:
        """gamma t (1 - t) + (alpha^2 + beta^2) epsilon."""
        ends = self.schedule.alpha(t).square() + self.schedule.beta(t).square()
        return self.gamma * t * (1 - t) + ends * self.epsilon

    def variance_slope(self, t: Tensor) -> Tensor:
        """gamma (1 - 2 t) + 2 (alpha alpha' + beta beta') epsilon; the official code has (alpha + beta) there."""
        s = self.schedule
        ends = s.alpha(t) * s.alpha_slope(t) + s.beta(t) * s.beta_slope(t)
        return self.gamma * (1 - 2 * t) + 2 * ends * self.epsilon


@dataclass(frozen=True)
class SchroedingerBridge(DiffusionBridge):
    """The diffusion bridge whose ends are paired by optimal transport in each batch (DSBI).

    In the limit of large batches it solves the Schroedinger bridge whose entropic scale goes with gamma.
    Raises ValueError for a schedule that is not linear, under which the pairing has no such meaning.
    """

    coupling: Coupling = field(default_factory=MiniBatchTransport)

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        if not isinstance(self.schedule, LinearPath):
            raise ValueError(f"a Schroedinger bridge needs schedule=LinearPath(), got {self.schedule!r}: use DiffusionBridge")


__all__ = [
    "Coupling",
    "DeterministicInterpolant",
    "DiffusionBridge",
    "IndependentCoupling",
    "Interpolant",
    "MiniBatchTransport",
    "SchroedingerBridge",
]
