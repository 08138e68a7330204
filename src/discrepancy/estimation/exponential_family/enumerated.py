"""Exponential families on finitely many states, or on the nodes of a quadrature: everything is a sum."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from discrepancy._results import NumericalError
from discrepancy._validate import generator_or_default, whole_number
from discrepancy.estimation.exponential_family.cumulants import Cumulants, StateCumulants
from discrepancy.estimation.exponential_family.family import ExponentialFamily, require_rank

STATES = 1 << 20  # states that are enumerated at most
_STEPS = 200
_TOLERANCE = 1e-11  # of the spread of a statistic, by which a mean is met
_EXTREME = 15.0  # a range of log-probabilities beyond which the mean may sit on the boundary, and is asked by a linear programme


@dataclass(frozen=True)
class EnumeratedFamily(ExponentialFamily):
    """A family whose states are listed: `table` (s, p) of statistics, `log_base` (s,) of log base weights, `points` (s, d).

    Newton's method finds the parameter of a mean, in batches. Time O(s p^2) a step, memory O(s p^2) for cumulants.
    """

    @abstractmethod
    def _states(self) -> Tensor:
        """The states (s, d)."""

    @abstractmethod
    def _evaluated(self, x: Tensor) -> Tensor:
        """The statistics (n, p) of points (n, d) of the support."""

    @cached_property
    def points(self) -> Tensor:
        """The states (s, d), float64."""
        return self._states()

    @cached_property
    def table(self) -> Tensor:
        """The statistics of the states (s, p), float64."""
        return self._evaluated(self.points)

    @cached_property
    def log_base(self) -> Tensor:
        """Log base weights (s,); zero for counting."""
        return torch.zeros(len(self.table), dtype=torch.float64)

    def _log_weights(self, theta: Tensor) -> Tensor:
        return torch.log_softmax(theta @ self.table.mT + self.log_base, -1)

    def probabilities(self, theta: Any) -> Tensor:
        """The probabilities of the states (..., s)."""
        return self._log_weights(self._theta(theta)).exp()

    def log_partition(self, theta: Any) -> Tensor:
        """log sum over states of h exp(<theta, xi>)."""
        return torch.logsumexp(self._theta(theta) @ self.table.mT + self.log_base, -1)

    def mean(self, theta: Any) -> Tensor:
        """E_theta xi."""
        return self.probabilities(theta) @ self.table

    def cumulants(self, theta: Any, *, generator: torch.Generator | None = None) -> Cumulants:
        """Exact, from the states."""
        return StateCumulants(self.table, self.probabilities(theta))

    def draw(self, theta: Any, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """n states drawn independently."""
        whole_number(n, 1, "n")
        chosen = torch.multinomial(self.probabilities(theta), n, replacement=True, generator=generator_or_default(generator))
        return self.points[chosen]

    def natural(self, mean: Any, *, generator: torch.Generator | None = None) -> Tensor:
        """Newton's method on the concave <theta, mean> - Psi(theta), each problem of the batch with its own step length."""
        target = self._mean(mean)
        flat = target.reshape(-1, self.dimension)
        theta, found = newton(self, flat)
        if not bool(found.all()) or bool((self._range(theta) > _EXTREME).any()):
            for k in range(len(flat)):
                if not bool(found[k]) or float(self._range(theta[k])) > _EXTREME:
                    self._require_interior(flat[k])
                if not bool(found[k]):
                    raise NumericalError(f"Newton's method found no parameter of mean {flat[k].tolist()} in {_STEPS} steps")
        return theta.reshape(target.shape)

    def attainable(self, mean: Any) -> Tensor:
        """Which means (..., p) a member has (...): those inside the convex hull of the states' statistics."""
        target = self._mean(mean)
        flat = target.reshape(-1, self.dimension)
        theta, found = newton(self, flat)
        for k in (~found | (self._range(theta) > _EXTREME)).nonzero()[:, 0].tolist():
            found[k] = boundary_statistic(self.table, flat[k], self.names) is None
        return found.reshape(target.shape[:-1])

    def _range(self, theta: Tensor) -> Tensor:
        energy = theta @ self.table.mT
        return energy.amax(-1) - energy.amin(-1)

    def _require_interior(self, mean: Tensor) -> None:
        """Raise ValueError, naming a statistic, where no member has this mean: it is not inside the convex hull of the states."""
        name = boundary_statistic(self.table, mean, self.names)
        if name is not None:
            raise ValueError(
                f"no maximum-likelihood estimate exists: the mean {mean.tolist()} lies on or beyond the boundary of the means "
                f"that the family can have, in the direction of the statistic {name} (an empty cell, or a value never seen); "
                "drop that statistic, merge levels, or add data"
            )


def newton(family: EnumeratedFamily, target: Tensor) -> tuple[Tensor, Tensor]:
    """Parameters (b, p) of the means (b, p), and which of them are met; damped so that the likelihood rises."""
    table = family.table
    spread = table.amax(0) - table.amin(0)
    theta = torch.zeros_like(target)
    size = torch.full(target.shape[:1], 1.0, dtype=target.dtype)
    with torch.no_grad():
        weights = family._log_weights(theta).exp()
        require_rank(StateCumulants(table, weights[0]).second, family.names)
        value = (theta * target).sum(-1) - family.log_partition(theta)
        met = torch.zeros(len(target), dtype=torch.bool)
        for _ in range(_STEPS):
            mean = weights @ table
            gap = target - mean
            met = ((gap.abs() / spread).amax(-1) <= _TOLERANCE) | met
            if bool(met.all()):
                break
            second = torch.einsum("bs,sp,sq->bpq", weights, table, table) - mean[:, :, None] * mean[:, None, :]
            # Near the boundary the Fisher matrix degenerates: a ridge keeps the step finite and fades where it is regular.
            ridge = 1e-14 * second.diagonal(dim1=-2, dim2=-1).amax(-1)
            step = torch.linalg.solve(second + torch.diag_embed(ridge[:, None].expand_as(gap)), gap)
            slope = (step * gap).sum(-1)
            size = torch.where(met, torch.zeros_like(size), torch.ones_like(size))
            for _ in range(40):
                moved = theta + size[:, None] * step
                risen = (moved * target).sum(-1) - family.log_partition(moved)
                short = ~(risen >= value + 0.25 * size * slope - 1e-13 * (1 + value.abs())) & (size > 0)
                if not bool(short.any()):
                    break
                size = torch.where(short, size / 2, size)
            theta = theta + size[:, None] * step
            weights = family._log_weights(theta).exp()
            value = (theta * target).sum(-1) - family.log_partition(theta)
    return theta, met


def boundary_statistic(table: Tensor, mean: Tensor, names: Sequence[str]) -> str | None:
    """The statistic that matters most in a direction v with <v, xi> <= <v, mean> for all states, or None if there is none.

    Such a v exists exactly where the mean is not in the interior of the hull: it maximises -sum <v, xi - mean> over the cone.
    """
    from scipy.optimize import linprog

    scale = (table.amax(0) - table.amin(0)).clamp_min(1e-300)
    away = ((table - mean) / scale).numpy()
    found = linprog(away.sum(0), A_ub=away, b_ub=[1e-12] * len(away), bounds=[(-1, 1)] * len(names), method="highs")
    if not found.success or found.fun > -1e-7:
        return None
    return names[int(abs(found.x).argmax())]


__all__ = ["STATES", "EnumeratedFamily", "boundary_statistic"]
