"""A climb to a saddle as a process: the record of what the oracle said, the rule to stop, and the plain dimer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from discrepancy._results import NumericalError
from discrepancy._validate import as_tensor
from discrepancy.methods.physics.configurations import Types
from discrepancy.methods.physics.dimer import Climber, Dimer, Rotation, limited, rigid_modes, rotate
from discrepancy.methods.physics.saddle_options import SaddleOutcome, SaddleResult, SaddleStep

# x (D,) -> energy and gradient, as numbers, arrays or tensors.
Oracle = Callable[[Tensor], tuple[Any, Any]]


class _OracleFailedError(ArithmeticError):
    """The oracle returned something that is not finite."""


class _LimitReachedError(RuntimeError):
    """No evaluations are left."""


class _LostError(RuntimeError):
    """Both ways led too high."""


class Record:
    """The oracle, every answer that it gave, and how many more it may give."""

    def __init__(self, oracle: Oracle, limit: int) -> None:
        self.oracle, self.limit = oracle, limit
        self.points: list[Tensor] = []
        self.energies: list[float] = []
        self.gradients: list[Tensor] = []

    def __call__(self, x: Tensor) -> tuple[float, Tensor]:
        if len(self.points) >= self.limit:
            raise _LimitReachedError
        energy, gradient = self.oracle(x.clone())
        value = float(as_tensor(energy, "the oracle's energy"))
        slope = as_tensor(gradient, "the oracle's gradient").detach().double().flatten()
        if slope.shape != x.shape:
            raise ValueError(f"the oracle must return a gradient of {len(x)} components, got {len(slope)}")
        if not (abs(value) < float("inf") and bool(torch.isfinite(slope).all())):
            raise _OracleFailedError
        self.points.append(x.clone())
        self.energies.append(value)
        self.gradients.append(slope)
        return value, slope

    def data(self) -> tuple[Tensor, Tensor, Tensor]:
        return torch.stack(self.points), torch.tensor(self.energies, dtype=torch.float64), torch.stack(self.gradients)


class Climb:
    """What both methods share: the current point, the stopping rule, the record of passes."""

    def __init__(self, record: Record, x: Tensor, o: Tensor, types: Types | None, dimer: Dimer, tolerance: float, periodic: bool):
        self.record, self.x, self.types, self.dimer, self.tolerance = record, x, types, dimer, tolerance
        self.periodic = periodic
        self.turned = Rotation(o, float("nan"), False)
        self.trace: list[SaddleStep] = []
        self.energy, self.gradient = float("nan"), torch.full_like(x, torch.nan)
        self.ceiling, self.heading, self.start = float("inf"), None, (x, Rotation(o, float("nan"), False))

    def rigid(self) -> Tensor:
        return rigid_modes(self.x, self.types, periodic=self.periodic)

    def result(self, max_climb: float) -> SaddleResult:
        try:
            self.energy, self.gradient = self.record(self.x)
            self.ceiling = self.energy + max_climb
            self.climb()
            outcome = SaddleOutcome.CONVERGED
        except _OracleFailedError:
            outcome = SaddleOutcome.ORACLE_FAILED
        except _LimitReachedError:
            outcome = SaddleOutcome.EVALUATION_LIMIT
        except NumericalError:
            outcome = SaddleOutcome.SURROGATE_FAILED
        except _LostError:
            outcome = SaddleOutcome.LOST
        return SaddleResult(
            x=self.x,
            energy=self.energy,
            curvature=self.turned.curvature,
            direction=self.turned.direction,
            evaluations=len(self.record.points),
            outcome=outcome,
            fit_seconds=sum(s.fit_seconds for s in self.trace),
            trace=tuple(self.trace),
            data=self.record.data() if self.record.points else None,
        )

    def climb(self) -> None:
        raise NotImplementedError

    def arrive(self, x: Tensor) -> bool:
        """Evaluate the oracle at x and go there, or back to the start where that is too high; whether it is the latter."""
        energy, gradient = self.record(x)
        if energy <= self.ceiling:
            self.x, self.energy, self.gradient = x, energy, gradient
            return False
        if self.heading is not None:
            raise _LostError
        self.x, self.turned = self.start
        self.energy, self.gradient = self.record.energies[0], self.record.gradients[0]
        # The first climb went uphill along the dimer; this one goes the other way.
        way = self.turned.direction
        self.heading = -math.copysign(1.0, float(self.gradient @ way)) * way
        return True

    def largest(self) -> float:
        return float(self.gradient.abs().max())


class PlainClimb(Climb):
    """The plain dimer: every turn and every move asks the oracle."""

    def __init__(self, record: Record, x: Tensor, o: Tensor, types: Types | None, method: Dimer, tolerance: float) -> None:
        super().__init__(record, x, o, types, method, tolerance, periodic=False)

    def climb(self) -> None:
        climber = Climber(self.dimer)
        while True:
            rigid = self.rigid()
            self.turned = rotate(self.record, self.x, self.gradient, self.turned.direction, self.dimer, rigid)
            if len(self.trace) == 0:
                self.start = self.x, self.turned
            self.trace.append(SaddleStep(len(self.record.points), self.energy, self.largest(), self.turned.curvature))
            if self.largest() < self.tolerance and self.turned.curvature < 0:
                return
            step = climber.move(self.x, self.gradient, self.turned, rigid)
            limit = self.dimer.uphill_step if self.turned.curvature >= 0 else self.dimer.step_limit
            if self.arrive(self.x + limited(step, limit, self.types)):
                climber = Climber(self.dimer, self.heading)


__all__ = ["Climb", "Oracle", "PlainClimb", "Record"]
