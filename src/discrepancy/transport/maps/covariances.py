"""Mean and covariance of a weighted sample: plain, with a ridge, or shrunk by Ledoit and Wolf's rule."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._validate import at_least


def _moments(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    centre = w @ x
    z = x - centre
    S = (z * w[:, None]).mT @ z
    return centre, z, (S + S.mT) / 2


def _toward_identity(S: Tensor, share: Tensor | float) -> Tensor:
    """(1 - share) S + share tr(S) / d I."""
    eye = torch.eye(len(S), dtype=S.dtype, device=S.device)
    return (1 - share) * S + share * (S.trace() / len(S)) * eye


@dataclass(frozen=True)
class SampleCovariance:
    """S = sum_i w_i (x_i - m)(x_i - m)^T; of rank n - 1 at most, so that for n <= d some directions have no variance."""

    def estimate(self, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (d,) and covariance (d, d) of x (n, d) under weights (n,)."""
        centre, _, S = _moments(x, w)
        return centre, S


@dataclass(frozen=True)
class RidgeCovariance:
    """S + ridge tr(S) / d I: every direction gets `ridge` times the mean variance more, in units of the data."""

    ridge: float = 1e-3

    def __post_init__(self) -> None:
        """Raise ValueError for a negative ridge."""
        at_least(self.ridge, 0, "ridge")

    def estimate(self, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (d,) and covariance (d, d) of x (n, d) under weights (n,)."""
        centre, _, S = _moments(x, w)
        return centre, S + self.ridge * (S.trace() / len(S)) * torch.eye(len(S), dtype=S.dtype, device=S.device)


@dataclass(frozen=True)
class LedoitWolfCovariance:
    """(1 - s) S + s tr(S) / d I, with the share s that is best in mean square as estimated from the data.

    s = min(1, sum_i w_i^2 |z_i z_i^T - S|^2 / |S - tr(S) / d I|^2) with z_i = x_i - m: near 1 for few points in many dimensions,
    of the order 1/n for many. Source: Ledoit and Wolf (2004); unequal weights by the same plug-in.
    """

    def estimate(self, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (d,) and covariance (d, d) of x (n, d) under weights (n,). n d^2 time."""
        centre, z, S = _moments(x, w)
        apart = (S - _toward_identity(S, 1.0)).square().sum()
        single = z.square().sum(-1).square() - 2 * ((z @ S) * z).sum(-1) + S.square().sum()
        noise = (w.square() * single).sum()
        share = torch.where(apart > 0, (noise / torch.where(apart > 0, apart, torch.ones_like(apart))).clamp(0, 1), apart)
        return centre, _toward_identity(S, share)


CovarianceEstimator = SampleCovariance | RidgeCovariance | LedoitWolfCovariance

__all__ = ["CovarianceEstimator", "LedoitWolfCovariance", "RidgeCovariance", "SampleCovariance"]
