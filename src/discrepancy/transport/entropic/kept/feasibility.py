"""Whether forbidden pairs leave any plan between the weights, as the exact solver's feasibility phase finds out."""

from __future__ import annotations

import numpy as np

from discrepancy.transport.entropic.problem import MatrixProblem
from discrepancy.transport.exact.dense import solve_matrix


def require_feasible(problem: MatrixProblem) -> None:
    """Raise NumericalError, naming rows and columns, if some problem of the batch has no plan that avoids its forbidden pairs.

    Nothing happens where no pair is forbidden. Costs the first phase of a network simplex, so it is asked only where a solver
    does not converge.
    """
    if not problem.forbids:
        return
    for cost, a, b in zip(problem.cost.numpy(), problem.a.numpy(), problem.b.numpy(), strict=True):
        if np.isinf(cost).any():
            solve_matrix(np.where(np.isinf(cost), cost, 0.0), a, b, max_pivots=0)


__all__ = ["require_feasible"]
