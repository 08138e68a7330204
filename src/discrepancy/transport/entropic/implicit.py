"""Implicit differentiation: the optimal potentials as differentiable functions of points, costs, weights and epsilon.

A backward pass solves one linear system of n + m unknowns at the optimum (`ImplicitSystem`), whatever number of iterations
led there; no iteration is unrolled. The plan and its cost are then ordinary functions of the potentials, formed block by
block and once more, block by block, in the backward pass where they exceed the budget.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from discrepancy.transport.entropic.implicit_system import ImplicitSystem
from discrepancy.transport.entropic.pair_costs import PairCosts, density_ratio
from discrepancy.transport.first_order import first_order_only

_ADVICE = (
    "implicit differentiation gives first derivatives of plan, potentials and bare cost, and second ones of the optimal value; "
    "take finite differences of the gradient"
)
# Up to so many bytes a block, all of a plan is formed at once and autograd keeps what it needs.
_SMALL = 32 << 20


class _Potentials(torch.autograd.Function):
    """The solved f (B, n), g (B, m), tied to a, b, epsilon and the inputs of the costs."""

    @staticmethod
    def forward(
        ctx: Any, costs: PairCosts, keep: int, f: Tensor, g: Tensor, a: Tensor, b: Tensor, epsilon: Tensor, *inputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(a, b, epsilon, *inputs)
        ctx.costs, ctx.keep, ctx.found = costs, keep, (f, g)
        return f.clone(), g.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        a, b, epsilon, *inputs = ctx.saved_tensors
        with torch.no_grad():
            f, g = ctx.found
            system = ImplicitSystem(ctx.costs, inputs, a.double(), b.double(), f, g, epsilon.double(), ctx.keep)
            slopes, of_a, of_b, of_epsilon = system.pull(*system.adjoint(grads[0].double(), grads[1].double()))
        leaves = (a, b, epsilon, *inputs)
        out = (
            first_order_only(slope.to(leaf.dtype), _ADVICE, *grads, *leaves) if need else None
            for slope, leaf, need in zip((of_a, of_b, of_epsilon, *slopes), leaves, ctx.needs_input_grad[4:], strict=True)
        )
        return (None, None, None, None, *out)


class _SummedBlocks(torch.autograd.Function):
    """The sum over row ranges of form(part, *arguments), one range at a time in both directions; no graph lives in between."""

    @staticmethod
    def forward(ctx: Any, form: Callable[..., Tensor], parts: list[slice], *arguments: Tensor) -> Tensor:
        ctx.save_for_backward(*arguments)
        ctx.form, ctx.parts = form, parts
        total = form(parts[0], *arguments)
        for part in parts[1:]:
            total = total + form(part, *arguments)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        arguments = ctx.saved_tensors
        slopes = [torch.zeros_like(t) for t in arguments]
        for part in ctx.parts:
            with torch.enable_grad():
                leaves = [t.detach().requires_grad_() for t in arguments]
                found = torch.autograd.grad(ctx.form(part, *leaves), leaves, grads[0].detach(), allow_unused=True)
            for slope, own in zip(slopes, found, strict=True):
                if own is not None:
                    slope += own
        return (None, None, *(first_order_only(slope, _ADVICE, *grads, *arguments) for slope in slopes))


@dataclass(frozen=True)
class ImplicitPlan:
    """The optimum as differentiable functions: potentials f (B, n), g (B, m) in float64 with <a, f> = <b, g>, and the plan.

    `inputs` are (x, y) or (C,) as the user gave them, `epsilon` (B,).
    """

    costs: PairCosts
    inputs: tuple[Tensor, ...]
    a: Tensor
    b: Tensor
    epsilon: Tensor
    f: Tensor
    g: Tensor

    @classmethod
    def at(
        cls,
        costs: PairCosts,
        inputs: tuple[Tensor, ...],
        a: Tensor,
        b: Tensor,
        epsilon: Tensor,
        f: Tensor,
        g: Tensor,
        keep: int,
    ) -> ImplicitPlan:
        """At solved potentials. Their error enters the derivatives: ask the solver for a tolerance to match.

        keep: bytes that the backward pass may hold.
        """
        a, b = a.double(), b.double()
        f, g = _Potentials.apply(costs, keep, f, g, a, b, epsilon, *inputs)  # type: ignore[misc]
        shift = ((b * g).sum(-1) - (a * f).sum(-1))[:, None] / 2  # the gauge moves with the weights, too
        return cls(costs, inputs, a, b, epsilon, f + shift, g - shift)

    def _form(self, reduce: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
        """form(part, *arguments) = reduce(plan, costs) of a row range."""

        def form(part: slice, f: Tensor, g: Tensor, a: Tensor, b: Tensor, epsilon: Tensor, *inputs: Tensor) -> Tensor:
            cost = self.costs.block(inputs, part)
            plan = a[:, part, None] * b[:, None] * density_ratio(f[:, part], g, cost, epsilon)
            return reduce(plan, cost)

        return form

    @property
    def _arguments(self) -> tuple[Tensor, ...]:
        return (self.f, self.g, self.a, self.b, self.epsilon, *self.inputs)

    def _block(self, part: slice, reduce: Callable[[Tensor, Tensor], Tensor], recompute: bool) -> Tensor:
        """reduce(plan, costs) of a row range, formed again in the backward pass if `recompute`."""
        form = self._form(reduce)
        if not recompute:
            return form(part, *self._arguments)
        return checkpoint(form, part, *self._arguments, use_reentrant=False, preserve_rng_state=False)  # type: ignore[return-value]

    def _each(self, reduce: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
        whole = slice(0, self.a.shape[-1])
        if 8 * self.a.numel() * self.b.shape[-1] <= _SMALL:
            return [self._block(whole, reduce, False)]
        return [self._block(part, reduce, True) for part in self.costs.parts(self.inputs)]

    def cost(self) -> Tensor:
        """<P, C> (B,), with the derivative of the plan in it."""

        def reduce(plan: Tensor, cost: Tensor) -> Tensor:
            return (plan * torch.where(cost.isfinite(), cost, 0.0)).sum((-1, -2))

        if 8 * self.a.numel() * self.b.shape[-1] <= _SMALL:
            return self._block(slice(0, self.a.shape[-1]), reduce, False)
        return _SummedBlocks.apply(self._form(reduce), list(self.costs.parts(self.inputs)), *self._arguments)  # type: ignore[return-value]

    def plan(self) -> Tensor:
        """P (B, n, m)."""
        return torch.cat(self._each(lambda plan, _: plan), -2)

    def apply(self, v: Tensor) -> Tensor:
        """P v (B, n, k) for v (B, m, k)."""
        return torch.cat(self._each(lambda plan, _: torch.matmul(plan, v)), -2)

    def apply_transposed(self, v: Tensor) -> Tensor:
        """P^T v (B, m, k) for v (B, n, k)."""
        if 8 * self.a.numel() * self.b.shape[-1] <= _SMALL:
            return torch.matmul(self.plan().mT, v)
        parts = [
            self._block(part, lambda plan, _, part=part: torch.matmul(plan.mT, v[:, part]), True)
            for part in self.costs.parts(self.inputs)
        ]
        return torch.stack(parts).sum(0)


__all__ = ["ImplicitPlan"]
