"""Gradients of optimal values by the envelope theorem: the optimal potentials are held fixed, no iteration is unrolled.

For W(x, y, a, b) = max_{f,g} ...: dW/da_i = f_i, dW/db_j = g_j, and dW/dx is the gradient of sum_ij P_ij c(x_i, y_j) at
fixed plan P, accumulated over blocks of rows, so that nothing of size n m is formed above the memory budget.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy.costs import Cost
from discrepancy.transport.entropic.implicit import ImplicitPlan
from discrepancy.transport.entropic.pair_costs import PointCosts
from discrepancy.transport.entropic.second_order import smooth_slopes

# Pairs of a problem from which one compiled pass beats a few passes of torch.
_FUSED = 1 << 18


@dataclass(frozen=True)
class Dual:
    """Fixed potentials f (B, n), g (B, m), epsilon (B,), the cost, the bytes that a block may take, those that a second
    derivative may hold, and the gradients in the points where they were taken while the cost matrix was at hand."""

    f: Tensor
    g: Tensor
    epsilon: Tensor
    cost: Cost
    budget: int
    keep: int = 1 << 29
    slopes: tuple[Tensor, Tensor] | None = None

    def smooth_slopes(self, x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        """The gradients in x, y, a, b as differentiable tensors (implicit differentiation), for second derivatives."""
        costs = PointCosts(self.cost, self.budget)
        return smooth_slopes(ImplicitPlan.at(costs, (x, y), a, b, self.epsilon, self.f, self.g, self.keep))

    def contract(self, x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of sum_ij P_ij c(x_i, y_j) in x and y at fixed plan, in float64; compiled where pairs are many."""
        if self.slopes is not None:
            return self.slopes
        if x.device.type == "cpu" and x.shape[-2] * y.shape[-2] >= _FUSED:
            from discrepancy.transport.entropic.streamed.gradient import fused_contraction

            slopes = [
                fused_contraction(x[k], y[k], a[k], b[k], self.f[k], self.g[k], epsilon, self.cost)
                for k, epsilon in enumerate(self.epsilon.tolist())
            ]
            return torch.stack([s[0] for s in slopes]), torch.stack([s[1] for s in slopes])
        x, y, a, b = (t.detach().double() for t in (x, y, a, b))
        gx, gy = torch.zeros_like(x), torch.zeros_like(y)
        step = self.cost.block_size(x.shape[0] * y.shape[1], x.shape[-1], self.budget, 16)
        log_b = b.log()[:, None]
        for start in range(0, x.shape[1], step):
            part = slice(start, min(start + step, x.shape[1]))
            with torch.no_grad():
                exponent = self.f[:, part, None] + self.g[:, None] - self.cost.matrix(x[:, part], y)
                plan = (exponent / self.epsilon[:, None, None] + a[:, part].log()[..., None] + log_b).exp()
            left, right = self.cost.contract(x[:, part], y, plan)
            gx[:, part] = left
            gy += right
        return gx, gy


class _EntropicValue(torch.autograd.Function):
    """<a, f> + <b, g>, with envelope gradients."""

    @staticmethod
    def forward(ctx, x, y, a, b, dual):  # type: ignore[override]
        ctx.save_for_backward(x, y, a, b)
        ctx.dual = dual
        return (a.double() * dual.f).sum(-1) + (b.double() * dual.g).sum(-1)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[override]
        x, y, a, b = ctx.saved_tensors
        dual, need = ctx.dual, ctx.needs_input_grad
        if torch.is_grad_enabled():  # create_graph=True: the same gradient as a function that has derivatives itself
            slopes = dual.smooth_slopes(x, y, a, b)
        else:
            gx, gy = dual.contract(x, y, a, b) if need[0] or need[1] else (None, None)
            slopes = (gx, gy, dual.f, dual.g)
        return (*(_scaled(s, grad, like) if n else None for s, n, like in zip(slopes, need, (x, y, a, b))), None)


class _DebiasedValue(torch.autograd.Function):
    """W(x, y) - W(x, x) / 2 - W(y, y) / 2 as <a, f - p> + <b, g - q>, p and q the means of the two potentials of a self
    problem."""

    @staticmethod
    def forward(ctx, x, y, a, b, cross, self_x, self_y, clamp):  # type: ignore[override]
        ctx.save_for_backward(x, y, a, b)
        ctx.duals = (cross, self_x, self_y)
        slope_a = cross.f - (self_x.f + self_x.g) / 2
        slope_b = cross.g - (self_y.f + self_y.g) / 2
        ctx.slopes = (slope_a, slope_b)
        value = (a.double() * slope_a).sum(-1) + (b.double() * slope_b).sum(-1)
        return value.clamp_min(0) if clamp else value

    @staticmethod
    def backward(ctx, grad):  # type: ignore[override]
        x, y, a, b = ctx.saved_tensors
        (cross, self_x, self_y), need = ctx.duals, ctx.needs_input_grad
        if torch.is_grad_enabled():
            return (*_smooth_debiased(grad, x, y, a, b, *ctx.duals), None, None, None, None)
        gx, gy = cross.contract(x, y, a, b) if need[0] or need[1] else (None, None)
        if gx is not None and need[0]:
            gx = gx - _self_gradient(self_x, x, a)
        if gy is not None and need[1]:
            gy = gy - _self_gradient(self_y, y, b)
        slopes = (gx, gy, *ctx.slopes)
        out = (_scaled(s, grad, like) if n else None for s, n, like in zip(slopes, need, (x, y, a, b)))
        return (*out, None, None, None, None)


def _smooth_debiased(
    grad: Tensor, x: Tensor, y: Tensor, a: Tensor, b: Tensor, cross: Dual, self_x: Dual, self_y: Dual
) -> list[Tensor]:
    """The gradients of the divergence in x, y, a, b as differentiable tensors."""
    gx, gy, f, g = cross.smooth_slopes(x, y, a, b)
    own_x, other_x, p, q = self_x.smooth_slopes(x, x, a, a)
    own_y, other_y, r, s = self_y.smooth_slopes(y, y, b, b)
    slopes = (gx - (own_x + other_x) / 2, gy - (own_y + other_y) / 2, f - (p + q) / 2, g - (r + s) / 2)
    return [_scaled(slope, grad, like) for slope, like in zip(slopes, (x, y, a, b), strict=True)]


def _self_gradient(dual: Dual, x: Tensor, a: Tensor) -> Tensor:
    """Half the gradient of W(x, x): under a symmetric cost both roles of x contribute the same."""
    left, right = dual.contract(x, x, a, a)
    return left if dual.cost.symmetric else (left + right) / 2


def _scaled(slope: Tensor | None, grad: Tensor, like: Tensor) -> Tensor:
    assert slope is not None
    return (grad.reshape(-1, *[1] * (slope.ndim - 1)) * slope).to(like.dtype)


def entropic_value(x: Tensor, y: Tensor, a: Tensor, b: Tensor, dual: Dual) -> Tensor:
    """The optimal regularised value (B,) in float64, differentiable in x (B, n, d), y (B, m, d), a (B, n), b (B, m)."""
    return _EntropicValue.apply(x, y, a, b, dual)  # type: ignore[return-value]


def debiased_value(x: Tensor, y: Tensor, a: Tensor, b: Tensor, cross: Dual, self_x: Dual, self_y: Dual, *, clamp: bool) -> Tensor:
    """The Sinkhorn divergence (B,) in float64, differentiable in all four; exactly 0 where the potentials agree.

    clamp: where theory says that it is non-negative, a value below zero is solver error and becomes zero.
    """
    return _DebiasedValue.apply(x, y, a, b, cross, self_x, self_y, clamp)  # type: ignore[return-value]


__all__ = ["Dual", "debiased_value", "entropic_value"]
