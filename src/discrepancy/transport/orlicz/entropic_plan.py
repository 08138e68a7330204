"""Entropic plans in place of exact ones: what the paper's algorithm uses at every scale."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from discrepancy._results import Outcome
from discrepancy._validate import positive
from discrepancy.costs import Cost
from discrepancy.transport.entropic.semi_dual import SemiDualNewton
from discrepancy.transport.entropic.sinkhorn import Sinkhorn
from discrepancy.transport.entropic.solver import EntropicSolver
from discrepancy.transport.exact.choose import cost_matrix
from discrepancy.transport.exact.solution import Basis, ExactSolution


@dataclass(frozen=True)
class EntropicPlan:
    """A solver that answers with the entropic plan, rounded to exact marginals, and feasible potentials.

    epsilon is in units of the cost Phi(|x - y| / k), whose expected value is one at the answer. Any plan's Luxemburg norm
    bounds the Orlicz-Wasserstein distance from above; the gap returned
    with it is that of the entropic potentials. Memory n m. Source: Guha, Ho and Nguyen (2023); rounding: Altschuler, Weed and
    Rigollet (2017).
    """

    epsilon: float = 0.1
    solver: EntropicSolver = field(default_factory=SemiDualNewton)

    def __post_init__(self) -> None:
        """Raise ValueError unless epsilon is positive."""
        positive(self.epsilon, "epsilon")

    def solve_points(
        self, x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, cost: Cost, *, start: Basis | None = None
    ) -> ExactSolution:
        """The rounded plan between points."""
        return self.solve_matrix(cost_matrix(x, y, cost), a, b)

    def solve_matrix(self, C: np.ndarray, a: np.ndarray, b: np.ndarray, *, start: Basis | None = None) -> ExactSolution:
        """The rounded plan for a cost matrix."""
        found = Sinkhorn(self.epsilon, solver=self.solver).solve_cost(
            torch.from_numpy(C), torch.from_numpy(a), torch.from_numpy(b)
        )
        plan = _rounded(found.plan().to_dense().numpy(), a, b)
        assert found.g is not None
        g = found.g.numpy()
        f = (C - g).min(1)
        rows, columns = np.nonzero(plan)
        mass = plan[rows, columns]
        return ExactSolution(
            rows,
            columns,
            mass,
            f,
            g,
            float((mass * C[rows, columns]).sum()),
            float(a @ f + b @ g),
            0,
            found.iterations,
            Outcome.CONVERGED,
            ("entropic plan, rounded",),
        )


def _rounded(plan: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A coupling of a and b near the plan: rows and columns scaled down to their weights, the rest added as a product."""
    with np.errstate(divide="ignore", invalid="ignore"):
        plan = plan * np.nan_to_num(np.minimum(1, a / plan.sum(1)), nan=0.0)[:, None]
        plan = plan * np.nan_to_num(np.minimum(1, b / plan.sum(0)), nan=0.0)
    missing_a, missing_b = np.maximum(a - plan.sum(1), 0), np.maximum(b - plan.sum(0), 0)
    total = missing_a.sum()
    return plan + np.outer(missing_a, missing_b) / total if total > 0 else plan


__all__ = ["EntropicPlan"]
