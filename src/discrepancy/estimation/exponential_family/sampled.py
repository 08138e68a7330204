"""Exponential families that are known by a sampler only: no normalising constant anywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from discrepancy._results import NumericalError
from discrepancy._validate import generator_or_default, whole_number
from discrepancy.estimation.exponential_family.cumulants import Cumulants, DrawCumulants
from discrepancy.estimation.exponential_family.described import checked_start, checked_statistic, names_of
from discrepancy.estimation.exponential_family.family import ExponentialFamily, require_rank

_ROUNDS = 60
_SHARE = 1 / 3  # of the draws that must stay effective under the new parameter, for their weights to be trusted


@dataclass(frozen=True)
class SampledFamily(ExponentialFamily):
    """A family of your own without its normaliser: `function` maps points (n, d) to statistics (n, p), `sampler(theta, n,
    generator)` draws n points of the member theta (exactly, or by a Markov chain that has forgotten its start).

    Fits maximise the likelihood ratio to the current parameter, <theta - theta_k, mean> - log E_k exp<theta - theta_k, xi>, whose
    expectation is a mean over `draws` points of the member theta_k; steps stop where a third of the draws is effective, and draws
    are renewed. The fit has a Monte Carlo error of about a share sqrt(n / draws) of its sampling error. Source: Geyer and
    Thompson (1992).
    """

    function: Callable[[Tensor], Tensor]
    sampler: Callable[[Tensor, int, torch.Generator], Tensor]
    start: tuple[float, ...]
    draws: int = 20_000
    labels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Raise TypeError for what cannot be called, ValueError for labels or a number of draws that do not fit."""
        start = checked_start(self.start, self.labels, function=self.function, sampler=self.sampler)
        object.__setattr__(self, "start", start)
        whole_number(self.draws, 2 * len(self.start) + 4, "draws")

    @property
    def names(self) -> tuple[str, ...]:
        """The labels, or xi0, xi1, ..."""
        return names_of(self.start, self.labels)

    def statistic(self, x: Any) -> Tensor:
        """function(x), checked."""
        return checked_statistic(self.function, x, self.dimension)

    def log_partition(self, theta: Any) -> Tensor:
        """TypeError: that is what this family does without."""
        raise TypeError("a SampledFamily has no log-partition: use CustomFamily where one is known")

    def draw(self, theta: Any, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """The sampler's points."""
        return self.sampler(self._theta(theta), whole_number(n, 1, "n"), generator_or_default(generator))

    def _statistics(self, theta: Tensor, source: torch.Generator) -> Tensor:
        return self.statistic(self.sampler(theta, self.draws, source))

    def mean(self, theta: Any, *, generator: torch.Generator | None = None) -> Tensor:
        """The mean over draws, one parameter (p,); Monte Carlo error O(1 / sqrt(draws))."""
        return self._statistics(self._theta(theta), generator_or_default(generator)).mean(0)

    def cumulants(self, theta: Any, *, generator: torch.Generator | None = None) -> Cumulants:
        """From fresh draws."""
        return DrawCumulants(self._statistics(self._theta(theta), generator_or_default(generator)))

    def natural(self, mean: Any, *, generator: torch.Generator | None = None) -> Tensor:
        """Monte Carlo maximum likelihood. Raises ValueError, naming a statistic, where draws never reach the mean."""
        target = self._mean(mean)
        if target.ndim > 1:
            found = [self.natural(row, generator=generator) for row in target.reshape(-1, self.dimension)]
            return torch.stack(found).reshape(target.shape)
        source = generator_or_default(generator)
        theta = torch.tensor(self.start, dtype=torch.float64)
        away = torch.zeros_like(target)
        for _ in range(_ROUNDS):
            xi = self._statistics(theta, source)
            second = torch.cov(xi.mT).reshape(self.dimension, self.dimension)
            require_rank(second, self.names)
            away = (target - xi.mean(0)).abs() / second.diagonal().sqrt()
            moved, reached = _within_reach(xi, target)
            theta = theta + moved
            if reached:
                return theta
        worst = self.names[int(away.argmax())]
        raise NumericalError(
            f"{_ROUNDS} rounds of draws did not reach the mean, farthest in the statistic {worst}: it may lie on the "
            "boundary, where no maximum-likelihood estimate exists, or the sampler may not follow theta"
        )


def _within_reach(xi: Tensor, target: Tensor) -> tuple[Tensor, bool]:
    """The maximiser of the likelihood ratio, from draws xi (n, p), as far as they stay effective; and whether it was reached."""
    shift = torch.zeros_like(target)
    n = len(xi)
    for _ in range(50):
        weights = torch.softmax(xi @ shift, 0)
        centre = weights @ xi
        u = xi - centre
        second = u.mT @ (u * weights[:, None])
        gap = target - centre
        if float((gap.abs() / second.diagonal().sqrt()).max()) < 1e-9:
            return shift, True
        step, singular = torch.linalg.solve_ex(second, gap)
        if bool(singular):  # all weight on one draw
            return shift, False
        size = 1.0
        while size > 1e-6:
            effective = 1 / torch.softmax(xi @ (shift + size * step), 0).square().sum()
            if float(effective) >= _SHARE * n:
                break
            size /= 2
        shift = shift + size * step
        if size < 1.0:
            return shift, False
    return shift, False


__all__ = ["SampledFamily"]
