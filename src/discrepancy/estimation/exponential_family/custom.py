"""An exponential family of your own, with a log-partition."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from discrepancy._results import NumericalError
from discrepancy._validate import generator_or_default, whole_number
from discrepancy.estimation.exponential_family.closed import ClosedFamily
from discrepancy.estimation.exponential_family.described import checked_start, checked_statistic, names_of
from discrepancy.estimation.exponential_family.family import require_rank

_STEPS = 200
_TOLERANCE = 1e-11


@dataclass(frozen=True)
class CustomFamily(ClosedFamily):
    """A family of your own: `function` maps a sample (n, d) to statistics (n, p), `partition` theta (p,) to Psi(theta).

    partition must be convex and differentiable by `torch.func`, +inf or NaN outside its domain, `start` a point inside.
    `sampler(theta, n, generator)` is needed for draws only. Where only a sampler is known: `SampledFamily`.
    """

    function: Callable[[Tensor], Tensor]
    partition: Callable[[Tensor], Tensor]
    start: tuple[float, ...]
    sampler: Callable[[Tensor, int, torch.Generator], Tensor] | None = None
    labels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Raise TypeError for what cannot be called, ValueError for a start outside the domain or labels that do not fit."""
        start = checked_start(self.start, self.labels, function=self.function, partition=self.partition)
        object.__setattr__(self, "start", start)
        if not math.isfinite(float(self.log_partition(torch.tensor(self.start, dtype=torch.float64)))):
            raise ValueError(f"start must lie inside the domain of partition, got {self.start}, where it is not finite")

    @property
    def names(self) -> tuple[str, ...]:
        """The labels, or xi0, xi1, ..."""
        return names_of(self.start, self.labels)

    def statistic(self, x: Any) -> Tensor:
        """function(x), checked."""
        return checked_statistic(self.function, x, self.dimension)

    def _partition(self, theta: Tensor) -> Tensor:
        """partition, row by row."""
        if theta.ndim == 1:
            return self.partition(theta)
        flat = torch.stack([self.partition(row) for row in theta.reshape(-1, self.dimension)])
        return flat.reshape(theta.shape[:-1])

    def natural(self, mean: Any, *, generator: torch.Generator | None = None) -> Tensor:
        """Newton's method with backtracking from `start`; NumericalError where it meets no parameter of this mean."""
        target = self._mean(mean)
        found = [self._newton(row) for row in target.reshape(-1, self.dimension)]
        return torch.stack(found).reshape(target.shape)

    def _newton(self, target: Tensor) -> Tensor:
        theta, gap, spread = torch.tensor(self.start, dtype=torch.float64), target, torch.ones_like(target)
        gradient, hessian = torch.func.grad(self.partition), torch.func.hessian(self.partition)
        require_rank(hessian(theta), self.names)
        value = theta @ target - self.partition(theta)
        for _ in range(_STEPS):
            gap, second = target - gradient(theta), hessian(theta)
            spread = second.diagonal().sqrt()
            if float((gap.abs() / spread).max()) <= _TOLERANCE * (1 + float((target.abs() / spread).max())):
                return theta
            step, singular = torch.linalg.solve_ex(second, gap)
            if bool(singular) or not bool(torch.isfinite(step).all()):  # far out, where the member is a point mass
                break
            size, slope = 1.0, float(step @ gap)
            while size > 1e-12:
                moved = theta + size * step
                risen = moved @ target - self.partition(moved)
                if bool(torch.isfinite(risen)) and float(risen) >= float(value) + 0.25 * size * slope - 1e-13 * (
                    1 + abs(float(value))
                ):
                    break
                size /= 2
            theta, value = theta + size * step, (theta + size * step) @ target - self.partition(theta + size * step)
        worst = self.names[int((gap.abs() / spread).argmax())]
        raise NumericalError(
            f"Newton's method met no parameter of mean {target.tolist()}, farthest in the statistic {worst}: "
            "the mean may lie on the boundary, where no maximum-likelihood estimate exists"
        )

    def draw(self, theta: Any, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """sampler's points; TypeError without one."""
        if self.sampler is None:
            raise TypeError("this family was given no sampler: CustomFamily(..., sampler=...)")
        return self.sampler(self._theta(theta), whole_number(n, 1, "n"), generator_or_default(generator))


__all__ = ["CustomFamily"]
