"""The gradient of an optimal transport cost: the plan and the potentials are held fixed (envelope theorem).

W = min_P <P, C> = max_{f,g} <a, f> + <b, g> is a minimum over plans of functions linear in C, hence dW/dC_ij = P_ij at the
optimal plan, and a maximum over potentials of functions linear in the weights, hence dW/da = f, dW/db = g. Where the optimal
plan or the potentials are not unique the function has a kink, and this is one of its sub- or supergradients. Only the entries
of the plan are touched: memory O(n + m), forward and backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from discrepancy.transport.exact.solution import ExactSolution
from discrepancy.transport.first_order import first_order_only

_ADVICE = (
    "the value of exact transport is piecewise smooth and only its first derivatives are given; "
    "for second ones take Sinkhorn, which is smooth"
)


@dataclass(frozen=True)
class Entries:
    """The plans of a batch of problems, end to end: problem (k,), row (k,), column (k,) as int64 and mass (k,) in float64."""

    problem: Tensor
    row: Tensor
    column: Tensor
    mass: Tensor

    @classmethod
    def of(cls, solutions: Sequence[ExactSolution]) -> Entries:
        """The entries of the solutions, in order."""

        def joined(arrays: Sequence[np.ndarray], dtype: torch.dtype) -> Tensor:
            return torch.from_numpy(arrays[0] if len(arrays) == 1 else np.concatenate(arrays)).to(dtype)

        sizes = [len(s.mass) for s in solutions]
        return cls(
            torch.from_numpy(np.repeat(np.arange(len(sizes)), sizes)),
            joined([s.rows for s in solutions], torch.int64),
            joined([s.columns for s in solutions], torch.int64),
            joined([s.mass for s in solutions], torch.float64),
        )


class _PlanValue(torch.autograd.Function):
    """sum_k mass_k cost_k of each problem, with the potentials as gradients in the weights."""

    @staticmethod
    def forward(ctx: Any, costs: Tensor, a: Tensor, b: Tensor, entries: Entries, f: Tensor, g: Tensor) -> Tensor:
        ctx.save_for_backward(costs, a, b)
        ctx.entries, ctx.f, ctx.g = entries, f, g
        total = torch.zeros(a.shape[0], dtype=torch.float64)
        return total.index_add(0, entries.problem, entries.mass * costs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (grad,), entries = grads, ctx.entries
        costs, a, b = ctx.saved_tensors
        slopes = (
            lambda: grad.detach()[entries.problem] * entries.mass,
            lambda: (grad.detach()[:, None] * ctx.f).to(a.dtype),
            lambda: (grad.detach()[:, None] * ctx.g).to(b.dtype),
        )
        out = (
            first_order_only(slope(), _ADVICE, grad, costs, a, b) if need else None
            for slope, need in zip(slopes, ctx.needs_input_grad[:3], strict=True)
        )
        return (*out, None, None, None)


def plan_value(costs: Tensor, a: Tensor, b: Tensor, entries: Entries, f: Tensor, g: Tensor) -> Tensor:
    """The transport costs (B,) in float64 of optimal plans, differentiable in the costs (k,) of their entries and, by the
    potentials f (B, n), g (B, m), in the weights a (B, n), b (B, m).

    The potentials are determined up to a constant, so the gradient is right along directions that keep the total mass; weights
    that a user hands over are divided by their sum, which removes the constant: their gradient is f - <a, f>.
    A second derivative raises RuntimeError.
    """
    return _PlanValue.apply(costs, a, b, entries, f, g)  # type: ignore[return-value]


__all__ = ["Entries", "plan_value"]
