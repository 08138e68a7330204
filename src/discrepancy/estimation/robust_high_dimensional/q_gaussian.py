"""Tsallis entropy and the heavy-tailed law that maximises it: the q-Gaussian, which for q > 1 is a multivariate t."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from discrepancy._validate import as_tensor, generator_or_default, positive, weights, whole_number


def tsallis_entropy(p: Any, q: float, dim: int = -1) -> Tensor:
    """(1 - sum p^q) / (q - 1) of probabilities p (..., K, ...) along `dim`, in nats; q = 1 is Shannon's -sum p log p, exactly.

    q > 0. Zero probabilities contribute nothing. Differentiable. Evaluated as -sum p (p^(q-1) - 1) / (q - 1) with expm1, which
    loses nothing next to q = 1. Raises ValueError for q that is not positive and for what is no probability vector.
    Source: Tsallis (1988).
    """
    power = positive(q, "q")
    t = as_tensor(p, "p")
    t = t.movedim(dim, -1)
    t = weights(t, t.shape, "p", like=t)
    inside = t > 0
    log_t = torch.log(torch.where(inside, t, torch.ones_like(t)))
    rise = log_t if power == 1 else torch.expm1((power - 1) * log_t) / (power - 1)
    return -(t * rise).sum(-1) + 0.0


def q_of(nu: float, dimension: int) -> float:
    """The q of a multivariate t with nu degrees of freedom in some dimension n: 1 + 2 / (nu + n)."""
    return 1 + 2 / (positive(nu, "nu") + whole_number(dimension, 1, "dimension"))


def nu_of(q: float, dimension: int) -> float:
    """The degrees of freedom of the q-Gaussian with heavy tails in dimension n: 2 / (q - 1) - n.

    Raises ValueError unless 1 < q < 1 + 2 / n: at q = 1 the law is Gaussian, below it has bounded support, and beyond the upper
    end it cannot be normalised.
    """
    n = whole_number(dimension, 1, "dimension")
    if not 1 < float(q) < 1 + 2 / n:
        raise ValueError(
            f"q must lie strictly between 1 and {1 + 2 / n:g} in dimension {n}, got {q!r}: only those have heavy tails and a mass"
        )
    return 2 / (float(q) - 1) - n


@dataclass(frozen=True)
class QGaussian:
    """The law of maximal Tsallis entropy with heavy tails: t with `nu` degrees of freedom around `mean` (n,), `scale` (n, n).

    Density proportional to (1 + (x - mean)' scale^-1 (x - mean) / nu)^(-(nu + n) / 2); q = 1 + 2 / (nu + n). nu = inf is the
    Gaussian. The covariance is scale nu / (nu - 2) for nu > 2. Raises ValueError for shapes that do not fit, a scale that is
    not positive definite and nu that is not positive.
    """

    mean: Tensor
    scale: Tensor
    nu: float

    def __post_init__(self) -> None:
        """Check the parameters."""
        n = self.mean.shape[-1] if self.mean.ndim == 1 else -1
        if n < 1 or tuple(self.scale.shape) != (n, n):
            raise ValueError(
                f"mean (n,) and scale (n, n) must agree, got shapes {tuple(self.mean.shape)} and {tuple(self.scale.shape)}"
            )
        if not float(self.nu) > 0:
            raise ValueError(f"nu must be positive, got {self.nu!r}")
        if int(torch.linalg.cholesky_ex(self.scale).info):
            raise ValueError("scale must be positive definite")

    @property
    def q(self) -> float:
        """The index of the entropy that this law maximises."""
        return 1 + 2 / (self.nu + len(self.mean))

    def log_prob(self, x: Tensor) -> Tensor:
        """The log density at points x (..., n)."""
        root = torch.linalg.cholesky(self.scale)
        residual = torch.linalg.solve_triangular(root, (x - self.mean).unsqueeze(-1), upper=False).squeeze(-1)
        return t_log_density(residual.square().sum(-1), 2 * root.diagonal().log().sum(), len(self.mean), self.nu)

    def sample(self, count: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Draws (count, n): a Gaussian over the root of an independent chi-squared over its degrees."""
        source = generator_or_default(generator)
        root = torch.linalg.cholesky(self.scale)
        z = torch.randn(count, len(self.mean), generator=source, dtype=self.mean.dtype) @ root.T
        if math.isinf(self.nu):
            return self.mean + z
        half = torch.full((count, 1), self.nu / 2, dtype=torch.float64)
        chi = torch._standard_gamma(half, generator=source) / half  # pyright: ignore[reportPrivateImportUsage]
        return self.mean + z / chi.sqrt().to(z.dtype)


def t_log_density(distance: Tensor, log_determinant: Tensor, n: Tensor | int, nu: Tensor | float) -> Tensor:
    """The log density of a multivariate t from the squared Mahalanobis distance, log det of its scale, and its dimension n.

    nu = inf is the Gaussian, which large nu approach without cancellation: (nu + n)/2 log(1 + d/nu) through log1p, and the
    ratio of gamma functions by lgamma, whose error is nu times rounding: nu is taken as inf beyond 1e7.
    """
    degrees = torch.as_tensor(nu, dtype=distance.dtype)
    size = torch.as_tensor(n, dtype=distance.dtype)
    if float(degrees.detach()) > 1e7:
        return -0.5 * (size * math.log(2 * math.pi) + log_determinant + distance)
    constant = torch.lgamma((degrees + size) / 2) - torch.lgamma(degrees / 2) - size / 2 * torch.log(degrees * math.pi)
    return constant - 0.5 * log_determinant - (degrees + size) / 2 * torch.log1p(distance / degrees)


__all__ = ["QGaussian", "nu_of", "q_of", "t_log_density", "tsallis_entropy"]
