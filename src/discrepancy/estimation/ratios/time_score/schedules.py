"""How the two ends of a path of laws are mixed: x_t = alpha(t) x_0 + beta(t) x_1."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._validate import at_least, positive


class PathSchedule(ABC):
    """The coefficients alpha(t), beta(t) of a path from alpha(0) = 1, beta(0) = 0 to beta(1) = 1, with their derivatives.

    All functions act elementwise on times in [0, 1].
    """

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """The weight of x_0."""

    @abstractmethod
    def beta(self, t: Tensor) -> Tensor:
        """The weight of x_1."""

    @abstractmethod
    def alpha_slope(self, t: Tensor) -> Tensor:
        """alpha'(t)."""

    @abstractmethod
    def beta_slope(self, t: Tensor) -> Tensor:
        """beta'(t)."""


@dataclass(frozen=True)
class LinearPath(PathSchedule):
    """alpha = 1 - t, beta = t: the only one under which a transport plan's bridge solves the Schroedinger problem."""

    def alpha(self, t: Tensor) -> Tensor:
        """1 - t."""
        return 1 - t

    def beta(self, t: Tensor) -> Tensor:
        """t."""
        return t

    def alpha_slope(self, t: Tensor) -> Tensor:
        """-1."""
        return -torch.ones_like(t)

    def beta_slope(self, t: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(t)


@dataclass(frozen=True)
class CosinePath(PathSchedule):
    """alpha = cos(pi t / 2), beta = sin(pi t / 2): two laws of equal covariance keep it along the path."""

    def alpha(self, t: Tensor) -> Tensor:
        """cos(pi t / 2)."""
        return torch.cos(math.pi / 2 * t)

    def beta(self, t: Tensor) -> Tensor:
        """sin(pi t / 2)."""
        return torch.sin(math.pi / 2 * t)

    def alpha_slope(self, t: Tensor) -> Tensor:
        """-(pi / 2) sin(pi t / 2)."""
        return -math.pi / 2 * torch.sin(math.pi / 2 * t)

    def beta_slope(self, t: Tensor) -> Tensor:
        """(pi / 2) cos(pi t / 2)."""
        return math.pi / 2 * torch.cos(math.pi / 2 * t)


@dataclass(frozen=True)
class FollmerPath(PathSchedule):
    """alpha = sqrt(1 - t^2), beta = t. The slope of alpha is infinite at t = 1: times stay `margin` away from it.

    Raises ValueError unless 0 < margin < 1/2.
    """

    margin: float = 1e-4

    def __post_init__(self) -> None:
        """Check the option."""
        _check_margin(self.margin)

    def _root(self, t: Tensor) -> Tensor:
        return (1 - t.clamp(max=1 - self.margin).square()).sqrt()

    def alpha(self, t: Tensor) -> Tensor:
        """sqrt(1 - t^2)."""
        return (1 - t.square()).clamp_min(0).sqrt()

    def beta(self, t: Tensor) -> Tensor:
        """t."""
        return t

    def alpha_slope(self, t: Tensor) -> Tensor:
        """-t / sqrt(1 - t^2), taken no nearer to t = 1 than the margin."""
        return -t / self._root(t)

    def beta_slope(self, t: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(t)


@dataclass(frozen=True)
class VariancePreservingPath(PathSchedule):
    """alpha = exp(-B(t) / 2), beta = sqrt(1 - alpha^2), B(t) = b_min t + (b_max - b_min) t^2 / 2.

    As in diffusion models; alpha(1) = 0.0066 at the defaults and not zero, so that P is met up to that share of Q. The slope of
    beta is infinite at t = 0, and is taken no nearer than `margin`. Raises ValueError unless 0 < b_min <= b_max.
    """

    b_min: float = 0.1
    b_max: float = 20.0
    margin: float = 1e-4

    def __post_init__(self) -> None:
        """Check the options."""
        positive(self.b_min, "b_min")
        at_least(self.b_max, self.b_min, "b_max")
        _check_margin(self.margin)

    def _total(self, t: Tensor) -> Tensor:
        return self.b_min * t + (self.b_max - self.b_min) * t.square() / 2

    def _rate(self, t: Tensor) -> Tensor:
        return self.b_min + (self.b_max - self.b_min) * t

    def alpha(self, t: Tensor) -> Tensor:
        """exp(-B / 2)."""
        return torch.exp(-self._total(t) / 2)

    def beta(self, t: Tensor) -> Tensor:
        """sqrt(1 - exp(-B))."""
        return (-torch.expm1(-self._total(t))).clamp_min(0).sqrt()

    def alpha_slope(self, t: Tensor) -> Tensor:
        """-B' alpha / 2."""
        return -self._rate(t) / 2 * self.alpha(t)

    def beta_slope(self, t: Tensor) -> Tensor:
        """B' exp(-B) / (2 beta)."""
        inside = t.clamp_min(self.margin)
        return self._rate(inside) * torch.exp(-self._total(inside)) / (2 * self.beta(inside))


def _check_margin(margin: float) -> None:
    if not 0 < margin < 0.5:
        raise ValueError(f"margin must lie strictly between 0 and 1/2, got {margin!r}")


__all__ = ["CosinePath", "FollmerPath", "LinearPath", "PathSchedule", "VariancePreservingPath"]
