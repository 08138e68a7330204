"""The affine map between the Gaussians that two samples are fitted with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from discrepancy.transport.gaussian.bures import map_matrix
from discrepancy.transport.maps.covariances import (
    CovarianceEstimator,
    LedoitWolfCovariance,
    RidgeCovariance,
    SampleCovariance,
)
from discrepancy.transport.maps.estimator import MapEstimator


class AffineModule(nn.Module):
    """x -> target + (x - source) matrix^T, for buffers source (d,), matrix (d, d), target (d,)."""

    source: Tensor
    matrix: Tensor
    target: Tensor

    def __init__(self, source: Tensor, matrix: Tensor, target: Tensor) -> None:
        """Hold the three as buffers."""
        super().__init__()
        for name, value in (("source", source), ("matrix", matrix), ("target", target)):
            self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        """The map at points x (..., d)."""
        return self.target + (x - self.source) @ self.matrix.mT


@dataclass
class GaussianTransportMap(MapEstimator):
    """T(x) = m_Y + A (x - m_X) with A = S_X^-1/2 (S_X^1/2 S_Y S_X^1/2)^1/2 S_X^-1/2: optimal between Gaussians with the samples'
    means and covariances, for the squared Euclidean cost.

    It matches means and covariances whatever the laws are, and is the best linear map that does. covariance: how covariances are
    estimated, `LedoitWolfCovariance()` (default, right for few points in many dimensions too), `RidgeCovariance(ridge)` or
    `SampleCovariance()`, whose null directions are mapped to zero. `fit(X, Y, a, b)` takes weights (n,), (m,);
    `inverse_transform` is the map from Y's Gaussian to X's, the inverse where the covariances are invertible. `module_` is an
    affine torch module. (n + m) d^2 + d^3 time. Source: Olkin and Pukelsheim (1982); Flamary et al. (2019) for its estimation.
    """

    covariance: CovarianceEstimator = field(default_factory=LedoitWolfCovariance)
    references: ClassVar[tuple[str, ...]] = ("olkin-pukelsheim-1982", "ledoit-wolf-2004")

    def _check(self) -> None:
        if not isinstance(self.covariance, SampleCovariance | RidgeCovariance | LedoitWolfCovariance):
            raise TypeError(
                f"covariance must be LedoitWolfCovariance(), RidgeCovariance() or SampleCovariance(), got {self.covariance!r}"
            )

    def fit(self, X: Any, Y: Any, a: Any = None, b: Any = None) -> GaussianTransportMap:
        """Fit Gaussians to X (n, d) and Y (m, d), with weights a (n,), b (m,), and the map between them."""
        pair = self._one_pair(X, Y, a, b)
        m1, S1 = self.covariance.estimate(pair.x.double(), pair.a.double())
        m2, S2 = self.covariance.estimate(pair.y.double(), pair.b.double())
        self.module_ = AffineModule(m1, map_matrix(S1, S2), m2).to(pair.x.dtype)
        self.inverse_module_ = AffineModule(m2, map_matrix(S2, S1), m1).to(pair.x.dtype)
        return self

    def inverse_transform(self, Y: Any) -> Any:
        """The map back, at Y (m, d). Raises AttributeError before `fit`."""
        self._need_fit()
        return self._moved(self.inverse_module_, Y)


__all__ = ["AffineModule", "GaussianTransportMap"]
