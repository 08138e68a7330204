"""What an unbalanced solve can show for itself: the plan's cost and mass, and a rigorous duality gap."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from discrepancy.transport.entropic.certificate import certify as certify_balanced
from discrepancy.transport.entropic.problem import Problem
from discrepancy.transport.unbalanced.newton import UnbalancedPotentials
from discrepancy.transport.unbalanced.penalties import MarginalPenalty

if TYPE_CHECKING:
    from discrepancy.transport.entropic.streamed.problem import FusedProblem


@dataclass(frozen=True)
class UnbalancedCertificate:
    """<P, C>, the mass of P, and primal minus dual value, each (B,); P is the plan of the potentials."""

    cost: Tensor
    mass: Tensor
    dual_gap: Tensor


@torch.no_grad()
def certify(
    problem: Problem, found: UnbalancedPotentials, epsilon: Tensor, rows: MarginalPenalty, columns: MarginalPenalty
) -> UnbalancedCertificate:
    """One pass over the plan, two where one marginal is hard, four where both are; nothing quadratic is kept.

    Every plan on the support of a x b is feasible where the penalties are finite, and the gap of the plan of (f, g) is the sum
    of the Fenchel gaps of its marginals: terms that are zero at the optimum and never negative. A hard marginal is met first,
    by scaling its rows or columns; with both hard the plan is rounded as in balanced transport.
    """
    a, b = problem.a, problem.b
    cost, sums, column_sums = _marginals(problem, found.f, found.g, epsilon)
    mass = sums.sum(-1)
    if rows.hard and columns.hard:
        total = a.sum(-1)  # the balanced certificate is written for probabilities; f + epsilon log m has the plan P / m
        unit = certify_balanced(_of_mass_one(problem), found.f + epsilon[:, None] * total.log()[:, None], found.g, epsilon)
        gap = total * unit.dual_gap
        return UnbalancedCertificate(cost, mass, gap)
    # Scaling entry (i, j) by u_i v_j adds epsilon log(u_i v_j) to its exponent, hence to the entropy; one side at most is scaled.
    scale = _ratio(a, sums) if rows.hard else torch.ones_like(a)
    tilt = _ratio(b, column_sums) if columns.hard else torch.ones_like(b)
    if rows.hard:
        column_sums = _product(problem, found.f, found.g, epsilon, scale, transposed=True)
        sums = sums * scale
    elif columns.hard:
        sums = _product(problem, found.f, found.g, epsilon, tilt, transposed=False)
        column_sums = column_sums * tilt
    gap = _side(a, sums, found.f, rows) + _side(b, column_sums, found.g, columns)
    e = epsilon[:, None]
    if rows.hard or columns.hard:
        scaled, factor = (sums, scale) if rows.hard else (column_sums, tilt)
        # epsilon (KL(P' | a x b) - <P', exponent> / epsilon + m(P)) of the scaled plan: sum of P' log factor - P' + P.
        gap = gap + (e * (torch.xlogy(scaled, factor) - scaled + scaled / factor)).sum(-1)
    return UnbalancedCertificate(cost, mass, gap)


def _fused(problem: Problem) -> FusedProblem | None:
    """The problem if it is one of fused passes over points, whose loops are imported on demand."""
    if problem.kept or problem.a.device.type != "cpu":
        return None
    from discrepancy.transport.entropic.streamed.problem import FusedProblem

    return problem if isinstance(problem, FusedProblem) else None


def _marginals(problem: Problem, f: Tensor, g: Tensor, epsilon: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """<P, C> (B,), row sums (B, n) and column sums (B, m) of the plan of f and g: one pass."""
    fused = _fused(problem)
    if fused is not None:
        left, right = fused.scaled(f, fused.log_a, epsilon), fused.scaled(g, fused.log_b, epsilon)
        found = [stream.marginals(u, v, scale) for (stream, u, scale), (_, v, _) in zip(left, right, strict=True)]
        cost = torch.tensor([m.cost for m in found], dtype=torch.float64)
        rows, columns = (torch.from_numpy(np.stack([getattr(m, side) for m in found])) for side in ("rows", "columns"))
        return cost, rows, columns
    cost, sums, columns = torch.zeros_like(epsilon), [], torch.zeros_like(problem.b)
    for _, plan, ground in problem.plan_blocks(f, g, epsilon):
        cost = cost + (plan * torch.where(plan > 0, ground, torch.zeros_like(ground))).sum((-1, -2))
        sums.append(plan.sum(-1))
        columns = columns + plan.sum(-2)
    return cost, torch.cat(sums, -1), columns


def _product(problem: Problem, f: Tensor, g: Tensor, epsilon: Tensor, v: Tensor, *, transposed: bool) -> Tensor:
    """P v (B, n) for v (B, m), or P^T v (B, m) for v (B, n): one pass."""
    fused = _fused(problem)
    if fused is not None:
        return fused.apply(f, g, epsilon, v[..., None], transposed=transposed)[..., 0]
    if transposed:
        total = torch.zeros_like(problem.b)
        for part, plan, _ in problem.plan_blocks(f, g, epsilon):
            total = total + (plan * v[:, part, None]).sum(-2)
        return total
    return torch.cat([(plan * v[:, None]).sum(-1) for _, plan, _ in problem.plan_blocks(f, g, epsilon)], -1)


def _ratio(weight: Tensor, sums: Tensor) -> Tensor:
    """weight / sums, one where there is nothing to scale."""
    there = (sums > 0) & (weight > 0)
    return torch.where(there, weight / torch.where(there, sums, torch.ones_like(sums)), torch.ones_like(sums))


def _side(weight: Tensor, sums: Tensor, potential: Tensor, penalty: MarginalPenalty) -> Tensor:
    """sum of weight times the Fenchel gap of one marginal."""
    there = weight > 0
    ratio = torch.where(there, sums / torch.where(there, weight, torch.ones_like(weight)), torch.ones_like(weight))
    return torch.where(there, weight * penalty.fenchel_gap(ratio, potential), torch.zeros_like(weight)).sum(-1)


def _of_mass_one(problem: Problem) -> Problem:
    """The same costs between the weights divided by their mass."""
    a, b = problem.a / problem.a.sum(-1, keepdim=True), problem.b / problem.b.sum(-1, keepdim=True)
    fused = _fused(problem)
    if fused is not None:  # its streams hold the weights too
        return type(fused)(fused.x, fused.y, a, b, fused.ground, 64 << 20, fused.dtype)
    unit = copy.copy(problem)
    unit.a, unit.b, unit.log_a, unit.log_b = a, b, a.log(), b.log()
    return unit


__all__ = ["UnbalancedCertificate", "certify"]
