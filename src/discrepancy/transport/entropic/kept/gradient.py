"""The envelope gradient under the squared distance while the cost is still at hand: plan rows in blocks, two matrix products."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from discrepancy.costs import Cost, SquaredEuclidean
from discrepancy.transport.entropic.problem import MatrixProblem, Problem
from discrepancy.transport.entropic.solver import Potentials

# Pairs of a problem from which matrix products pay; smaller ones go through one compiled loop over the batch.
_LEAST = 1 << 14
# Entries of a block of the plan, which stays in the processor's caches between its exponentials and its products.
_BLOCK = 1 << 17


def contracts_kept(problem: Problem, cost: Cost) -> bool:
    """Whether `kept_contraction` serves this problem."""
    return isinstance(problem, MatrixProblem) and type(cost) is SquaredEuclidean and problem.cost.device.type == "cpu"


@torch.no_grad()
def kept_contraction(
    problem: MatrixProblem, found: Potentials, epsilon: Tensor, x: Tensor, y: Tensor, *, both: bool
) -> tuple[Tensor, Tensor]:
    """The gradients of sum_ij P_ij |x_i - y_j|^2 in x (B, n, d) and, if `both`, in y (B, m, d) (zeros otherwise), P held fixed.

    2 (x r - P y) and 2 (y c - P^T x) with r, c the plan's marginals, in the precision of the points: n m exponentials and one or
    two products of n m d steps. Memory beside the problem: one block of rows.
    """
    x, y = x.detach(), y.detach()
    centre = y.mean(-2, keepdim=True)
    x, y = (x - centre).contiguous(), (y - centre).contiguous()
    if problem.cost[0].numel() < _LEAST:
        return _together(problem, found, epsilon, x.double(), y.double(), both)
    left, right = torch.zeros_like(x), torch.zeros_like(y)
    for k in range(len(x)):
        potentials = (found.f[k].numpy(), found.g[k].numpy(), problem.log_a[k].numpy(), problem.log_b[k].numpy())
        _one(problem.cost[k].numpy(), *potentials, float(epsilon[k]), x[k], y[k], left[k], right[k] if both else None)
    return left, right


def _together(
    problem: MatrixProblem, found: Potentials, epsilon: Tensor, x: Tensor, y: Tensor, both: bool
) -> tuple[Tensor, Tensor]:
    """Small problems, a range of them a thread."""
    from discrepancy._loops.apart import zeros_apart
    from discrepancy._loops.entropic.contraction import contract_range
    from discrepancy._loops.entropic.newton import LN2
    from discrepancy._loops.threads import in_parallel, ranges

    scale = 1 / (epsilon.double() * LN2)
    u = (found.f * scale[:, None] + problem.log_a / LN2).numpy()
    h = (found.g * scale[:, None] + problem.log_b / LN2).numpy()
    left, right = np.empty(x.shape), zeros_apart(*y.shape[:-2], y.shape[-1], y.shape[-2])
    arrays = (problem.cost.numpy(), scale.numpy(), u, h, x.numpy(), y.mT.contiguous().numpy())
    in_parallel(lambda part: contract_range(*arrays, both, *part, left, right), ranges(len(x), 8))
    return torch.from_numpy(left), torch.from_numpy(right).mT


def _one(
    cost: np.ndarray,
    f: np.ndarray,
    g: np.ndarray,
    log_a: np.ndarray,
    log_b: np.ndarray,
    epsilon: float,
    x: Tensor,
    y: Tensor,
    left: Tensor,
    right: Tensor | None,
) -> None:
    from discrepancy._loops.entropic.newton import LN2
    from discrepancy._loops.entropic.plan import plan_rows

    n, m = cost.shape
    scale = 1 / (epsilon * LN2)
    u, h = f * scale + log_a / LN2, g * scale + log_b / LN2
    step = max(1, min(n, _BLOCK // m))
    block = torch.from_numpy(np.empty((step, m), np.float32 if x.dtype == torch.float32 else np.float64))
    mass = torch.zeros(m, dtype=x.dtype)
    for first in range(0, n, step):
        part = block[: min(step, n - first)]
        plan_rows(cost, scale, u, h, first, part.numpy())
        own = x[first : first + len(part)]
        left[first : first + len(part)] = 2 * (own * part.sum(-1, keepdim=True) - part @ y)
        if right is not None:
            mass += part.sum(0)
            right -= 2 * (part.T @ own)
    if right is not None:
        right += 2 * y * mass[:, None]


__all__ = ["contracts_kept", "kept_contraction"]
