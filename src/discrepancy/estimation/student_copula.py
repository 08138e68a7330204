"""The copula of a multivariate Student law between two blocks of coordinates: fit, mutual information, draws."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy.estimation.canonical import CanonicalGaussian

_ROUNDS = 6  # of reweighting; further ones move the scatter matrix by less than its sampling error
_ROWS_A_COLUMN = 4
_FEWEST, _MOST = 0.5, 64.0  # degrees of freedom between which the Student copula is told from the Gaussian


@dataclass(frozen=True)
class StudentCopula:
    """The law of (X, Y) whose columns, each mapped increasingly, are jointly Student with `degrees` nu and correlations R.

    nu = inf is the Gaussian copula. R has the shrunken canonical correlations of `CanonicalGaussian`. With d_x and d_y columns
        I(X; Y) = -1/2 sum log(1 - rho_i^2) + h(nu) + h(nu + d_x + d_y) - h(nu + d_x) - h(nu + d_y),
        h(v) = log Gamma(v / 2) - (v / 2) psi(v / 2).
    The part without rho is what a common scale, such as a volatility, tells of either side; it is positive where R is the
    identity. Sources: Demarta and McNeil (2005); Arellano-Valle, Contreras-Reyes and Genton (2013) for the information.
    """

    degrees: float
    correlations: Tensor
    split: int
    gaussian: float  # the sum over rho

    @staticmethod
    def fit(x: Tensor, y: Tensor) -> StudentCopula:
        """From paired rows x (n, d_x), y (n, d_y), by ranks: R by reweighted moments at each nu, nu by the copula's likelihood.

        A finite nu has to earn log(n) / 2 nats over the Gaussian, and with fewer than 4 (d_x + d_y) rows is not tried: R is then
        so uncertain that tails cannot be told from its errors. About twelve times 6 n (d_x + d_y)^2 operations.
        """
        from scipy.optimize import minimize_scalar

        joint = torch.cat([x, y], 1).double()
        ranks = _ranks(joint)
        split, n = x.shape[1], len(joint)
        plain = _Fit.at(math.inf, ranks, split)
        if n < _ROWS_A_COLUMN * joint.shape[1]:
            return StudentCopula(math.inf, plain.correlations, split, plain.gaussian)
        found: list[_Fit] = []

        def loss(log_degrees: float) -> float:
            found.append(_Fit.at(math.exp(log_degrees), ranks, split))
            return -found[-1].likelihood

        bounds = math.log(_FEWEST), math.log(_MOST)
        minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 0.05, "maxiter": 12})
        student = max(found, key=lambda f: f.likelihood)
        chosen = student if n * (student.likelihood - plain.likelihood) > math.log(n) / 2 else plain
        return StudentCopula(chosen.degrees, chosen.correlations, split, chosen.gaussian)

    @property
    def mutual_information(self) -> float:
        """I(X; Y) in nats."""
        if math.isinf(self.degrees):
            return self.gaussian
        d_x, d_y = self.split, len(self.correlations) - self.split
        v = torch.tensor([0.0, d_x + d_y, d_x, d_y], dtype=torch.float64) + self.degrees
        h = torch.lgamma(v / 2) - v / 2 * torch.digamma(v / 2)
        return self.gaussian + float(h[0] + h[1] - h[2] - h[3])

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """n paired rows x (n, d_x), y (n, d_y) with Student margins, float64."""
        factor = torch.linalg.cholesky(self.correlations)
        z = torch.randn(n, len(factor), generator=generator, dtype=torch.float64) @ factor.mT
        if math.isfinite(self.degrees):
            shape = torch.full((n, 1), self.degrees / 2, dtype=torch.float64)
            # torch.distributions takes no generator, torch._standard_gamma does.
            z = z * (shape / torch._standard_gamma(shape, generator=generator)).sqrt()  # pyright: ignore[reportPrivateImportUsage]
        return z[:, : self.split], z[:, self.split :]


@dataclass(frozen=True)
class _Fit:
    """One nu: its scatter as correlations, the canonical part of the information, and the mean log copula density."""

    degrees: float
    correlations: Tensor
    gaussian: float
    likelihood: float

    @staticmethod
    def at(degrees: float, ranks: Tensor, split: int) -> _Fit:
        n, width = ranks.shape
        level = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        # Mid-ranks of equal values lie half-way between two levels.
        scores, log_margin = _quantiles(degrees, torch.stack([level, level + 0.5 / n], 1).reshape(-1)[: 2 * n - 1])
        place = (2 * ranks).long()
        z = scores[place]
        correlations, gaussian, square = _scatter(z, split)
        for _ in range(_ROUNDS if math.isfinite(degrees) else 0):
            weight = (degrees + width) / (degrees + square)
            correlations, gaussian, square = _scatter(z, split, weight)
        half_log_det = float(torch.linalg.slogdet(correlations).logabsdet) / 2
        if math.isinf(degrees):
            log_joint = -square / 2 - half_log_det - width / 2 * math.log(2 * math.pi)
        else:
            constant = math.lgamma((degrees + width) / 2) - math.lgamma(degrees / 2) - width / 2 * math.log(degrees * math.pi)
            log_joint = constant - half_log_det - (degrees + width) / 2 * torch.log1p(square / degrees)
        likelihood = float((log_joint - log_margin[place].sum(1)).mean())
        return _Fit(degrees, correlations, gaussian, likelihood)


def _scatter(z: Tensor, split: int, weight: Tensor | None = None) -> tuple[Tensor, float, Tensor]:
    """Correlations of weighted rows, the information of their canonical part, and the squared lengths of z under them."""
    scaled = z if weight is None else z * weight.sqrt()[:, None]
    law = CanonicalGaussian.fit(scaled[:, :split], scaled[:, split:])
    deviation = law.covariance.diagonal().sqrt()
    correlations = law.covariance / deviation / deviation[:, None]
    return correlations, law.mutual_information, (torch.linalg.solve(correlations, z.mT).mT * z).sum(1)


def _ranks(joint: Tensor) -> Tensor:
    """Mid-ranks from 0 to n - 1, a column at a time."""
    columns = []
    for column in joint.unbind(1):
        _, inverse, counts = torch.unique(column, return_inverse=True, return_counts=True)
        columns.append((counts.cumsum(0) - (counts.double() + 1) / 2)[inverse])
    return torch.stack(columns, 1)


def _quantiles(degrees: float, level: Tensor) -> tuple[Tensor, Tensor]:
    """The quantiles of the univariate law, and its log density there."""
    if math.isinf(degrees):
        z = torch.special.ndtri(level)
        return z, -z.square() / 2 - math.log(2 * math.pi) / 2
    from scipy.special import stdtrit

    z = torch.from_numpy(stdtrit(degrees, level.numpy()))
    constant = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - math.log(degrees * math.pi) / 2
    return z, constant - (degrees + 1) / 2 * torch.log1p(z.square() / degrees)


__all__ = ["StudentCopula"]
