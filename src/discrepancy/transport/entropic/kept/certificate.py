"""The certificate of a plan on a kept cost: two compiled passes over the plan and one over the costs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from discrepancy._results import NumericalError
from discrepancy.transport.entropic.problem import MatrixProblem
from discrepancy.transport.exact.dense import solve_matrix


def certify_kept(problem: MatrixProblem, f: Tensor, g: Tensor, epsilon: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """<P, C>, the L1 marginal error and a rigorous duality gap, (B,) each.

    With the plan rounded as P' = diag(r) P diag(s) <= its weights and the missing mass theta added as a product alpha beta^T /
    theta, the primal value of the sum is bounded by convexity of t log t,

        <P', C> + eps KL(P')  =  sum_i r'_i (f_i + eps log r_i) + sum_j c'_j (g_j + eps log s_j)
        KL(sum) <= KL(P') - (1 - theta) log(1 - theta) + <alpha, log alpha/a> + <beta, log beta/b> - 2 theta log theta,

    r', c' the marginals of P': its entropy needs marginals only, since log P' is a sum of potentials and the cost.
    """
    from discrepancy._loops.threads import in_parallel

    arrays = (problem.a.numpy(), problem.b.numpy(), f.double().numpy(), g.double().numpy(), epsilon.double().numpy())
    cost = problem.cost.numpy()
    found = in_parallel(lambda k: _certify(cost[k], *(t[k] for t in arrays)), range(len(cost)))
    total, error, gap = torch.tensor(found, dtype=torch.float64).T
    return total, error, gap


def _certify(cost, a, b, f, g, epsilon) -> tuple[float, float, float]:
    from discrepancy._loops.entropic.certificate import plan_sums, product_cost, scaled_row_sums
    from discrepancy._loops.entropic.newton import LN2

    scale = 1 / (epsilon * LN2)
    with np.errstate(divide="ignore"):
        u, h = f * scale + np.log2(a), g * scale + np.log2(b)
    rows, columns, lowered, kept = np.empty_like(a), np.empty_like(b), np.empty_like(b), np.empty_like(a)
    total = plan_sums(cost, scale, u, h, a, rows, columns, lowered)
    error = np.abs(rows - a).sum() + np.abs(columns - b).sum()
    r, s = _lowered(a, rows), _lowered(b, lowered)
    scaled_row_sums(cost, scale, u, h, r, s, kept)
    held = lowered * s
    alpha, beta = np.maximum(a - kept, 0), np.maximum(b - held, 0)
    # Equal but for rounding; the larger of the two keeps the bound on the safe side.
    theta = max(alpha.sum(), beta.sum())
    primal = (kept * (f + epsilon * np.log(r))).sum() + (held * (g + epsilon * np.log(s))).sum()
    if theta > 0:
        missing = product_cost(cost, alpha, beta) / theta
        if np.isinf(missing):
            primal = _around_forbidden(cost, a, b, kept, held, theta, primal, epsilon)
        else:
            entropy = _relative(alpha, a) + _relative(beta, b) - 2 * theta * np.log(theta)
            primal += missing + epsilon * (entropy - (1 - theta) * _log1p(-theta))
    dual = (a * f).sum() + (b * g).sum() - epsilon * (rows.sum() - 1)
    return float(total), float(error), float(primal - dual)


def _around_forbidden(cost, a, b, kept, held, theta: float, primal: float, epsilon: float) -> float:
    """The same bound where the missing mass may not be added as a product: as any plan X that avoids the forbidden pairs.

    X serves what is missing plus a share of P', as small a share as leaves it a way: at the whole, X is a plan between a and b.
    """
    for share in (0.0, min(1.0, 100 * theta), 1.0):
        left, right = np.maximum(a - (1 - share) * kept, 0), np.maximum(b - (1 - share) * held, 0)
        mass = max(left.sum(), right.sum())
        try:
            rest = solve_matrix(cost, left / left.sum(), right / right.sum(), max_pivots=0)
        except NumericalError:
            continue
        moved = mass * rest.mass
        moved_cost = (moved * cost[rest.rows, rest.columns]).sum()
        entropy = _relative(moved, a[rest.rows] * b[rest.columns]) - mass * np.log(mass)
        own = (1 - share) * (1 - theta)
        return float((1 - share) * primal + moved_cost + epsilon * (entropy - own * _log1p(-theta)))
    return np.inf


def _log1p(t: float) -> float:
    """log(1 + t), zero at t = -1, where it is multiplied by zero."""
    return float(np.log1p(t)) if t > -1 else 0.0


def _lowered(weight: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """min(1, weight / sums)."""
    over = sums > weight
    return np.where(over & (weight > 0), weight / np.where(over, sums, 1), 1.0)


def _relative(part: np.ndarray, whole: np.ndarray) -> float:
    """sum part log(part / whole), where part is positive."""
    there = part > 0
    return float((part[there] * np.log(part[there] / whole[there])).sum())


__all__ = ["certify_kept"]
