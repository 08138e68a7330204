"""What a solve can show for itself: the plan's cost and marginals, and a rigorous duality gap from a rounded feasible plan."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy.transport.entropic.kept.certificate import certify_kept
from discrepancy.transport.entropic.problem import MatrixProblem, Problem


@dataclass(frozen=True)
class Certificate:
    """<P, C> (B,), the L1 error of both marginals (B,), and primal minus dual value of the rounded plan (B,), in units of the
    cost."""

    cost: Tensor
    marginal_error: Tensor
    dual_gap: Tensor


@torch.no_grad()
def certify(problem: Problem, f: Tensor, g: Tensor, epsilon: Tensor) -> Certificate:
    """Two compiled passes over a kept cost on the CPU, else three passes over the plan; nothing quadratic is added.

    The plan is made feasible as Altschuler, Weed and Rigollet (2017) do: rows, then columns, are scaled down to their
    weights, and what is missing is added as a product. Its primal value bounds the optimum from above, the dual value of
    (f, g) from below.
    """
    if not problem.kept:
        from discrepancy.transport.entropic.streamed.problem import FusedProblem

        if isinstance(problem, FusedProblem):
            from discrepancy.transport.entropic.streamed.certificate import certify_fused

            return Certificate(*certify_fused(problem, f, g, epsilon))
    if isinstance(problem, MatrixProblem) and problem.cost.device.type == "cpu":
        return Certificate(*certify_kept(problem, f, g, epsilon))
    a, b = problem.a, problem.b
    cost, columns = torch.zeros_like(epsilon), torch.zeros_like(b)
    row_sums, mass = [], torch.zeros_like(epsilon)
    scales = []
    scaled_columns = torch.zeros_like(b)
    for part, plan, ground in problem.plan_blocks(f, g, epsilon):
        cost = cost + _moved(plan, ground)
        sums = plan.sum(-1)
        row_sums.append(sums)
        mass = mass + sums.sum(-1)
        columns = columns + plan.sum(-2)
        scale = _shrink(a[:, part], sums)
        scales.append(scale)
        scaled_columns = scaled_columns + (plan * scale[..., None]).sum(-2)
    rows, row_scale = torch.cat(row_sums, -1), torch.cat(scales, -1)
    column_scale = _shrink(b, scaled_columns)
    error = (rows - a).abs().sum(-1) + (columns - b).abs().sum(-1)
    missing_b = (b - scaled_columns * column_scale).clamp_min(0)
    kept_rows = torch.cat(
        [
            (plan * (row_scale[:, part, None] * column_scale[:, None])).sum(-1)
            for part, plan, _ in problem.plan_blocks(f, g, epsilon)
        ],
        -1,
    )
    missing_a = (a - kept_rows).clamp_min(0)
    total = missing_b.sum(-1)
    share = torch.where(total > 0, 1 / torch.where(total > 0, total, torch.ones_like(total)), torch.zeros_like(total))
    primal = torch.zeros_like(epsilon)
    for part, plan, ground in problem.plan_blocks(f, g, epsilon):
        rounded = plan * (row_scale[:, part, None] * column_scale[:, None])
        rounded = rounded + (share[:, None] * missing_a[:, part])[..., None] * missing_b[:, None]
        reference = a[:, part, None] * b[:, None]
        ratio = torch.where(
            reference > 0, rounded / torch.where(reference > 0, reference, torch.ones_like(reference)), torch.ones_like(rounded)
        )
        entropy = torch.xlogy(rounded, ratio).sum((-1, -2))
        primal = primal + _moved(rounded, ground) + epsilon * entropy
    dual = (a * f).sum(-1) + (b * g).sum(-1) - epsilon * (mass - 1)
    return Certificate(cost, error, primal - dual)


def _moved(plan: Tensor, ground: Tensor) -> Tensor:
    """<P, C> of a block; a forbidden pair without mass costs nothing."""
    return (plan * torch.where(plan > 0, ground, torch.zeros_like(ground))).sum((-1, -2))


def _shrink(weight: Tensor, sums: Tensor) -> Tensor:
    """min(1, weight / sums), one where the sum is zero."""
    return torch.where(sums > weight, weight / torch.where(sums > 0, sums, torch.ones_like(sums)), torch.ones_like(sums))


__all__ = ["Certificate", "certify"]
