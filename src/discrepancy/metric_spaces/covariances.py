"""Spaces of matrices: covariances under a metric of choice, and correlations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from discrepancy._results import Outcome
from discrepancy._validate import at_least
from discrepancy.metric_spaces.covariance_metrics import CovarianceMetric, Frobenius, positive_part
from discrepancy.metric_spaces.space import Center, MetricSpace, first_bad, rounding
from discrepancy.transport.gaussian.parameters import covariance


@dataclass(frozen=True)
class CovarianceSpace(MetricSpace):
    """Covariance matrices (..., d, d) under `metric`: Frobenius(), PowerMetric(alpha), Cholesky(), LogCholesky(), LogEuclidean(),
    AffineInvariant() or Bures().

    Points must be symmetric and positive semidefinite, and definite where the metric asks for it. d^3 time a distance.
    """

    metric: CovarianceMetric = field(default_factory=Frobenius)
    point_ndim = 2

    def __post_init__(self) -> None:
        """Raise TypeError unless metric is a CovarianceMetric."""
        if not isinstance(self.metric, CovarianceMetric):
            raise TypeError(f"metric must be a CovarianceMetric, such as Frobenius() or Bures(), got {self.metric!r}")

    def points(self, Y: Any, name: str = "Y") -> Tensor:
        """Covariance matrices (..., d, d); definite ones where the metric needs them."""
        S = covariance(Y, name)
        if self.metric.definite:
            bad = torch.linalg.cholesky_ex(S.detach()).info > 0
            if bool(bad.any()):
                where = f", the first at index {first_bad(bad)}" if bad.ndim else ""
                raise ValueError(
                    f"{name} has {int(bad.sum())} singular matri{'x' if int(bad.sum()) == 1 else 'ces'}{where}: {self.metric!r} "
                    "needs definite ones; use Frobenius(), PowerMetric() or Bures(), or add a ridge"
                )
        return S

    def _squared(self, a: Tensor, b: Tensor) -> Tensor:
        return self.metric.squared(a, b)

    def _mean(self, Y: Tensor, w: Tensor) -> Center:
        return self.metric.mean(Y, w)


@dataclass(frozen=True)
class CorrelationSpace(MetricSpace):
    """Correlation matrices (..., d, d), unit diagonal and positive semidefinite, with the Frobenius distance.

    A mean is the weighted average; where negative weights have made it indefinite, the nearest correlation matrix, by
    alternating projections with Dykstra's correction. d^3 time an iteration. Source: Higham (2002).
    """

    max_iterations: int = 1000
    point_ndim = 2
    references = ("higham-2002",)

    def __post_init__(self) -> None:
        """Raise ValueError unless max_iterations >= 1."""
        at_least(self.max_iterations, 1, "max_iterations")

    def points(self, Y: Any, name: str = "Y") -> Tensor:
        """Correlation matrices (..., d, d)."""
        R = covariance(Y, name)
        off = (R.detach().diagonal(dim1=-2, dim2=-1) - 1).abs().amax(-1)
        if bool((off > rounding(R)).any()):
            raise ValueError(
                f"{name} must have ones on the diagonal, got entries off by {float(off.max()):.3g}: divide by the standard "
                "deviations, or use CovarianceSpace()"
            )
        return R

    def _squared(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().sum((-1, -2))

    def _mean(self, Y: Tensor, w: Tensor) -> Center:
        average = torch.tensordot(w, Y, dims=1)
        if not bool((torch.linalg.eigvalsh(average.detach())[..., 0] < 0).any()):
            return Center(average)
        return nearest_correlation(average, max_iterations=self.max_iterations)


@torch.no_grad()
def nearest_correlation(S: Tensor, *, max_iterations: int = 1000) -> Center:
    """The correlation matrices (..., d, d) nearest to symmetric S in the Frobenius norm; without gradient.

    The answer is scaled to an exact unit diagonal, by what the tolerance (1e-10 relative in float64, 1e-5 in float32) has left.
    """
    tolerance = 1e-10 if S.dtype == torch.float64 else 1e-5
    Y, correction = S.clone(), torch.zeros_like(S)
    X, change, done = Y, torch.inf, 0
    while done < max_iterations and change > tolerance:
        R = Y - correction
        X = positive_part(R)
        correction = X - R
        Y = X.clone()
        Y.diagonal(dim1=-2, dim2=-1).fill_(1.0)
        size = torch.linalg.matrix_norm(Y)
        change, done = float((torch.linalg.matrix_norm(Y - X) / size).max()), done + 1
    scale = X.diagonal(dim1=-2, dim2=-1).clamp_min(torch.finfo(S.dtype).tiny).rsqrt()
    answer = X * scale[..., :, None] * scale[..., None, :]
    answer.diagonal(dim1=-2, dim2=-1).fill_(1.0)
    return Center(answer, done, change, Outcome.CONVERGED if change <= tolerance else Outcome.ITERATION_LIMIT)


__all__ = ["CorrelationSpace", "CovarianceSpace", "nearest_correlation"]
