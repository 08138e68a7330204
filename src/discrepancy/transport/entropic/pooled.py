"""Sinkhorn divergences of many weightings of one cloud: one cost matrix, problems solved in batches on the supports of the
rows."""

from __future__ import annotations

import torch
from torch import Tensor

from discrepancy._kinds import PooledStatistic
from discrepancy._results import Outcome
from discrepancy.transport.entropic.problem import MatrixProblem
from discrepancy.transport.entropic.solver import EntropicSolver, Potentials

# Entries of the cost matrices of one batch of rows: large enough to hide the overhead of a call, small enough for the caches.
_BATCH = 1 << 21


def _support(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Indices (R, k) of the points with weight, padded to the largest support by points of weight zero, and their weights."""
    present = weights > 0
    size = max(1, int(present.sum(-1).max()))
    index = torch.argsort(~present, dim=-1, stable=True)[:, :size]
    return index, weights.gather(-1, index)


def pooled_divergence(
    cost: Tensor, epsilon: float, solver: EntropicSolver, dtype: torch.dtype, *, clamp: bool
) -> PooledStatistic:
    """The statistic on weight rows A, B (R, N) for one symmetric cost matrix (N, N) in float64."""

    def block(left: Tensor, right: Tensor) -> Tensor:
        return cost[left[:, :, None], right[:, None, :]]

    def rows(A: Tensor, B: Tensor) -> tuple[Tensor, list[Potentials]]:
        at_a, a = _support(A)
        at_b, b = _support(B)
        level = torch.full((A.shape[0],), epsilon, dtype=torch.float64, device=cost.device)
        cross = solver.solve(MatrixProblem(block(at_a, at_b), a, b, dtype), level)
        own_a = solver.solve_symmetric(MatrixProblem(block(at_a, at_a), a, a, dtype), level)
        own_b = solver.solve_symmetric(MatrixProblem(block(at_b, at_b), b, b, dtype), level)
        value = (a * (cross.f - own_a.f)).sum(-1) + (b * (cross.g - own_b.g)).sum(-1)
        return value, [cross, own_a, own_b]

    def statistic(A: Tensor, B: Tensor) -> Tensor:
        n = cost.shape[0]
        if A.shape != B.shape or A.ndim != 2 or A.shape[-1] != n:
            raise ValueError(f"weight rows must both have shape (R, {n}), got {tuple(A.shape)} and {tuple(B.shape)}")
        if bool((A < 0).any()) or bool((B < 0).any()):
            raise ValueError("weight rows must be non-negative: the Sinkhorn divergence is not a norm of their difference")
        A, B = A.double(), B.double()
        A, B = A / A.sum(-1, keepdim=True), B / B.sum(-1, keepdim=True)
        widest = int(max((A > 0).sum(-1).max(), (B > 0).sum(-1).max(), 1))
        step = max(1, _BATCH // widest**2)
        values, outcome = [], Outcome.CONVERGED
        for start in range(0, A.shape[0], step):
            value, found = rows(A[start : start + step], B[start : start + step])
            values.append(value)
            outcome = next((p.outcome for p in found if not p.outcome.ok), outcome)
        outcome.warn("SinkhornDivergence.pooled")
        value = torch.cat(values)
        return (value.clamp_min(0) if clamp else value).to(dtype)

    return torch.no_grad()(statistic)


__all__ = ["pooled_divergence"]
