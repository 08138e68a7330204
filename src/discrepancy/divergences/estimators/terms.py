"""The term of a ratio t = p/q that a Monte Carlo mean averages over samples of Q: one divergence, many unbiased terms.

E_Q[t] = 1, so that f(t) + c (t - 1) has the same mean for every c. On ReverseKL, KL(Q || P), the names that people use are
k1 = Plain() = -log t, k2 = Squared() = (log t)^2 / 2 and k3 = Centred() = t - 1 - log t; here they exist for every f.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._results import NumericalError
from discrepancy.divergences.f_divergence import FDivergence


@dataclass(frozen=True)
class RatioEstimator(ABC):
    """A choice of the term; `fitted` counts the coefficients that it takes from the samples."""

    @abstractmethod
    def terms(self, f: FDivergence, log_t: Tensor, weights: Tensor) -> Tensor:
        """The terms (..., n) at log-ratios (..., n) in float64, of samples of Q with weights (..., n) that sum to one."""

    @property
    def fitted(self) -> int:
        """How many coefficients are fitted to the samples."""
        return 0


@dataclass(frozen=True)
class Linear(RatioEstimator):
    """f(t) + c (t - 1): unbiased for every c. Raises ValueError for c that is not finite."""

    coefficient: float = 0.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.coefficient):
            raise ValueError(f"coefficient must be finite, got {self.coefficient!r}")

    def terms(self, f: FDivergence, log_t: Tensor, weights: Tensor) -> Tensor:
        """f(t) + c (t - 1)."""
        return _checked(f._with_linear(log_t, self.coefficient), f)


@dataclass(frozen=True)
class Centred(RatioEstimator):
    """f(t) with f(1) = f'(1) = 0 (k3): unbiased, never negative, of a variance of fourth order in log t near equality."""

    def terms(self, f: FDivergence, log_t: Tensor, weights: Tensor) -> Tensor:
        """f(t)."""
        return _checked(f._with_linear(log_t, 0.0), f)


@dataclass(frozen=True)
class Plain(RatioEstimator):
    """f as textbooks print it (k1): -log t for ReverseKL, t log t for KL, (1 - t)_+ for TotalVariation. Unbiased.

    Takes the linear part off that f has at infinity, c = -f'(inf), or where that is infinite c = f(0), or nothing. Its terms
    have two signs, and near equality a variance of second order in log t; far out they are smaller than the centred ones.
    """

    def terms(self, f: FDivergence, log_t: Tensor, weights: Tensor) -> Tensor:
        """f(t) + c (t - 1)."""
        slope, start = f.slope_at_infinity, f.at_zero
        c = -slope if math.isfinite(slope) else start if math.isfinite(start) else 0.0
        return _checked(f._with_linear(log_t, c), f)


@dataclass(frozen=True)
class Squared(RatioEstimator):
    """f''(1) (log t)^2 / 2 (k2): biased by the third order of log t, finite wherever log t is. Needs a smooth f."""

    def terms(self, f: FDivergence, log_t: Tensor, weights: Tensor) -> Tensor:
        """f''(1) (log t)^2 / 2. Raises TypeError for a divergence without a curvature."""
        return float(f.curvature(torch.ones((), dtype=torch.float64))) / 2 * log_t * log_t


@dataclass(frozen=True)
class FittedLinear(RatioEstimator):
    """f(t) + c (t - 1) with the c of least variance, the regression of f(t) on t - 1 over the samples.

    Its standard error is asymptotically the smallest of all `Linear`; fitting c on the same samples costs a bias of order 1/n,
    of the size of the squared standard error times the ratio's skewness. Wants n of at least ten or so.
    """

    @property
    def fitted(self) -> int:
        """One: the slope."""
        return 1

    def terms(self, f: FDivergence, log_t: Tensor, weights: Tensor) -> Tensor:
        """f(t) + c (t - 1), c detached. Raises NumericalError where the ratios have no finite variance."""
        base = _checked(f._with_linear(log_t, 0.0), f)
        change = torch.expm1(log_t)
        with torch.no_grad():
            centre = (weights * change).sum(-1, keepdim=True)
            spread = (weights * (change - centre) ** 2).sum(-1, keepdim=True)
            joint = (weights * (change - centre) * base).sum(-1, keepdim=True)
            if not bool((torch.isfinite(spread) & torch.isfinite(joint)).all()):
                raise NumericalError("the ratios overflow and no coefficient can be fitted: use Plain() or Centred()")
            c = torch.where(
                spread > 0, -joint / torch.where(spread > 0, spread, torch.ones_like(spread)), torch.zeros_like(spread)
            )
        return base + c * change


def _checked(terms: Tensor, f: FDivergence) -> Tensor:
    if bool(torch.isnan(terms.detach()).any()):
        raise NumericalError(f"the terms of {f!r} are infinite with opposite signs: use Centred()")
    return terms


__all__ = ["Centred", "FittedLinear", "Linear", "Plain", "RatioEstimator", "Squared"]
