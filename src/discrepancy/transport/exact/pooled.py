"""Transport costs of many weightings of one cloud: the cost matrix once, a problem on the supports of each pair of rows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from discrepancy._results import Outcome
from discrepancy.costs import Cost
from discrepancy.transport.exact.choose import ExactSolver, cost_matrix
from discrepancy.transport.exact.orientation import solve_pair


class PooledPlans:
    """A cloud z (N, d) under a cost; called on weight rows A, B (R, N) it returns the R transport costs in float64.

    For a metric cost the value depends on A - B only: its positive and negative parts are transported into each other, and rows
    may be signed. Otherwise rows must be non-negative (ValueError). The cost matrix is kept where it takes at most half of the
    solver's `memory` (1 GiB for a solver that states none); above, each row is solved on its points.
    """

    def __init__(self, z: Tensor, cost: Cost, solver: ExactSolver) -> None:
        """Form the cost matrix if it fits."""
        self.z = np.ascontiguousarray(z.detach().numpy())
        self.cost, self.solver = cost, solver
        budget = float(getattr(solver, "memory", 1.0)) * 2**30
        self.matrix = cost_matrix(self.z, self.z, cost) if 16 * len(self.z) ** 2 <= budget else None

    def __call__(self, A: Tensor, B: Tensor) -> Tensor:
        """The transport cost of each pair of rows, (R,)."""
        n = len(self.z)
        if A.shape != B.shape or A.ndim != 2 or A.shape[-1] != n:
            raise ValueError(f"weight rows must both have shape (R, {n}), got {tuple(A.shape)} and {tuple(B.shape)}")
        if not self.cost.metric and (bool((A < 0).any()) or bool((B < 0).any())):
            raise ValueError(
                f"weight rows must be non-negative: transport at the cost {self.cost!r} is not a norm of their difference"
            )
        values = np.empty(len(A))
        outcome = Outcome.CONVERGED
        for k, (a, b) in enumerate(zip(A.double().numpy(), B.double().numpy(), strict=True)):
            values[k], ended = self._signed(a - b) if self.cost.metric else self._solved(a / a.sum(), b / b.sum())
            outcome = outcome if ended.ok else ended
        outcome.warn("OptimalTransport.pooled")
        return torch.from_numpy(values)

    def _signed(self, difference: np.ndarray) -> tuple[float, Outcome]:
        """The norm of a signed measure of total zero."""
        a, b = np.maximum(difference, 0.0), np.maximum(-difference, 0.0)
        total = (a.sum() + b.sum()) / 2
        if total == 0.0:
            return 0.0, Outcome.CLOSED_FORM
        value, outcome = self._solved(a / a.sum(), b / b.sum())
        return total * value, outcome

    def _solved(self, a: np.ndarray, b: np.ndarray) -> tuple[float, Outcome]:
        rows, columns = np.flatnonzero(a), np.flatnonzero(b)
        if self.matrix is None:
            found = solve_pair(self.z[rows], self.z[columns], a[rows], b[columns], self.cost, self.solver)
        else:
            found = self.solver.solve_matrix(self.matrix[np.ix_(rows, columns)], a[rows], b[columns])
        return found.primal, found.outcome


__all__ = ["PooledPlans"]
