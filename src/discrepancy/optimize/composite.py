"""Minima of f(b) + p_lam(b) for a smooth f and a sparse penalty: proximal gradient, plain and accelerated with restarts."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from discrepancy._results import NumericalError, Outcome, Result
from discrepancy._validate import positive, whole_number
from discrepancy.optimize.penalties import SparsePenalty, soft_threshold


@dataclass(frozen=True)
class CompositeProblem:
    """min over b (p,) of f(b) + p_lam(b).

    `smooth(b)` returns f(b) and its gradient (p,); `lipschitz` bounds the slope of that gradient; `lam` is a number or (p,),
    zero for coefficients without penalty. Raises ValueError for a negative lam or a Lipschitz constant that is not positive.
    """

    smooth: Callable[[Tensor], tuple[Tensor, Tensor]]
    lipschitz: float
    penalty: SparsePenalty
    lam: Tensor | float

    def __post_init__(self) -> None:
        """Check the numbers."""
        positive(self.lipschitz, "lipschitz")
        levels = torch.as_tensor(self.lam, dtype=torch.float64)
        if not bool((levels >= 0).all() and torch.isfinite(levels).all()):
            raise ValueError(f"lam must be non-negative and finite, got {self.lam!r}")

    @property
    def step(self) -> float:
        """0.99 / max(lipschitz, curvature of the penalty): a step that never increases the objective."""
        return 0.99 / max(self.lipschitz, self.penalty.curvature)

    def objective(self, b: Tensor) -> float:
        """f(b) + p_lam(b)."""
        return float(self.smooth(b)[0] + self.penalty.value(b, self.lam))

    def descent(self, b: Tensor) -> Tensor:
        """The gradient of f + h, the smooth part of the objective."""
        return self.smooth(b)[1] + self.penalty.slope(b, self.lam)

    def residual(self, b: Tensor) -> float:
        """How far b is from a stationary point: the largest |b - prox(b - step grad)| / step."""
        if b.numel() == 0:
            return 0.0
        moved = soft_threshold(b - self.step * self.descent(b), self.step * self.lam)
        return float((b - moved).abs().max()) / self.step


@dataclass(frozen=True, repr=False)
class CompositeSolution(Result):
    """Coefficients `b` (p,), the `objective` there, the stationarity `residual`, `iterations`, how it ended, and, if they were
    asked for, the objectives after every iteration."""

    b: Tensor
    objective: float
    residual: float
    iterations: int
    outcome: Outcome
    objectives: list[float] = field(default_factory=list, repr=False)


@dataclass(frozen=True)
class _Iteration(ABC):
    """Steps until the coefficients move by less than `tolerance` and the residual is of that order, or `max_iterations`."""

    tolerance: float = 1e-6
    max_iterations: int = 10_000

    def __post_init__(self) -> None:
        """Check the numbers."""
        positive(self.tolerance, "tolerance")
        whole_number(self.max_iterations, 1, "max_iterations")

    @abstractmethod
    def solve(self, problem: CompositeProblem, start: Tensor, *, record: bool = False) -> CompositeSolution:
        """A stationary point, from `start` (p,); `record` keeps the objective of every iteration."""

    def _done(self, problem: CompositeProblem, b: Tensor, move: float) -> bool:
        # A short step alone may be a restart; the residual is the certificate.
        return move < self.tolerance and problem.residual(b) * problem.step < self.tolerance

    def _solution(
        self, problem: CompositeProblem, b: Tensor, iterations: int, converged: bool, objectives: list[float]
    ) -> CompositeSolution:
        objective = problem.objective(b)
        if not math.isfinite(objective):
            raise NumericalError(f"the objective is {objective} after {iterations} iterations: check `lipschitz`")
        outcome = Outcome.CONVERGED if converged else Outcome.ITERATION_LIMIT
        outcome.warn(f"{type(self).__name__} after {iterations} iterations", stacklevel=4)
        return CompositeSolution(b, objective, problem.residual(b), iterations, outcome, objectives)


@dataclass(frozen=True)
class ProximalGradient(_Iteration):
    """b <- soft(b - w grad(f + h)(b), w lam): one step after the other, each decreasing the objective.

    Time: one gradient of f a step. Warns `ConvergenceWarning` at the iteration limit.
    """

    @torch.no_grad()
    def solve(self, problem: CompositeProblem, start: Tensor, *, record: bool = False) -> CompositeSolution:
        """A stationary point, from `start` (p,)."""
        w, b, objectives = problem.step, start.clone(), []
        done, k = False, 0
        while not done and k < self.max_iterations:
            k += 1
            moved = soft_threshold(b - w * problem.descent(b), w * problem.lam)
            # The move is the residual of the point before it.
            done = bool((moved - b).abs().amax() < self.tolerance) if b.numel() else True
            b = moved
            if record:
                objectives.append(problem.objective(b))
        return self._solution(problem, b, k, done, objectives)


@dataclass(frozen=True)
class AcceleratedGradient(_Iteration):
    """Ghadimi and Lan's accelerated gradient for nonconvex objectives, restarted by the length of its steps.

    With a_1 = 1, a_k = 2 / (1 + sqrt(1 + 4 / a_(k-1)^2)), m = (1 - a) b_ag + a b and g the gradient of f + h at m:
        b <- soft(b - (w / a) g, (w / a) lam),   b_ag <- soft(m - w g, w lam);
    where |m_k - m_(k-1)| gets shorter, at least `patience` steps after the last restart, a = 1 again, so that m goes on from b.
    The answer is b_ag. Time: one gradient of f a step. Warns `ConvergenceWarning` at the iteration limit.
    Source: Yang, Asgharian and Bhatnagar (2020); Ghadimi and Lan (2016).
    """

    patience: int = 3

    references = ("yang-2020", "ghadimi-lan-2016")

    def __post_init__(self) -> None:
        """Check the numbers."""
        super().__post_init__()
        whole_number(self.patience, 1, "patience")

    @torch.no_grad()
    def solve(self, problem: CompositeProblem, start: Tensor, *, record: bool = False) -> CompositeSolution:
        """A stationary point, from `start` (p,)."""
        w, objectives = problem.step, []
        b, best = start.clone(), start.clone()
        previous, length, alpha, since = start, math.inf, 1.0, 0
        done, k = b.numel() == 0, 0
        while not done and k < self.max_iterations:
            k += 1
            m = (1 - alpha) * best + alpha * b
            g = problem.descent(m)
            b = soft_threshold(b - (w / alpha) * g, (w / alpha) * problem.lam)
            best = soft_threshold(m - w * g, w * problem.lam)
            if record:
                objectives.append(problem.objective(best))
            move = float((m - previous).abs().amax())
            now = float(torch.linalg.vector_norm(m - previous))
            done = k > 1 and self._done(problem, best, move)
            since += 1
            if now < length and since >= self.patience:
                alpha, since = 1.0, 0
            else:
                alpha = 2 / (1 + math.sqrt(1 + 4 / alpha**2))
            previous, length = m, now
        return self._solution(problem, best, k, done, objectives)


__all__ = ["AcceleratedGradient", "CompositeProblem", "CompositeSolution", "ProximalGradient"]
