"""Fixed-step integrators of dx/dt = v(x, t), differentiable step by step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from discrepancy._results import NumericalError
from discrepancy._validate import whole_number

# The velocity at points (..., d) and a time (), a tensor of the points' shape.
VelocityField = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Integrator(ABC):
    """A one-step method on a fixed grid of `steps` equal steps.

    Gradients are those of the discrete scheme, exactly. `recompute` keeps only the positions between steps and computes each
    step again on the way back: memory of `steps` positions instead of every activation of the field, for one more forward
    pass. Running from `end` to `start` inverts the flow up to the scheme's error, and a single Euler step x + h v(x) is
    one-to-one only where h times the Lipschitz constant of v is below 1.
    """

    steps: int = 10
    recompute: bool = False
    evaluations: ClassVar[int]  # of the field, a step
    order: ClassVar[int]  # the error at the end falls like steps^-order

    def __post_init__(self) -> None:
        """Raise ValueError unless steps is a whole number of at least 1."""
        whole_number(self.steps, 1, "steps")

    @abstractmethod
    def step(self, field: VelocityField, x: Tensor, t: Tensor, h: Tensor) -> Tensor:
        """The point one step of length h (negative: backward) after x at time t."""

    def path(self, field: VelocityField, x: Tensor, start: float = 0.0, end: float = 1.0) -> list[Tensor]:
        """The positions at all steps + 1 times, x first.

        Raises ValueError for times that are not finite, NumericalError naming the step where the position stops being finite.
        Time steps x evaluations of the field.
        """
        if not (math.isfinite(start) and math.isfinite(end)):
            raise ValueError(f"start and end must be finite times, got {start!r} and {end!r}")
        positions = [x]
        h = torch.tensor((end - start) / self.steps, dtype=x.dtype, device=x.device)
        for k in range(self.steps):
            t = torch.tensor(start + (end - start) * k / self.steps, dtype=x.dtype, device=x.device)
            here = positions[-1]
            if self.recompute and torch.is_grad_enabled():
                from torch.utils.checkpoint import checkpoint

                there = checkpoint(self.step, field, here, t, h, use_reentrant=False)
                assert isinstance(there, Tensor)
            else:
                there = self.step(field, here, t, h)
            if not bool(torch.isfinite(there.detach().sum())):
                bad = int((~torch.isfinite(there.detach())).sum())
                raise NumericalError(
                    f"integration step {k + 1} of {self.steps}: {bad} coordinate(s) of {there.numel()} are not finite; take more "
                    "steps or a field with smaller slopes"
                )
            positions.append(there)
        return positions

    def solve(self, field: VelocityField, x: Tensor, start: float = 0.0, end: float = 1.0) -> Tensor:
        """The position at time `end` of what is at x (..., d) at time `start`; `start` after `end` runs backward."""
        return self.path(field, x, start, end)[-1]


@dataclass(frozen=True)
class Euler(Integrator):
    """x + h v(x, t): first order, one evaluation a step."""

    evaluations: ClassVar[int] = 1
    order: ClassVar[int] = 1

    def step(self, field: VelocityField, x: Tensor, t: Tensor, h: Tensor) -> Tensor:
        """One Euler step."""
        return x + h * field(x, t)


@dataclass(frozen=True)
class Midpoint(Integrator):
    """x + h v(x + h/2 v(x, t), t + h/2): second order, two evaluations a step."""

    evaluations: ClassVar[int] = 2
    order: ClassVar[int] = 2

    def step(self, field: VelocityField, x: Tensor, t: Tensor, h: Tensor) -> Tensor:
        """One step by the slope in the middle."""
        return x + h * field(x + h / 2 * field(x, t), t + h / 2)


@dataclass(frozen=True)
class RungeKutta4(Integrator):
    """The classical Runge-Kutta method: fourth order, four evaluations a step."""

    evaluations: ClassVar[int] = 4
    order: ClassVar[int] = 4

    def step(self, field: VelocityField, x: Tensor, t: Tensor, h: Tensor) -> Tensor:
        """One step by Simpson's rule over four slopes."""
        one = field(x, t)
        two = field(x + h / 2 * one, t + h / 2)
        three = field(x + h / 2 * two, t + h / 2)
        four = field(x + h * three, t + h)
        return x + h / 6 * (one + 2 * two + 2 * three + four)


__all__ = ["Euler", "Integrator", "Midpoint", "RungeKutta4", "VelocityField"]
