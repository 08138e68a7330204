"""Noise schedules of diffusion models: how much noise there is at which time, and the equation that adds it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from discrepancy._validate import at_least, positive


class NoiseSchedule(ABC):
    """A schedule of the noising Y_t = a (Y_0 + sigma(t) e), e ~ N(0, I), over times t in [`first`, 1].

    `sigma` is the noise relative to the signal, in units of the data; it rises with t and names the noise level everywhere in
    this library. `scale` is a, a function of the level: 1 where variance explodes, 1/sqrt(1 + sigma^2) where it is preserved.
    The same law solves dY = drift(t) Y dt + diffusion(t) dW, with drift = a'/a and diffusion^2 = a^2 d(sigma^2)/dt.

    All functions act elementwise on tensors and keep dtype and device; no cost beyond that.
    """

    first: float = 0.0
    references: ClassVar[tuple[str, ...]] = ("song-2021", "karras-2022")

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """The noise level at time t."""

    @abstractmethod
    def time(self, sigma: Tensor) -> Tensor:
        """The time of a noise level: the inverse of `sigma`."""

    @abstractmethod
    def scale(self, sigma: Tensor) -> Tensor:
        """The factor a of the signal at a noise level."""

    @abstractmethod
    def drift(self, t: Tensor) -> Tensor:
        """The rate a'(t) / a(t) of the linear drift."""

    @abstractmethod
    def diffusion(self, t: Tensor) -> Tensor:
        """The coefficient g(t) of dW."""

    @property
    def sigma_max(self) -> float:
        """The largest noise level, that of t = 1."""
        return float(self.sigma(torch.ones((), dtype=torch.float64)))

    @property
    def sigma_min(self) -> float:
        """The smallest noise level, that of t = first."""
        return float(self.sigma(torch.full((), self.first, dtype=torch.float64)))


def _check_range(sigma_min: float, sigma_max: float) -> None:
    positive(sigma_min, "sigma_min")
    positive(sigma_max, "sigma_max")
    if not sigma_min < sigma_max:
        raise ValueError(f"sigma_min must be below sigma_max, got {sigma_min!r} and {sigma_max!r}")


@dataclass(frozen=True)
class VarianceExploding(NoiseSchedule):
    """Y_t = Y_0 + sigma(t) e with sigma(t) = sigma_min (sigma_max / sigma_min)^t: noise is added, the signal stays.

    sigma_max should exceed the largest distance between two data points, so that the last law is nearly N(0, sigma_max^2).
    Raises ValueError unless 0 < sigma_min < sigma_max. Source: Song et al. (2021), section 3.4.
    """

    sigma_min: float = 0.01  # type: ignore[assignment]
    sigma_max: float = 50.0  # type: ignore[assignment]

    def __post_init__(self) -> None:
        """Check the range."""
        _check_range(self.sigma_min, self.sigma_max)

    @property
    def _rate(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def sigma(self, t: Tensor) -> Tensor:
        """sigma_min (sigma_max / sigma_min)^t."""
        return self.sigma_min * torch.exp(self._rate * t)

    def time(self, sigma: Tensor) -> Tensor:
        """log(sigma / sigma_min) / log(sigma_max / sigma_min)."""
        return torch.log(sigma / self.sigma_min) / self._rate

    def scale(self, sigma: Tensor) -> Tensor:
        """1: the signal stays."""
        return torch.ones_like(sigma)

    def drift(self, t: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(t)

    def diffusion(self, t: Tensor) -> Tensor:
        """sigma(t) sqrt(2 log(sigma_max / sigma_min))."""
        return self.sigma(t) * math.sqrt(2 * self._rate)


def _preserving(sigma: Tensor) -> Tensor:
    """1 / sqrt(1 + sigma^2), without overflow of the square."""
    return 1 / torch.hypot(torch.ones_like(sigma), sigma)


@dataclass(frozen=True)
class VariancePreserving(NoiseSchedule):
    """dY = -beta(t)/2 Y dt + sqrt(beta(t)) dW with beta rising linearly from beta_min to beta_max.

    sigma^2 = exp(B) - 1 with B(t) = beta_min t + (beta_max - beta_min) t^2 / 2, hence data of unit variance keep it. Sampling
    ends at t = `first`, because sigma(0) = 0, where the score of data on a lower-dimensional set is infinite.
    Raises ValueError unless 0 < beta_min <= beta_max and 0 < first < 1. Source: Ho, Jain and Abbeel (2020); Song et al. (2021).
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    first: float = 1e-3

    def __post_init__(self) -> None:
        """Check the rates."""
        positive(self.beta_min, "beta_min")
        at_least(self.beta_max, self.beta_min, "beta_max")
        if not 0 < self.first < 1:
            raise ValueError(f"first must lie strictly between 0 and 1, got {self.first!r}")

    def sigma(self, t: Tensor) -> Tensor:
        """sqrt(exp(B(t)) - 1)."""
        return torch.expm1(self.beta_min * t + (self.beta_max - self.beta_min) * t.square() / 2).sqrt()

    def time(self, sigma: Tensor) -> Tensor:
        """The positive root t of B(t) = log(1 + sigma^2)."""
        total = torch.log1p(sigma.square())
        # 2 B / (b + sqrt(b^2 + 2 B c)): the form of the root that does not cancel for small B.
        rise = self.beta_max - self.beta_min
        return 2 * total / (self.beta_min + (self.beta_min**2 + 2 * rise * total).sqrt())

    def scale(self, sigma: Tensor) -> Tensor:
        """1 / sqrt(1 + sigma^2)."""
        return _preserving(sigma)

    def drift(self, t: Tensor) -> Tensor:
        """-beta(t) / 2."""
        return -(self.beta_min + (self.beta_max - self.beta_min) * t) / 2

    def diffusion(self, t: Tensor) -> Tensor:
        """sqrt(beta(t))."""
        return (self.beta_min + (self.beta_max - self.beta_min) * t).sqrt()


@dataclass(frozen=True)
class Cosine(NoiseSchedule):
    """The variance-preserving schedule whose angle atan(sigma) rises linearly in time, from sigma_min to sigma_max.

    a = cos(angle): signal and noise turn into each other at constant speed. Both ends are cut off, since at angle pi/2 no signal
    is left. Raises ValueError unless 0 < sigma_min < sigma_max. Source: Nichol and Dhariwal (2021); truncated as in
    Hoogeboom, Heek and Salimans (2023).
    """

    sigma_min: float = 0.01  # type: ignore[assignment]
    sigma_max: float = 100.0  # type: ignore[assignment]

    def __post_init__(self) -> None:
        """Check the range."""
        _check_range(self.sigma_min, self.sigma_max)

    @property
    def _angles(self) -> tuple[float, float]:
        low = math.atan(self.sigma_min)
        return low, math.atan(self.sigma_max) - low

    def sigma(self, t: Tensor) -> Tensor:
        """tan of the angle at time t."""
        low, rise = self._angles
        return torch.tan(low + rise * t)

    def time(self, sigma: Tensor) -> Tensor:
        """The share of the way from the first to the last angle."""
        low, rise = self._angles
        return (torch.atan(sigma) - low) / rise

    def scale(self, sigma: Tensor) -> Tensor:
        """1 / sqrt(1 + sigma^2), the cosine of the angle."""
        return _preserving(sigma)

    def drift(self, t: Tensor) -> Tensor:
        """-sigma(t) times the speed of the angle."""
        return -self.sigma(t) * self._angles[1]

    def diffusion(self, t: Tensor) -> Tensor:
        """sqrt(2 sigma(t) times the speed of the angle)."""
        return (2 * self.sigma(t) * self._angles[1]).sqrt()


__all__ = ["Cosine", "NoiseSchedule", "VarianceExploding", "VariancePreserving"]
