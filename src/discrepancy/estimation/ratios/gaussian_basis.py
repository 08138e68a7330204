"""Gaussian bumps at points of the numerator's sample: ratio models that are positive, evaluated in logarithms."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._results import NumericalError
from discrepancy._validate import positive, whole_number
from discrepancy.estimation.ratios.features import chosen_rows
from discrepancy.estimation.ratios.scaling import Scaling
from discrepancy.kernels import MedianHeuristic
from discrepancy.kernels.separations import SQUARED_EUCLIDEAN


@dataclass(frozen=True)
class Widths:
    """Candidate widths: `factors` times the median distance of the pooled sample (in units of its spread, by coordinate).

    Raises ValueError for an empty list or a factor that is not positive.
    """

    factors: tuple[float, ...] = (0.15, 0.25, 0.4, 0.65, 1.0, 1.6)

    def __post_init__(self) -> None:
        """Check the option."""
        if not self.factors:
            raise ValueError("factors must name at least one width, got none")
        for factor in self.factors:
            positive(factor, "factors")

    def of(self, z: Tensor) -> list[float]:
        """The widths for a pooled sample (N, d)."""
        median = float(MedianHeuristic().choose(z, z.new_full((len(z),), 1 / len(z)), SQUARED_EUCLIDEAN))
        return [factor * median for factor in self.factors]


@dataclass(frozen=True)
class Bumps:
    """exp(-|x - c_l|^2 / (2 width^2)) at centres c (L, d)."""

    centers: Tensor
    width: float

    @staticmethod
    def centers_of(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Centres among the rows of the numerator's sample, where the ratio is large."""
        return chosen_rows(x, whole_number(count, 1, "centers"), generator)

    def squares(self, points: Tensor) -> Tensor:
        """|x - c_l|^2, (k, L)."""
        return SQUARED_EUCLIDEAN.matrix(points, self.centers)

    def values(self, points: Tensor) -> Tensor:
        """The bumps at points (k, d), (k, L)."""
        return torch.exp(-self.squares(points) / (2 * self.width**2))

    def log_sum(self, points: Tensor, theta: Tensor) -> Tensor:
        """log sum_l theta_l k(x, c_l) for theta >= 0, finite however far the points are from all centres."""
        if not bool((theta > 0).any()):
            raise NumericalError("all coefficients of the ratio are zero: lower the ridge, or take Logistic()")
        return torch.logsumexp(theta.log() - self.squares(points) / (2 * self.width**2), -1)


def prepared(x: Tensor, y: Tensor) -> tuple[Scaling, Tensor, Tensor]:
    """Both samples in common coordinates."""
    scaling = Scaling.of(x, y)
    return scaling, scaling(x), scaling(y)


__all__ = ["Bumps", "Widths", "prepared"]
