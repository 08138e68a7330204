"""What an exponential family is: p(x; theta) = h(x) exp(<theta, xi(x)> - Psi(theta)), its means, fits and divergences."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from discrepancy._results import Result
from discrepancy._validate import as_tensor, require_finite, sample
from discrepancy.estimation.exponential_family.cumulants import Cumulants

DOUBLE = torch.empty(0, dtype=torch.float64)  # what lists of numbers become
_RANK = 1e-10  # an eigenvalue of the model's correlation matrix below this is zero


class ExponentialFamily(ABC):
    """A family of densities exp(<theta, xi(x)> - Psi(theta)) with respect to a base measure; theta and xi(x) are in R^p.

    A subclass is a frozen dataclass that says what the statistic is and how to get from a mean E xi to the theta that has it.
    Everything is computed in float64. `names` are the statistics as messages call them.
    """

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The names of the p statistics."""

    @property
    def dimension(self) -> int:
        """p."""
        return len(self.names)

    @abstractmethod
    def statistic(self, x: Any) -> Tensor:
        """xi(x) (n, p) for a sample x (n, d); ValueError for points outside the family's support."""

    @abstractmethod
    def natural(self, mean: Any, *, generator: torch.Generator | None = None) -> Tensor:
        """The theta (..., p) with E_theta xi = mean (..., p).

        It is the information projection of every law with this mean: the member nearest in KL(law || member). Raises ValueError,
        naming a statistic, where the mean lies on the boundary of those that the family can have or outside.
        """

    @abstractmethod
    def mean(self, theta: Any) -> Tensor:
        """E_theta xi (..., p), the gradient of Psi."""

    @abstractmethod
    def cumulants(self, theta: Any, *, generator: torch.Generator | None = None) -> Cumulants:
        """The cumulants of xi under the member theta (p,)."""

    @abstractmethod
    def log_partition(self, theta: Any) -> Tensor:
        """Psi(theta) (...), differentiable; TypeError where the family knows none."""

    @abstractmethod
    def draw(self, theta: Any, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """n points (n, d) drawn from the member theta (p,)."""

    def fit(self, x: Any, *, generator: torch.Generator | None = None) -> Fit:
        """The maximum-likelihood member for a sample x (n, d): the one whose mean is the sample's.

        Raises ValueError where no maximum exists (naming the statistic) and where statistics are collinear (with the rank).
        """
        xi = self.statistic(x).double()
        if len(xi) < 2:
            raise ValueError(f"x has {len(xi)} row(s): a fit with its covariance needs at least two")
        centre = xi.mean(0)
        theta = self.natural(centre, generator=generator)
        return Fit(self, theta, centre, len(xi), xi - centre)

    def _theta(self, theta: Any) -> Tensor:
        """A parameter (..., p) in float64."""
        found = as_tensor(theta, "theta", like=DOUBLE).double()
        require_finite(found, "theta")
        if found.ndim == 0 or found.shape[-1] != self.dimension:
            raise ValueError(f"theta must end in {self.dimension} entries, one for each statistic, got {tuple(found.shape)}")
        return found

    def _mean(self, mean: Any) -> Tensor:
        found = as_tensor(mean, "mean", like=DOUBLE).double()
        require_finite(found, "mean")
        if found.ndim == 0 or found.shape[-1] != self.dimension:
            raise ValueError(f"mean must end in {self.dimension} entries, one for each statistic, got {tuple(found.shape)}")
        return found


@dataclass(frozen=True, repr=False)
class Fit(Result):
    """A fitted member: the `family`, `theta` (p,), the sample's mean statistic `mean` (p,), the sample size `n`.

    `centred` (n, p) are the sample's statistics about their mean.
    """

    family: ExponentialFamily
    theta: Tensor
    mean: Tensor
    n: int
    centred: Tensor = field(repr=False, compare=False)

    @property
    def covariance(self) -> Tensor:
        """The covariance of the statistics under the true law, unbiased, from the sample (p, p)."""
        return self.centred.mT @ self.centred / (self.n - 1)

    def fisher(self, *, generator: torch.Generator | None = None) -> Tensor:
        """The model's Fisher matrix Psi'' at theta, the covariance of the statistics under the model (p, p)."""
        return self.family.cumulants(self.theta, generator=generator).second


def information_projection(family: ExponentialFamily, target_mean: Any, *, generator: torch.Generator | None = None) -> Tensor:
    """The theta of the member nearest, in KL(law || member), to every law with mean statistic `target_mean` (..., p)."""
    return family.natural(target_mean, generator=generator)


def kl_between(family: ExponentialFamily, theta: Any, other: Any) -> Tensor:
    """KL(g_theta || g_other) = Psi(other) - Psi(theta) - <other - theta, grad Psi(theta)>, a Bregman divergence; (...)."""
    theta, other = family._theta(theta), family._theta(other)
    value = family.log_partition(other) - family.log_partition(theta) - ((other - theta) * family.mean(theta)).sum(-1)
    return value.clamp_min(0.0)


def require_rank(second: Tensor, names: tuple[str, ...]) -> None:
    """Raise ValueError, with the rank, where the covariance of the statistics under the model is singular."""
    scale = second.diagonal().clamp_min(0).sqrt()
    flat = [name for name, size in zip(names, scale.tolist(), strict=True) if not size > 0]
    if flat:
        raise ValueError(f"the statistic {flat[0]} is constant under the model: leave it out")
    eigenvalues = torch.linalg.eigvalsh(second / (scale[:, None] * scale))
    rank = int((eigenvalues > _RANK * float(eigenvalues.max())).sum())
    if rank < len(names):
        raise ValueError(
            f"the {len(names)} statistics are collinear: their covariance under the model has rank {rank}; "
            f"leave {len(names) - rank} out"
        )


def rows(x: Any, d: int, name: str = "x") -> Tensor:
    """A sample of width d in float64."""
    found = sample(x, name, like=DOUBLE).double()
    if found.ndim != 2:
        raise ValueError(f"{name} must be one sample (n, {d}), got shape {tuple(found.shape)}")
    if found.shape[-1] != d:
        raise ValueError(f"{name} must have {d} feature(s), got {found.shape[-1]}")
    return found


__all__ = ["ExponentialFamily", "Fit", "information_projection", "kl_between", "require_rank", "rows"]
