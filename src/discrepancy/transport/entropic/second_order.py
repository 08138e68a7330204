"""The gradient of the optimal value as a differentiable function, for second derivatives (Hessian-vector products).

By the envelope theorem the gradient is (sum_ij P_ij dC_ij, f, g); its own derivative needs those of plan and potentials, which
are implicit (`ImplicitPlan`), and of the ground cost's gradient, which autograd has.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from discrepancy.transport.entropic.implicit import ImplicitPlan
from discrepancy.transport.entropic.pair_costs import PointCosts, density_ratio
from discrepancy.transport.first_order import first_order_only

_ADVICE = "second derivatives of the optimal value are there, third ones are not"


class _PointSlopes(torch.autograd.Function):
    """sum_ij P_ij dC_ij in x (B, n, d) and y (B, m, d) for the plan of the given potentials, differentiable once, by blocks."""

    @staticmethod
    def forward(
        ctx: Any, costs: PointCosts, x: Tensor, y: Tensor, a: Tensor, b: Tensor, epsilon: Tensor, f: Tensor, g: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, y, a, b, epsilon, f, g)
        ctx.costs = costs
        totals = (torch.zeros_like(x, dtype=torch.float64), torch.zeros_like(y, dtype=torch.float64))
        for part in costs.parts((x, y)):
            ratio = density_ratio(f[:, part], g, costs.block((x, y), part), epsilon)
            costs.add(totals, (x, y), part, a[:, part, None] * b[:, None] * ratio)
        return totals

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        leaves, costs = ctx.saved_tensors, ctx.costs
        x, y, a, b, epsilon, f, g = (t.detach().double() for t in leaves)
        along_x, along_y = (grad.detach().double() for grad in grads)
        slopes = [torch.zeros_like(t) for t in (x, y, a, b, epsilon, f, g)]
        of_x, of_y, of_a, of_b, of_epsilon, of_f, of_g = slopes
        e = epsilon[:, None]
        for part in costs.parts((x, y), depth=4 * (x.shape[-1] + 1)):
            with torch.no_grad():
                ratio = density_ratio(f[:, part], g, costs.block((x, y), part), epsilon)
            plan = a[:, part, None] * b[:, None] * ratio
            second_x, second_y, change = _along(costs, x[:, part], y, plan, along_x[:, part], along_y)
            of_x[:, part] += second_x
            of_y += second_y
            weight = change * plan
            costs.add((of_x, of_y), (x, y), part, -weight / e[..., None])
            of_f[:, part] += weight.sum(-1) / e
            of_g += weight.sum(-2) / e
            of_a[:, part] += (change * ratio * b[:, None]).sum(-1)
            of_b += (change * ratio * a[:, part, None]).sum(-2)
            of_epsilon -= torch.xlogy(weight, ratio).sum((-1, -2)) / epsilon
        out = (
            first_order_only(slope.to(leaf.dtype), _ADVICE, *grads, *leaves) if need else None
            for slope, leaf, need in zip(slopes, leaves, ctx.needs_input_grad[1:], strict=True)
        )
        return (None, *out)


def _along(costs: PointCosts, x: Tensor, y: Tensor, plan: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The derivatives of H = d/dt sum_ij P_ij c(x_i + t u_i, y_j + t v_j) in x and y at fixed P, and in P (B, rows, m).

    The cost is taken pair by pair, whose double backward autograd knows for every named cost.
    """
    with torch.enable_grad():
        left, right, weight = x.clone().requires_grad_(), y.clone().requires_grad_(), plan.clone().requires_grad_()
        shape = (*plan.shape, x.shape[-1])
        pairs = costs.cost.pairs(left[:, :, None].expand(shape), right[:, None].expand(shape))
        first = torch.autograd.grad((weight * pairs).sum(), (left, right), create_graph=True, allow_unused=True)
        total = sum((slope * way).sum() for slope, way in zip(first, (u, v), strict=True) if slope is not None)
        if not isinstance(total, Tensor) or not total.requires_grad:
            return torch.zeros_like(x), torch.zeros_like(y), torch.zeros_like(plan)
        found = torch.autograd.grad(total, (left, right, weight), allow_unused=True)
    like = (x, y, plan)
    gx, gy, gp = (torch.zeros_like(t) if s is None else s for s, t in zip(found, like, strict=True))
    return gx, gy, gp


def smooth_slopes(optimum: ImplicitPlan) -> tuple[Tensor, ...]:
    """The gradient of the optimal value, (in the inputs ..., in a, in b), as differentiable tensors in float64.

    In the weights it is (f, g) of the gauge <a, f> = <b, g>. One pass over the pairs; a derivative of it costs one solve of the
    implicit system and a pass with d + 1 times the memory of a block.
    """
    if isinstance(optimum.costs, PointCosts):
        x, y = optimum.inputs
        slopes = _PointSlopes.apply(optimum.costs, x, y, optimum.a, optimum.b, optimum.epsilon, optimum.f, optimum.g)
        return (*slopes, optimum.f, optimum.g)  # type: ignore[misc]
    return (optimum.plan(), optimum.f, optimum.g)


__all__ = ["smooth_slopes"]
