"""The certificate of a plan that is never held: its cost, its marginal error, and a rigorous duality gap.

The plan is rounded as Altschuler, Weed and Rigollet (2017) do: A = r_i P_ij s_j is below both marginals, and what is missing, of
mass t, is added as a product B = t p q. The regularised cost is convex, so that the rounded plan's is at most the mean of those
of A / (1 - t) and of p q; for A it follows from A's marginals alone, because log(A_ij / (a_i b_j)) is a sum of a row's and a
column's term and -C_ij / epsilon.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from discrepancy.transport.entropic.streamed.passes import Marginals
from discrepancy.transport.entropic.streamed.problem import FusedProblem


def certify_fused(problem: FusedProblem, f: Tensor, g: Tensor, epsilon: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """<P, C>, the L1 error of both marginals, and primal minus dual of the rounded plan, (B,) each: three passes."""
    left, right = problem.scaled(f, problem.log_a, epsilon), problem.scaled(g, problem.log_b, epsilon)
    found = [
        certify_passes(stream, u, v, scale, f[k].numpy(), g[k].numpy(), float(epsilon[k]))
        for k, ((stream, u, scale), (_, v, _)) in enumerate(zip(left, right, strict=True))
    ]
    cost, error, gap = torch.tensor(found, dtype=torch.float64).T
    return cost, error, gap


class Rounding(Protocol):
    """The passes that a certificate asks for, as `StreamedPairs` and the grids have them."""

    @property
    def row_weights(self) -> np.ndarray:
        """a (n,)."""
        ...

    @property
    def column_weights(self) -> np.ndarray:
        """b (m,)."""
        ...

    def marginals(self, u: np.ndarray, v: np.ndarray, scale: float) -> Marginals:
        """Marginals and cost of P_ij = 2^(u_i + v_j - s c_ij)."""
        ...

    def row_products(self, u: np.ndarray, v: np.ndarray, scale: float, p: np.ndarray) -> np.ndarray:
        """P p (n, k)."""
        ...

    def mean_cost(self, a: np.ndarray, b: np.ndarray) -> float:
        """sum_ij a_i b_j c_ij."""
        ...


def certify_passes(
    stream: Rounding, u: np.ndarray, v: np.ndarray, scale: float, f: np.ndarray, g: np.ndarray, epsilon: float
) -> tuple[float, float, float]:
    """<P, C>, the L1 error of both marginals, and primal minus dual of the rounded plan of one problem, for potentials f, g and
    the same in base 2 with the weights inside, u and v."""
    a, b = stream.row_weights, stream.column_weights
    plan = stream.marginals(u, v, scale)
    error = np.abs(plan.rows - a).sum() + np.abs(plan.columns - b).sum()
    row_scale, column_scale = _shrink(a, plan.rows), _shrink(b, plan.scaled_columns)
    kept_rows = row_scale * stream.row_products(u, v, scale, column_scale[:, None])[:, 0]
    kept_columns = plan.scaled_columns * column_scale
    primal = math.fsum(kept_rows * (f + epsilon * np.log(row_scale)))
    primal += math.fsum(kept_columns * (g + epsilon * np.log(column_scale)))
    missing_a, missing_b = np.maximum(a - kept_rows, 0), np.maximum(b - kept_columns, 0)
    missing = math.fsum(missing_b)
    if missing > 0 and missing_a.any():
        p, q = missing_a / math.fsum(missing_a), missing_b / missing
        entropy = _relative_entropy(p, a) + _relative_entropy(q, b)
        primal += missing * (stream.mean_cost(p, q) + epsilon * entropy)
        primal -= epsilon * (1 - missing) * math.log1p(-missing) if missing < 1 else 0.0
    dual = math.fsum(a * f) + math.fsum(b * g) - epsilon * (math.fsum(plan.rows) - 1)
    return plan.cost, float(error), primal - dual


def _shrink(weight: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """min(1, weight / sums)."""
    above = sums > weight
    return np.where(above, weight / np.where(above, sums, 1), 1.0)


def _relative_entropy(p: np.ndarray, a: np.ndarray) -> float:
    """sum p log(p / a), zero where p is."""
    some = p > 0
    return math.fsum(p[some] * np.log(p[some] / a[some]))


__all__ = ["certify_fused", "certify_passes"]
