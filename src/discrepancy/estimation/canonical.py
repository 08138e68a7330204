"""Gaussian log ratios: of a joint law to the product of its margins by canonical correlations, and of two samples.

They are where a critic or a score network starts: what is Gaussian in the dependence needs no training.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy.transport.maps import LedoitWolfCovariance, SampleCovariance

_NEAREST_TO_ONE = 1 - 1e-6  # a canonical correlation of one would make the log ratio infinite


@dataclass(frozen=True)
class CanonicalGaussian:
    """The joint Gaussian law of (X, Y) with shrunken canonical correlations rho_1, ..., rho_r.

    u = (x - m_x) W_x and v = (y - m_y) W_y are uncorrelated with unit variance but for corr(u_i, v_i) = rho_i. From the squared
    sample correlations gamma the squared correlations r of the law are the larger root of
    gamma r = (r (1 - c_x) + c_x) (r (1 - c_y) + c_y), c = d/n, and none below the edge of what independent data show; rho is
    sqrt(r) times the cosines between sample and true directions, which is what serves best on new rows. Independent data give
    zero. With fewer than 2 (d_x + d_y) rows covariances are Ledoit and Wolf's and the noise is taken as that of independent data.
    n (d_x + d_y)^2 time.
    Source: Hotelling (1936); Bao, Hu, Pan and Zhou (2019) for gamma; Gavish and Donoho (2017) for the cosines.
    """

    mean_x: Tensor
    mean_y: Tensor
    whiten_x: Tensor
    whiten_y: Tensor
    rho: Tensor
    covariance: Tensor  # of (x, y) jointly, (d_1 + d_2) square, positive definite

    @staticmethod
    def fit(x: Tensor, y: Tensor) -> CanonicalGaussian:
        """From paired rows x (n, d_1) and y (n, d_2), n >= 2; computed in float64, kept in the dtype of x."""
        n, left, right, dtype = len(x), x.shape[1], y.shape[1], x.dtype
        x, y = x.double(), y.double()
        plenty = n >= 2 * (left + right)
        (mean_x, cov_x), (mean_y, cov_y) = (moments(z, shrunken=not plenty) for z in (x, y))
        root_x, inverse_x = _roots(cov_x)
        root_y, inverse_y = _roots(cov_y)
        cross = inverse_x @ ((x - mean_x).T @ (y - mean_y) / n) @ inverse_y
        u, s, vt = torch.linalg.svd(cross, full_matrices=False)
        rho = _shrunken(s, left, right, n, whitened=plenty).clamp_max(_NEAREST_TO_ONE)
        joint = root_x @ (u * rho) @ vt @ root_y
        covariance = torch.cat([torch.cat([cov_x, joint], 1), torch.cat([joint.T, cov_y], 1)])
        parts = (mean_x, mean_y, inverse_x @ u, inverse_y @ vt.T, rho, covariance)
        return CanonicalGaussian(*(part.to(dtype) for part in parts))

    def features(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The canonical coordinates u (n, r) and v (m, r)."""
        return (x - self.mean_x) @ self.whiten_x, (y - self.mean_y) @ self.whiten_y

    def own(self, u: Tensor) -> Tensor:
        """The part of the log ratio from one side's canonical coordinates (..., r) alone, half the constant included."""
        rest = (1 - self.rho) * (1 + self.rho)
        return -(u.square() * (self.rho.square() / (2 * rest))).sum(-1) - rest.log().sum() / 4

    @property
    def weight(self) -> Tensor:
        """rho / (1 - rho^2): log p(u, v) / (p(u) p(v)) = own(u) + own(v) + sum_i weight_i u_i v_i."""
        return self.rho / ((1 - self.rho) * (1 + self.rho))

    def log_ratio(self, x: Tensor, y: Tensor) -> Tensor:
        """log p(x, y) / (p(x) p(y)) of paired rows, (n,)."""
        u, v = self.features(x, y)
        return self.own(u) + self.own(v) + (u * v * self.weight).sum(-1)

    @property
    def mutual_information(self) -> float:
        """-sum log(1 - rho^2) / 2."""
        rho = self.rho.double()
        return float(-torch.log((1 - rho) * (1 + rho)).sum() / 2)


@dataclass(frozen=True)
class GaussianPair:
    """Two Gaussian laws and the log of the ratio of their densities; covariances by Ledoit and Wolf."""

    means: tuple[Tensor, Tensor]
    inverse_roots: tuple[Tensor, Tensor]
    constant: Tensor

    @staticmethod
    def fit(x: Tensor, y: Tensor) -> GaussianPair:
        """From samples x (n, d) of P and y (m, d) of Q, at least two points each."""
        means, roots, constant = [], [], torch.zeros((), dtype=torch.float64, device=x.device)
        for sample, sign in ((x, -1.0), (y, 1.0)):
            mean, covariance = moments(sample.double(), shrunken=len(sample) < 2 * sample.shape[1])
            _, inverse = _roots(covariance)
            means.append(mean.to(x.dtype))
            roots.append(inverse.to(x.dtype))
            constant = constant - sign * torch.linalg.slogdet(inverse).logabsdet
        return GaussianPair((means[0], means[1]), (roots[0], roots[1]), constant.to(x.dtype))

    def log_ratio(self, z: Tensor) -> Tensor:
        """log p(z) / q(z) at points (m, d)."""
        over_p, over_q = (((z - m) @ w).square().sum(-1) for m, w in zip(self.means, self.inverse_roots, strict=True))
        return (over_q - over_p) / 2 + self.constant


def moments(x: Tensor, *, shrunken: bool) -> tuple[Tensor, Tensor]:
    """Mean (d,) and covariance (d, d) of a sample (n, d), Ledoit and Wolf's if `shrunken`, in its dtype."""
    weights = torch.full((len(x),), 1 / len(x), dtype=x.dtype, device=x.device)
    rule = LedoitWolfCovariance() if shrunken else SampleCovariance()
    return rule.estimate(x, weights)


def _shrunken(s: Tensor, left: int, right: int, n: int, *, whitened: bool) -> Tensor:
    """Correlations that serve best on new rows, from sample canonical correlations s; zero where they may be noise."""
    few, many = sorted((left, right))
    if whitened:
        c_x, c_y = left / n, right / n
        quadratic, gamma = (1 - c_x) * (1 - c_y), s.square().clamp_max(1)
        linear = c_x * (1 - c_y) + c_y * (1 - c_x) - gamma
        real = linear.square() - 4 * quadratic * c_x * c_y
        r = torch.where((real > 0) & (linear < 0), (-linear + real.clamp_min(0).sqrt()) / (2 * quadratic), torch.zeros_like(s))
        r = r.clamp(0, _NEAREST_TO_ONE**2)
        signal = n / many * r / (1 - r)
    else:
        half = s.square() * n / many - few / many - 1
        signal = torch.where(half > 0, (half + (half.square() - 4 * few / many).clamp_min(0).sqrt()) / 2, torch.zeros_like(s))
        r = signal * many / n
    beta = few / many
    above = signal.square() > beta
    signal = torch.where(above, signal, torch.full_like(signal, 2.0))
    cosines = (1 - beta * (1 + signal) / (signal * (signal + beta))) * (1 - (beta + signal) / (signal * (signal + 1)))
    return torch.where(above, (r * cosines.clamp(0, 1)).sqrt(), torch.zeros_like(r))


def _roots(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Square root and inverse square root; eigenvalues at rounding level count as that level, not as zero."""
    values, axes = torch.linalg.eigh(covariance)
    values = values.clamp_min(1e-10 * float(values[-1]))
    return (axes * values.sqrt()) @ axes.T, (axes / values.sqrt()) @ axes.T


__all__ = ["CanonicalGaussian", "GaussianPair", "moments"]
