"""Exponential families with a log-partition in closed form."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from discrepancy._validate import generator_or_default, whole_number
from discrepancy.estimation.exponential_family.cumulants import Cumulants, PartitionCumulants
from discrepancy.estimation.exponential_family.family import ExponentialFamily, rows


class ClosedFamily(ExponentialFamily):
    """A family whose Psi is a differentiable function: means and cumulants are its derivatives."""

    @abstractmethod
    def _partition(self, theta: Tensor) -> Tensor:
        """Psi of parameters (..., p) that were checked."""

    def log_partition(self, theta: Any) -> Tensor:
        """Psi(theta) (...), differentiable."""
        return self._partition(self._theta(theta))

    def mean(self, theta: Any) -> Tensor:
        """grad Psi, by automatic differentiation."""
        at = self._theta(theta)
        with torch.enable_grad():
            leaf = at.detach().requires_grad_()
            (found,) = torch.autograd.grad(self._partition(leaf).sum(), leaf)
        return found

    def cumulants(self, theta: Any, *, generator: torch.Generator | None = None) -> Cumulants:
        """The derivatives of Psi."""
        at = self._theta(theta)
        if at.ndim != 1:
            raise ValueError(f"cumulants are taken at one theta ({self.dimension},), got shape {tuple(at.shape)}")
        return PartitionCumulants(self._partition, at)


@dataclass(frozen=True)
class Poisson(ClosedFamily):
    """Counts with rate lambda = e^theta: xi(x) = x, Psi = e^theta, base 1 / x!."""

    @property
    def names(self) -> tuple[str, ...]:
        """The count."""
        return ("count",)

    def statistic(self, x: Any) -> Tensor:
        """The counts (n, 1)."""
        found = rows(x, 1)
        if not bool(((found >= 0) & (found == found.round())).all()):
            raise ValueError("x must hold counts 0, 1, 2, ...")
        return found

    def natural(self, mean: Any, *, generator: torch.Generator | None = None) -> Tensor:
        """log of the mean; none exists for a sample of zeros only."""
        found = self._mean(mean)
        if not bool((found > 0).all()):
            raise ValueError(
                f"no maximum-likelihood estimate exists: the mean of the statistic count is {float(found.min()):g}, and all "
                "members have a positive one (a sample of zeros has probability exp(-n lambda))"
            )
        return found.log()

    def _partition(self, theta: Tensor) -> Tensor:
        """e^theta."""
        return theta[..., 0].exp()

    def draw(self, theta: Any, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """n counts."""
        rate = self._theta(theta).exp().expand(whole_number(n, 1, "n"), 1)
        return torch.poisson(rate, generator=generator_or_default(generator))


@dataclass(frozen=True)
class Exponential(ClosedFamily):
    """Waiting times of mean -1 / theta, theta < 0: xi(x) = x, Psi = -log(-theta)."""

    @property
    def names(self) -> tuple[str, ...]:
        """The time."""
        return ("time",)

    def statistic(self, x: Any) -> Tensor:
        """The times (n, 1)."""
        found = rows(x, 1)
        if not bool((found >= 0).all()):
            raise ValueError(f"x must hold times of at least 0, got {float(found.min()):g}")
        return found

    def natural(self, mean: Any, *, generator: torch.Generator | None = None) -> Tensor:
        """-1 / mean."""
        found = self._mean(mean)
        if not bool((found > 0).all()):
            raise ValueError(f"no maximum-likelihood estimate exists: the mean of the statistic time is {float(found.min()):g}")
        return -1 / found

    def _partition(self, theta: Tensor) -> Tensor:
        """-log(-theta), +inf for theta >= 0."""
        at = theta[..., 0]
        inside = at < 0
        return torch.where(inside, -torch.log(torch.where(inside, -at, torch.ones_like(at))), torch.full_like(at, torch.inf))

    def draw(self, theta: Any, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """n times."""
        u = torch.rand(whole_number(n, 1, "n"), 1, generator=generator_or_default(generator), dtype=torch.float64)
        return torch.log1p(-u) / self._theta(theta)


@dataclass(frozen=True)
class Gaussian(ClosedFamily):
    """Normal laws in R^d with free mean and covariance: xi holds x_i and x_i x_j for i <= j, p = d + d (d + 1) / 2."""

    d: int = 1

    def __post_init__(self) -> None:
        """Raise ValueError unless d is at least 1."""
        whole_number(self.d, 1, "d")

    @cached_property
    def _pairs(self) -> tuple[Tensor, Tensor]:
        i, j = torch.triu_indices(self.d, self.d)
        return i, j

    @property
    def names(self) -> tuple[str, ...]:
        """x0, ..., x0^2, x0 x1, ..."""
        i, j = (t.tolist() for t in self._pairs)
        return (
            *(f"x{k}" for k in range(self.d)),
            *(f"x{a}^2" if a == b else f"x{a} x{b}" for a, b in zip(i, j, strict=True)),
        )

    def statistic(self, x: Any) -> Tensor:
        """Coordinates and their products."""
        found = rows(x, self.d)
        i, j = self._pairs
        return torch.cat([found, found[:, i] * found[:, j]], -1)

    def moments(self, theta: Any) -> tuple[Tensor, Tensor]:
        """The mean (..., d) and covariance (..., d, d) of the member theta."""
        at = self._theta(theta)
        precision = self._precision(at)
        covariance = torch.linalg.inv(precision)
        return (covariance @ at[..., : self.d, None])[..., 0], covariance

    def _precision(self, theta: Tensor) -> Tensor:
        """-2 times the quadratic form of the product terms."""
        i, j = self._pairs
        place = torch.zeros(len(i), self.d, self.d, dtype=theta.dtype, device=theta.device)
        place[torch.arange(len(i)), i, j] -= 1.0
        place[torch.arange(len(i)), j, i] -= 1.0
        return torch.einsum("...k,kij->...ij", theta[..., self.d :], place)

    def natural(self, mean: Any, *, generator: torch.Generator | None = None) -> Tensor:
        """From the covariance of the means: Lambda = S^-1, theta = (Lambda mu, -Lambda / 2, with products of pairs counted
        twice)."""
        found = self._mean(mean)
        i, j = self._pairs
        centre, second = found[..., : self.d], torch.zeros(*found.shape[:-1], self.d, self.d, dtype=found.dtype)
        second[..., i, j] = found[..., self.d :]
        second[..., j, i] = found[..., self.d :]
        covariance = second - centre[..., :, None] * centre[..., None, :]
        scale = covariance.diagonal(dim1=-2, dim2=-1)
        if not bool((scale > 1e-14 * second.diagonal(dim1=-2, dim2=-1).abs()).all()):
            worst = int((scale.reshape(-1, self.d).amin(0)).argmin())
            raise ValueError(f"no maximum-likelihood estimate exists: the statistic x{worst}^2 shows a variance of zero")
        ratio = covariance / (scale[..., :, None] * scale[..., None, :]).sqrt()
        values, vectors = torch.linalg.eigh(ratio)
        if not bool((values[..., 0] > 1e-10).all()):
            flat = values.reshape(-1, self.d)
            at = int(flat[:, 0].argmin())
            worst = int(vectors.reshape(-1, self.d, self.d)[at, :, 0].abs().argmax())
            raise ValueError(
                f"no maximum-likelihood estimate exists: the covariance has rank {int((flat[at] > 1e-10).sum())} of {self.d}, "
                f"singular along the statistic x{worst}^2"
            )
        precision = torch.linalg.inv(covariance)
        double = torch.where(i == j, 1.0, 2.0).to(found.dtype)
        return torch.cat([(precision @ centre[..., None])[..., 0], -precision[..., i, j] * double / 2], -1)

    def _partition(self, theta: Tensor) -> Tensor:
        """(<theta_1, Lambda^-1 theta_1> - log det Lambda + d log 2 pi) / 2."""
        root = torch.linalg.cholesky(self._precision(theta))
        solved = torch.linalg.solve_triangular(root, theta[..., : self.d, None], upper=False)[..., 0]
        log_determinant = 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return 0.5 * (solved.square().sum(-1) - log_determinant + self.d * math.log(2 * math.pi))

    def draw(self, theta: Any, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """n points."""
        centre, covariance = self.moments(theta)
        noise = torch.randn(whole_number(n, 1, "n"), self.d, generator=generator_or_default(generator), dtype=torch.float64)
        return centre + noise @ torch.linalg.cholesky(covariance).mT


__all__ = ["ClosedFamily", "Exponential", "Gaussian", "Poisson"]
