"""The volume of a neighbourhood, measured by a reference law: what makes nearest-neighbour densities nearly unbiased."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._validate import positive

_ROWS = 4096  # queries handled at a time, so that memory stays at rows x nodes


@dataclass(frozen=True)
class GaussianReference:
    """Corrects ball volumes for the slope and curvature of a density, by those of the Gaussian law fitted to its sample.

    A nearest-neighbour density is a count over the volume of a ball, as if the density were constant there. With a reference
    density g the volume of the ball B around x becomes the integral over B of g(z)/g(x) dz, which is exact where p/g is constant
    in the ball instead. For Gaussian samples the estimate then has no smoothing bias at all. For a law that is far from Gaussian
    the correction could do harm, so that it is weighed by the negentropy J = KL(P || Gaussian), estimated in passing: in full
    up to `trusted` nats, not at all from `distrusted` nats on, linearly in between.

    Deviation: Lombardi and Pant fit the Gaussian to the neighbours of each point. On few points the noise of such a local
    fit enters the volume exponentially; the global fit has no such noise and needs no second parameter.
    Raises ValueError unless 0 < trusted < distrusted.
    """

    trusted: float = 0.1
    distrusted: float = 0.3

    references = ("lombardi-pant-2016",)

    def __post_init__(self) -> None:
        positive(self.trusted, "trusted")
        if not self.trusted < positive(self.distrusted, "distrusted"):
            raise ValueError(f"trusted must be below distrusted, got {self.trusted!r} and {self.distrusted!r}")

    def weight(self, negentropy: float) -> float:
        """The weight of the correction, in [0, 1], at an estimated negentropy in nats."""
        return min(1.0, max(0.0, (self.distrusted - negentropy) / (self.distrusted - self.trusted)))


@dataclass(frozen=True)
class FittedGaussian:
    """A Gaussian law fitted to a sample (n, d): `mean` (d,), `covariance` and `precision` (d, d)."""

    sample: Tensor
    mean: Tensor
    covariance: Tensor
    precision: Tensor

    @staticmethod
    def fit(sample: Tensor) -> FittedGaussian:
        """The Gaussian of the sample's mean and covariance; needs more points than dimensions."""
        mean = sample.mean(0)
        centred = sample - mean
        covariance = centred.T @ centred / (len(sample) - 1)
        return FittedGaussian(sample, mean, covariance, torch.linalg.inv(covariance))

    def mean_log_density(self) -> float:
        """The average of log g over the sample."""
        n, d = self.sample.shape
        return -0.5 * (d * math.log(2 * math.pi) + float(torch.linalg.slogdet(self.covariance).logabsdet) + d * (n - 1) / n)

    def log_volume_ratio(self, x: Tensor, radius: Tensor, nodes: Tensor) -> Tensor:
        """log of the mean of g(z)/g(x) over the ball around each row of x (n, d), radius (n,), by the quadrature `nodes`."""
        return _log_volume_ratio(x, radius, self.mean, self.precision, nodes)

    def influence(self, x: Tensor, radius: Tensor, nodes: Tensor, multiplier: Tensor) -> Tensor:
        """How each sample point, through mean and covariance, moves mean(multiplier * log_volume_ratio): (n_sample,)."""
        mean, precision = self.mean.clone().requires_grad_(), self.precision.clone().requires_grad_()
        with torch.enable_grad():
            total = x.new_zeros(())
            for rows in range(0, len(x), _ROWS):
                part = slice(rows, rows + _ROWS)
                total = total + (multiplier[part] * _log_volume_ratio(x[part], radius[part], mean, precision, nodes)).sum()
            by_mean, by_precision = torch.autograd.grad(total / len(x), (mean, precision))
        centred = self.sample - self.mean
        # d precision = -precision (d covariance) precision, and the influence on the covariance is c c' less its mean.
        by_covariance = -self.precision @ by_precision @ self.precision
        curved = ((centred @ by_covariance) * centred).sum(1)
        return centred @ by_mean + curved - curved.mean()


def _log_volume_ratio(x: Tensor, radius: Tensor, mean: Tensor, precision: Tensor, nodes: Tensor) -> Tensor:
    parts = []
    half = ((nodes @ precision) * nodes).sum(1) / 2
    for rows in range(0, len(x), _ROWS):
        r = radius[rows : rows + _ROWS, None]
        slope = (mean - x[rows : rows + _ROWS]) @ precision
        parts.append(torch.logsumexp(r * (slope @ nodes.T) - r * r * half, 1) - math.log(len(nodes)))
    return torch.cat(parts)


def ball_nodes(d: int, like: Tensor) -> Tensor:
    """Quadrature nodes (J, d) of equal weight in the unit ball: quasi-random, antithetic, with the ball's exact second moment.

    Odd moments vanish and second moments are exact, so that the error is of fourth order in the radius. Always the same nodes.
    """
    half = max(256, 2 ** math.ceil(math.log2(4 * d + 1)))
    u = torch.quasirandom.SobolEngine(d + 1, scramble=True, seed=0).draw(half, dtype=torch.float64).clamp(1e-9, 1 - 1e-9)
    direction = torch.special.ndtri(u[:, :d])
    z = direction / direction.norm(dim=1, keepdim=True) * u[:, d:] ** (1 / d)
    z = torch.cat([z, -z])
    root = torch.linalg.cholesky(z.T @ z / len(z))
    z = torch.linalg.solve_triangular(root, z.T, upper=False).T / math.sqrt(d + 2)
    return z.to(like)


__all__ = ["FittedGaussian", "GaussianReference", "ball_nodes"]
