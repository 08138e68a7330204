"""The kernels by name: Gaussian, Laplacian, inverse multiquadric, and the negative distance of the energy distance."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from discrepancy._validate import positive
from discrepancy.kernels.bandwidth import MedianHeuristic
from discrepancy.kernels.kernel import Bandwidth, RadialKernel
from discrepancy.kernels.separations import L1, L1_DISTANCE, SQUARED_EUCLIDEAN, SquaredEuclidean


def _checked(value: Bandwidth, name: str) -> Bandwidth:
    """A bandwidth as an option: a positive number, a rule that chooses one, or a positive tensor, detached."""
    if isinstance(value, MedianHeuristic):
        return value
    if isinstance(value, Tensor) and value.ndim:
        if not bool((torch.isfinite(value) & (value > 0)).all()):
            raise ValueError(f"{name} must be positive and finite, got a smallest value of {float(value.min()):.6g}")
        return value.detach()
    if isinstance(value, str | bytes) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a number or a MedianHeuristic(), got {value!r}")
    return positive(float(value), name)


@dataclass(frozen=True)
class Gaussian(RadialKernel):
    """k(x, y) = exp(-|x - y|^2 / (2 bandwidth^2)).

    `bandwidth`: a positive number in the units of the data, or a rule such as `MedianHeuristic()` (the default). A tensor
    (B,) gives each member of a flat batch its own. Characteristic: the MMD of two laws is zero only if they are equal.
    Raises ValueError if it is not positive, TypeError if it is no number or rule.
    """

    bandwidth: Bandwidth = field(default_factory=MedianHeuristic)
    bandwidth_field: ClassVar[str | None] = "bandwidth"
    separation: ClassVar[SquaredEuclidean | L1] = SQUARED_EUCLIDEAN

    def __post_init__(self) -> None:
        object.__setattr__(self, "bandwidth", _checked(self.bandwidth, "bandwidth"))

    def profile(self, s: Tensor) -> Tensor:
        """exp(-s / (2 h^2))."""
        return (s * self._rate(s)).exp_()

    def slope(self, s: Tensor, values: Tensor) -> Tensor:
        """-profile / (2 h^2)."""
        return values * self._rate(s)

    def log_profile(self, s: Tensor) -> Tensor:
        """-s / (2 h^2)."""
        return s * self._rate(s)

    def log_slope(self, s: Tensor) -> Tensor:
        """-1 / (2 h^2)."""
        return torch.ones_like(s) * self._rate(s)

    def _rate(self, s: Tensor) -> Tensor | float:
        return -0.5 / self._wide(s) ** 2


@dataclass(frozen=True)
class Laplacian(RadialKernel):
    """k(x, y) = exp(-|x - y|_1 / scale); characteristic, heavier-tailed in frequency than the Gaussian.

    `scale` as the Gaussian's bandwidth; a `MedianHeuristic` takes the median L1 distance.
    """

    scale: Bandwidth = field(default_factory=MedianHeuristic)
    bandwidth_field: ClassVar[str | None] = "scale"
    separation: ClassVar[SquaredEuclidean | L1] = L1_DISTANCE

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", _checked(self.scale, "scale"))

    def profile(self, s: Tensor) -> Tensor:
        """exp(-s / scale)."""
        return (s / -self._wide(s)).exp_()

    def slope(self, s: Tensor, values: Tensor) -> Tensor:
        """-profile / scale."""
        return -values / self._wide(s)

    def log_profile(self, s: Tensor) -> Tensor:
        """-s / scale."""
        return s / -self._wide(s)

    def log_slope(self, s: Tensor) -> Tensor:
        """-1 / scale."""
        return -torch.ones_like(s) / self._wide(s)


@dataclass(frozen=True)
class InverseMultiquadric(RadialKernel):
    """k(x, y) = (1 + |x - y|^2 / scale^2)^(-exponent), exponent > 0 (1/2 by default); characteristic, with slow tails.

    `scale` as the Gaussian's bandwidth. Raises ValueError if scale or exponent is not positive.
    """

    scale: Bandwidth = field(default_factory=MedianHeuristic)
    bandwidth_field: ClassVar[str | None] = "scale"
    exponent: float = 0.5
    separation: ClassVar[SquaredEuclidean | L1] = SQUARED_EUCLIDEAN

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", _checked(self.scale, "scale"))
        positive(self.exponent, "exponent")

    def profile(self, s: Tensor) -> Tensor:
        """(1 + s / scale^2)^(-exponent)."""
        return (s / self._wide(s) ** 2).log1p_().mul_(-self.exponent).exp_()

    def slope(self, s: Tensor, values: Tensor) -> Tensor:
        """-exponent profile / (scale^2 + s)."""
        return -self.exponent * values / (s + self._wide(s) ** 2)

    def log_profile(self, s: Tensor) -> Tensor:
        """-exponent log(1 + s / scale^2)."""
        return -self.exponent * (s / self._wide(s) ** 2).log1p()

    def log_slope(self, s: Tensor) -> Tensor:
        """-exponent / (scale^2 + s)."""
        return -self.exponent / (s + self._wide(s) ** 2)


@dataclass(frozen=True)
class NegativeDistance(RadialKernel):
    """k(x, y) = -|x - y|^exponent, 0 < exponent < 2: the squared MMD under it is the energy distance.

    Conditionally positive definite only: it is a kernel for measures of equal mass, which the MMD compares.
    Raises ValueError if the exponent is not strictly between 0 and 2.
    """

    exponent: float = 1.0
    separation: ClassVar[SquaredEuclidean | L1] = SQUARED_EUCLIDEAN

    def __post_init__(self) -> None:
        if not 0 < float(self.exponent) < 2:
            raise ValueError(f"exponent must lie strictly between 0 and 2, got {self.exponent!r}")

    def profile(self, s: Tensor) -> Tensor:
        """-s^(exponent / 2)."""
        return (s.sqrt() if self.exponent == 1 else s.pow(self.exponent / 2)).neg_()

    def slope(self, s: Tensor, values: Tensor) -> Tensor:
        """(exponent / 2) profile / s, and 0 where the points coincide: the symmetric choice at the cusp."""
        return torch.where(s > 0, self.exponent / 2 * values / s, 0.0)
