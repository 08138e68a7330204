"""The optimal value for a given cost matrix, with envelope gradients: the plan in the costs, the potentials in the weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from discrepancy.transport.entropic.implicit import ImplicitPlan
from discrepancy.transport.entropic.pair_costs import MatrixCosts, density_ratio
from discrepancy.transport.entropic.second_order import smooth_slopes


class _MatrixValue(torch.autograd.Function):
    """<a, f> + <b, g> for costs C (B, n, m)."""

    @staticmethod
    def forward(ctx: Any, C: Tensor, a: Tensor, b: Tensor, epsilon: Tensor, f: Tensor, g: Tensor, keep: int) -> Tensor:
        ctx.save_for_backward(C, a, b)
        ctx.found, ctx.keep = (epsilon, f, g), keep
        return (a.double() * f).sum(-1) + (b.double() * g).sum(-1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (grad,), (C, a, b), (epsilon, f, g) = grads, ctx.saved_tensors, ctx.found
        need = ctx.needs_input_grad[:3]
        slopes: tuple[Tensor | None, ...]
        if torch.is_grad_enabled():  # create_graph=True: the same gradient as a function that has derivatives itself
            slopes = smooth_slopes(ImplicitPlan.at(MatrixCosts(ctx.keep), (C,), a, b, epsilon, f, g, ctx.keep))
        else:
            plan = None
            if need[0]:
                plan = a.double()[..., None] * b.double()[:, None] * density_ratio(f, g, C.double(), epsilon)
            slopes = (plan, f, g)
        found = (
            (grad.reshape(-1, *[1] * (s.ndim - 1)) * s).to(like.dtype) if n and s is not None else None
            for s, n, like in zip(slopes, need, (C, a, b), strict=True)
        )
        return (*found, None, None, None, None)


def matrix_value(C: Tensor, a: Tensor, b: Tensor, epsilon: Tensor, f: Tensor, g: Tensor, keep: int) -> Tensor:
    """The optimal value (B,) in float64 at solved potentials, twice differentiable in C (B, n, m), a (B, n) and b (B, m).

    The gradient in C is the plan, of the size of C. keep: bytes that the second derivative may hold beyond it.
    """
    return _MatrixValue.apply(C, a, b, epsilon, f, g, keep)  # type: ignore[return-value]


__all__ = ["matrix_value"]
