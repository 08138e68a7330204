"""Gradients of unbalanced optimal values by the envelope theorem: potentials and plan held fixed, no iteration unrolled.

    dV/da_i = R1(f_i) - epsilon exp((f_i - s_i) / epsilon) + epsilon m(b),   R1 = -phi1*(-.), s the soft-minima,

and alike in b; dV/dx is the gradient of sum_ij P_ij c(x_i, y_j) at fixed plan, over blocks of rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy.transport.entropic.envelope import Dual
from discrepancy.transport.unbalanced.newton import UnbalancedPotentials
from discrepancy.transport.unbalanced.penalties import MarginalPenalty


@dataclass(frozen=True)
class UnbalancedDual:
    """One solved problem as its value and slopes need it: the plan's contraction, the rewards R1(f) (B, n) and R2(g) (B, m) and
    the ratios exp((f - s) / epsilon), exp((g - t) / epsilon) of the plan's marginals to the weights."""

    plan: Dual
    reward_a: Tensor
    reward_b: Tensor
    ratio_a: Tensor
    ratio_b: Tensor

    @staticmethod
    def of(found: UnbalancedPotentials, plan: Dual, rows: MarginalPenalty, columns: MarginalPenalty) -> UnbalancedDual:
        """From potentials and their soft-minima."""
        e = plan.epsilon[:, None]
        ratio_a, ratio_b = ((found.f - found.s) / e).exp(), ((found.g - found.t) / e).exp()
        return UnbalancedDual(plan, rows.reward(found.f), columns.reward(found.g), ratio_a, ratio_b)

    def value(self, a: Tensor, b: Tensor) -> Tensor:
        """The dual value (B,) without its part epsilon m(a) m(b)."""
        slope_a = self.reward_a - self.plan.epsilon[:, None] * self.ratio_a
        return _weighted(a, slope_a) + _weighted(b, self.reward_b)

    def slopes(self) -> tuple[Tensor, Tensor]:
        """The derivatives of that value in a and in b."""
        e = self.plan.epsilon[:, None]
        return self.reward_a - e * self.ratio_a, self.reward_b - e * self.ratio_b


def _weighted(weight: Tensor, slope: Tensor) -> Tensor:
    weight = weight.detach().double()
    return torch.where(weight > 0, weight * slope, torch.zeros_like(slope)).sum(-1)


class _UnbalancedValue(torch.autograd.Function):
    """The optimal value, with envelope gradients."""

    @staticmethod
    def forward(ctx, x, y, a, b, dual):  # type: ignore[override]
        ctx.save_for_backward(x, y, a, b)
        ctx.dual = dual
        return dual.value(a, b) + dual.plan.epsilon * a.double().sum(-1) * b.double().sum(-1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[override]
        x, y, a, b = ctx.saved_tensors
        dual, need = ctx.dual, ctx.needs_input_grad
        gx, gy = dual.plan.contract(x, y, a, b) if need[0] or need[1] else (None, None)
        slope_a, slope_b = dual.slopes()
        e = dual.plan.epsilon[:, None]
        slopes = (
            gx,
            gy,
            slope_a + e * b.double().sum(-1, keepdim=True),
            slope_b + e * a.double().sum(-1, keepdim=True),
        )
        return (*(_scaled(s, grad, like) if n else None for s, n, like in zip(slopes, need, (x, y, a, b))), None)


class _DebiasedUnbalancedValue(torch.autograd.Function):
    """V(x, y) - V(x, x) / 2 - V(y, y) / 2 + epsilon (m(a) - m(b))^2 / 2, in which the parts epsilon m m cancel."""

    @staticmethod
    def forward(ctx, x, y, a, b, cross, self_x, self_y, clamp):  # type: ignore[override]
        ctx.save_for_backward(x, y, a, b)
        ctx.duals = (cross, self_x, self_y)
        value = cross.value(a, b) - self_x.value(a, a) / 2 - self_y.value(b, b) / 2
        return value.clamp_min(0) if clamp else value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[override]
        x, y, a, b = ctx.saved_tensors
        (cross, self_x, self_y), need = ctx.duals, ctx.needs_input_grad
        gx, gy = cross.plan.contract(x, y, a, b) if need[0] or need[1] else (None, None)
        if gx is not None and need[0]:
            gx = gx - sum(self_x.plan.contract(x, x, a, a)) / 2
        if gy is not None and need[1]:
            gy = gy - sum(self_y.plan.contract(y, y, b, b)) / 2
        slope_a, slope_b = cross.slopes()
        slopes = (gx, gy, slope_a - sum(self_x.slopes()) / 2, slope_b - sum(self_y.slopes()) / 2)
        out = (_scaled(s, grad, like) if n else None for s, n, like in zip(slopes, need, (x, y, a, b)))
        return (*out, None, None, None, None)


def _scaled(slope: Tensor | None, grad: Tensor, like: Tensor) -> Tensor:
    assert slope is not None
    return (grad.reshape(-1, *[1] * (slope.ndim - 1)) * slope).to(like.dtype)


def unbalanced_value(x: Tensor, y: Tensor, a: Tensor, b: Tensor, dual: UnbalancedDual) -> Tensor:
    """The optimal value (B,) in float64, differentiable in x (B, n, d), y (B, m, d), a (B, n), b (B, m)."""
    return _UnbalancedValue.apply(x, y, a, b, dual)  # type: ignore[return-value]


def debiased_unbalanced_value(
    x: Tensor,
    y: Tensor,
    a: Tensor,
    b: Tensor,
    cross: UnbalancedDual,
    self_x: UnbalancedDual,
    self_y: UnbalancedDual,
    *,
    clamp: bool,
) -> Tensor:
    """The debiased value (B,) in float64, differentiable in all four; exactly 0 where the three problems agree.

    clamp: where theory says that it is non-negative, a value below zero is solver error and becomes zero.
    """
    return _DebiasedUnbalancedValue.apply(x, y, a, b, cross, self_x, self_y, clamp)  # type: ignore[return-value]


__all__ = ["UnbalancedDual", "debiased_unbalanced_value", "unbalanced_value"]
