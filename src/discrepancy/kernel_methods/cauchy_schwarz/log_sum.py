"""log sum_ij a_i b_j k(x_i, y_j) block by block: a value and gradients that survive samples whose kernel values underflow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from discrepancy.kernel_methods.streaming import blocks, working_dtype
from discrepancy.kernels import Kernel, LogKernel
from discrepancy.kernels.first_order import first_order


class LogCrossSum(torch.autograd.Function):
    """log sum_ij a_i b_j k(x_i, y_j), shape (B,), float64: `LogCrossSum.apply(kernel, x, a, y, b)`.

    x (B, n, d), y (B, m, d), weights a (B, n), b (B, m); k positive and resolved. The sum is kept relative to its largest term,
    found on the way, and so are the gradients. -inf, with gradient zero, where every term is zero. Time O(B n m d), memory that
    of the inputs plus a block; differentiable once.
    """

    @staticmethod
    def forward(ctx: Any, kernel: Kernel, x: Tensor, a: Tensor, y: Tensor, b: Tensor) -> Tensor:
        """Values and gradients in one pass."""
        needs = ctx.needs_input_grad[1:]
        dtype = working_dtype(x)
        top = torch.full(a.shape[:1], -torch.inf, dtype=dtype, device=x.device)
        rows = torch.zeros(a.shape, dtype=dtype, device=x.device)
        columns = torch.zeros(b.shape, dtype=dtype, device=x.device)
        gx = torch.zeros(x.shape, dtype=dtype, device=x.device) if needs[0] else None
        gy = torch.zeros(y.shape, dtype=dtype, device=x.device) if needs[2] else None
        for block in blocks(LogKernel(kernel), x, y):
            left, right = a[block.batch, block.rows].to(dtype), b[block.batch, block.columns].to(dtype)
            # Points of weight zero do not set the scale: one that lies much nearer would bury all others.
            live = (left > 0).unsqueeze(-1) & (right > 0).unsqueeze(-2)
            highest = torch.where(live, block.values, -torch.inf).amax((-2, -1))
            before = top[block.batch]
            now = torch.maximum(before, highest)
            shrink = torch.where(before == -torch.inf, torch.zeros_like(now), torch.exp(before - now))
            top[block.batch] = now
            for kept in (rows, columns, gx, gy):
                if kept is not None:
                    kept[block.batch] *= shrink.view(-1, *[1] * (kept.ndim - 1))
            shift = torch.where(now == -torch.inf, torch.zeros_like(now), now)
            # Above the top lie pairs of weight zero only, whose derivatives in the weight are let grow to e^300 and no further.
            values = torch.exp((block.values - shift[:, None, None]).clamp_max(300.0))
            rows[block.batch, block.rows] += (values @ right.unsqueeze(-1)).squeeze(-1)
            columns[block.batch, block.columns] += (values.mT @ left.unsqueeze(-1)).squeeze(-1)
            if gx is not None or gy is not None:
                px, py = block.pullback(torch.where(live, values * left.unsqueeze(-1) * right.unsqueeze(-2), 0.0))
                if gx is not None:
                    gx[block.batch, block.rows] += px
                if gy is not None:
                    gy[block.batch, block.columns] += py
        total = (a.to(dtype) * rows).sum(-1)
        inverse = torch.where(total > 0, 1 / total, torch.zeros_like(total))
        ctx.gradients = tuple(None if g is None else g * inverse.view(-1, *[1] * (g.ndim - 1)) for g in (gx, rows, gy, columns))
        ctx.dtypes = (x.dtype, a.dtype, y.dtype, b.dtype)
        return top + total.log()

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The stored gradients, scaled."""
        found: list[Tensor | None] = [None]
        for stored, dtype, wanted in zip(ctx.gradients, ctx.dtypes, ctx.needs_input_grad[1:], strict=True):
            scaled = None if stored is None or not wanted else grads[0].view(-1, *[1] * (stored.ndim - 1)) * stored
            found.append(None if scaled is None else scaled.to(dtype))
        return tuple(found)


__all__ = ["LogCrossSum"]
