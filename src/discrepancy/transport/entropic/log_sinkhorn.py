"""Plain log-domain Sinkhorn: exact alternating maximisation of the dual, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._results import Outcome
from discrepancy._validate import positive, whole_number
from discrepancy.transport.entropic.problem import Problem
from discrepancy.transport.entropic.semi_dual import SemiDualNewton
from discrepancy.transport.entropic.solver import Potentials, default_tolerance


@dataclass(frozen=True)
class LogSinkhorn:
    """Sinkhorn's algorithm on the logarithms: f = softmin(C - g), g = softmin(C - f), in turn; the baseline of all others.

    Stops when the L1 marginal error of the plan is below `tolerance` (None: 1e-6, or 1e-4 for float32 samples) or after
    `max_iterations` sweeps, which then is said in the outcome. The number of sweeps grows like 1 / epsilon: `SemiDualNewton`
    reaches small errors in far fewer passes. Computes in float64. One pass over the n m pairs a sweep; `memory` (GiB) bounds
    what is quadratic. Source: Sinkhorn (1967); Cuturi (2013); Peyre and Cuturi (2019), section 4.4.
    """

    tolerance: float | None = None
    max_iterations: int = 10_000
    memory: float = 1.0

    def __post_init__(self) -> None:
        """Raise ValueError for options out of range."""
        if self.tolerance is not None:
            positive(self.tolerance, "tolerance")
        whole_number(self.max_iterations, 1, "max_iterations")
        positive(self.memory, "memory")

    @torch.no_grad()
    def solve(self, problem: Problem, epsilon: Tensor, *, start: Tensor | None = None) -> Potentials:
        """The potentials for epsilon (B,), from g = 0 or `start`."""
        goal = default_tolerance(problem.dtype) if self.tolerance is None else self.tolerance
        b, e = problem.b, epsilon[:, None]
        g = torch.zeros_like(b) if start is None else start.double()
        outcome, done = Outcome.ITERATION_LIMIT, 0
        while True:
            rows = problem.evaluate(g, epsilon)
            done += 1
            error = (b - rows.columns).abs().sum(-1)
            if bool((error <= goal).all()):
                outcome = Outcome.CONVERGED
                break
            if done >= self.max_iterations:
                break
            if bool(((rows.columns < 1e-200) & (b > 0)).any()):  # a column sum that underflows has a logarithm all the same
                g = problem.columns(rows.f, epsilon)
            else:
                g = g + e * torch.where(b > 0, b / rows.columns.clamp_min(1e-300), torch.ones_like(b)).log()
        f = rows.f
        if bool((b == 0).any()):  # no marginal pins these: they take the soft-minimum, the limit of a vanishing weight
            g = torch.where(b > 0, g, problem.columns(f, epsilon))
        shift = ((b * g).sum(-1) - (problem.a * f).sum(-1))[:, None] / 2
        return Potentials(f + shift, g - shift, error, done, outcome, (f"log-domain sweeps: {done}",))

    def solve_symmetric(self, problem: Problem, epsilon: Tensor) -> Potentials:
        """A measure against itself: averaged sweeps, which contract by 1/3 at every epsilon."""
        tolerance = default_tolerance(problem.dtype) if self.tolerance is None else self.tolerance
        solver = SemiDualNewton(tolerance=tolerance, max_iterations=self.max_iterations, memory=self.memory)
        return solver.solve_symmetric(problem, epsilon)


__all__ = ["LogSinkhorn"]
