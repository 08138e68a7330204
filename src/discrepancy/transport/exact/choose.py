"""The exact solvers as objects: what is asked of one, and the network simplex that picks its own form by size and dimension."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from discrepancy._results import NumericalError
from discrepancy._validate import positive
from discrepancy.costs import Cost, Euclidean, FunctionCost, Manhattan, PowerCost, SquaredEuclidean
from discrepancy.transport.exact.solution import Basis, ExactSolution

# Up to so many pairs the cost matrix is formed and handed to the dense simplex, which is as fast there. The hierarchy of cells
# gains most where boxes exclude most pairs: for costs of coordinates in few dimensions (measured: they cross at 320 x 320 points
# for d = 2, at 1,000 x 1,000 for d = 5 to 100).
_FEW_DIMENSIONS = 4
_DENSE_PAIRS_FEW = 100_000
_DENSE_PAIRS_MANY = 1_000_000
# What a pair costs in memory where the matrix of a cost function is kept, and what one block of its evaluation may take.
_MATRIX_BYTES = 16
_BLOCK_BYTES = 64 << 20


@runtime_checkable
class ExactSolver(Protocol):
    """What the exact discrepancies ask of a solver; weights are float64, non-negative, and sum to one on either side."""

    def solve_points(
        self, x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, cost: Cost, *, start: Basis | None = None
    ) -> ExactSolution:
        """The optimal plan between points x (n, d) and y (m, d), both float32 or both float64."""
        ...

    def solve_matrix(self, C: np.ndarray, a: np.ndarray, b: np.ndarray, *, start: Basis | None = None) -> ExactSolution:
        """The optimal plan for a cost matrix C (n, m), where +inf forbids a pair."""
        ...


def line_order(cost: Cost, dimension: int) -> float | None:
    """The p for which the cost is |x - y|^p with p >= 1 on the line, where sorting solves the problem; None elsewhere."""
    if dimension != 1:
        return None
    if isinstance(cost, SquaredEuclidean):
        return 2.0
    if isinstance(cost, Euclidean | Manhattan):
        return 1.0
    if isinstance(cost, PowerCost) and cost.p >= 1:
        return float(cost.p)
    return None


def _dense_pairs(cost: Cost, dimension: int, memory: float) -> float:
    """The number of pairs up to which the dense simplex is the faster one; for a function, those that `memory` GiB hold."""
    if isinstance(cost, FunctionCost):  # nothing is known of it: each pass would call it again, and it may forbid pairs
        return memory * 2**30 / _MATRIX_BYTES
    boxes = isinstance(cost, SquaredEuclidean | Euclidean | Manhattan | PowerCost)
    return _DENSE_PAIRS_FEW if boxes and dimension <= _FEW_DIMENSIONS else _DENSE_PAIRS_MANY


@dataclass(frozen=True)
class NetworkSimplex:
    """The network simplex with a certificate: dense on cost matrices and small samples, multi-scale on points, sorting on the
    line.

    On the line with a cost |x - y|^p, p >= 1, the samples are sorted: n log n. Up to 100,000 pairs (1,000,000 above four
    dimensions), for a cost function of your own as long as its matrix fits half of `memory`, and for a given cost matrix the
    dense simplex runs on the matrix. Above, points are solved on a hierarchy of cells without an n x m matrix: memory linear in
    n + m. All find the optimum and prove it by potentials whose value differs by rounding. A cost of +inf forbids its pair.
    rigorous: the multi-scale solver ends with one unpruned pass over all pairs, so that the gap is proved to rounding instead of
    to 1e-10 of the cost. memory: GiB that blocks of pairs may take. Computes in float64 on the CPU. Source: Dantzig (1951);
    Cunningham (1976); Bonneel et al. (2011).
    """

    rigorous: bool = False
    memory: float = 1.0

    def __post_init__(self) -> None:
        """Raise ValueError or TypeError for options out of range."""
        if not isinstance(self.rigorous, bool):
            raise TypeError(f"rigorous must be True or False, got {self.rigorous!r}")
        positive(self.memory, "memory")

    def solve_points(
        self, x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, cost: Cost, *, start: Basis | None = None
    ) -> ExactSolution:
        """The optimal plan between points x (n, d) and y (m, d) of weights a (n,) and b (m,)."""
        order = line_order(cost, x.shape[1])
        if order is not None:
            from discrepancy.transport.exact.line_plan import solve_line

            return solve_line(x[:, 0], y[:, 0], a, b, order)
        if len(x) * len(y) <= _dense_pairs(cost, x.shape[1], self.memory):
            return self.solve_matrix(cost_matrix(x, y, cost), a, b, start=start)
        from discrepancy.transport.exact.multiscale import solve_points

        return solve_points(x, y, a, b, cost, start=start, rigorous=self.rigorous, memory=self.memory)

    def solve_matrix(self, C: np.ndarray, a: np.ndarray, b: np.ndarray, *, start: Basis | None = None) -> ExactSolution:
        """The optimal plan for a cost matrix C (n, m); +inf forbids a pair."""
        from discrepancy.transport.exact.dense import solve_matrix

        return solve_matrix(C, a, b, start=start)


def as_points(x: torch.Tensor, cost: Cost) -> torch.Tensor:
    """Points as a cost evaluates them: in float64, but for a user's function, whose own tensors have the samples' dtype."""
    return x if isinstance(cost, FunctionCost) else x.double()


@torch.no_grad()
def cost_matrix(x: np.ndarray, y: np.ndarray, cost: Cost) -> np.ndarray:
    """All costs (n, m) in float64, in blocks of rows; NumericalError where a cost is NaN or -inf.

    Squared distances by direct differences: |x|^2 + |y|^2 - 2 x.y loses digits that an exact solver is asked for.
    """
    if isinstance(cost, SquaredEuclidean) and x.shape[1] > _FEW_DIMENSIONS:
        from scipy.spatial.distance import cdist

        return cdist(x.astype(np.float64), y.astype(np.float64), "sqeuclidean")
    left, right = (as_points(torch.from_numpy(t), cost) for t in (x, y))
    step = cost.block_size(len(y), x.shape[1], _BLOCK_BYTES, 8)
    if step >= len(x):
        found = cost.matrix(left, right).double()
    else:
        found = torch.empty(len(x), len(y), dtype=torch.float64)
        for start in range(0, len(x), step):
            found[start : start + step] = cost.matrix(left[start : start + step], right)
    total = float(found.sum())
    if np.isnan(total) or total == -np.inf:
        bad = (found.isnan() | (found == -torch.inf)).nonzero()
        if len(bad):
            raise NumericalError(f"the cost of the points {tuple(bad[0].tolist())} is NaN or -inf: +inf forbids a pair")
    return found.numpy()


__all__ = ["ExactSolver", "NetworkSimplex", "as_points", "cost_matrix", "line_order"]
