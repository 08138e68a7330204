"""Isotonic regression: the nearest non-decreasing sequence."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


class _Isotonic(torch.autograd.Function):
    """Values averaged over the blocks on which they are pooled; the derivative is the same average."""

    @staticmethod
    def forward(ctx, values, weights):  # type: ignore[override]
        rows = values.detach().reshape(-1, values.shape[-1])
        if rows.device.type == "cpu":
            from discrepancy._loops.isotonic import pool_adjacent_violators

            fitted = torch.empty(rows.shape, dtype=torch.float64)
            blocks = torch.empty(rows.shape, dtype=torch.int64)
            pool_adjacent_violators(
                rows.double().contiguous().numpy(), weights.double().contiguous().numpy(), fitted.numpy(), blocks.numpy()
            )
        else:
            fitted, blocks = _min_max(rows.double(), weights.double())
        ctx.save_for_backward(weights, blocks)
        return fitted.to(values.dtype).reshape(values.shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[override]
        weights, blocks = ctx.saved_tensors
        rows = grad.reshape(blocks.shape)
        share = weights.expand_as(rows)
        zeros = torch.zeros_like(rows)
        total = zeros.scatter_add(-1, blocks, rows)
        mass = zeros.scatter_add(-1, blocks, share)
        return (share * (total.gather(-1, blocks) / mass.gather(-1, blocks))).reshape(grad.shape), None


def _min_max(rows: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """x_k = max over i <= k of min over j >= k of the mean of values i..j, and the block of each k. K^2 memory a row."""
    zero = rows.new_zeros(rows.shape[0], 1)
    S = torch.cat([zero, (rows * weights).cumsum(-1)], -1)
    W = torch.cat([weights.new_zeros(1), weights.cumsum(-1)])
    span = W[None, 1:] - W[:-1, None]  # from i to j, in rows and columns
    means = (S[:, None, 1:] - S[:, :-1, None]) / torch.where(span > 0, span, torch.ones_like(span))
    means = torch.where(span > 0, means, torch.full_like(means, torch.inf))
    best = means.flip(-1).cummin(-1).values.flip(-1)  # the least mean from i to any j >= k
    k = torch.arange(rows.shape[-1], device=rows.device)
    best = torch.where(k[:, None] <= k[None, :], best, torch.full_like(best, -torch.inf))
    fitted = best.amax(-2)
    rises = fitted.diff(dim=-1) > 0
    return fitted, torch.cat([torch.zeros_like(rises[:, :1], dtype=torch.int64), rises.long().cumsum(-1)], -1)


def isotonic_projection(values: Float[Tensor, "... K"], weights: Float[Tensor, " K"]) -> Float[Tensor, "... K"]:
    """argmin over non-decreasing x of sum_k w_k (x_k - v_k)^2, row by row, for positive weights; differentiable in the values.

    Pool adjacent violators: linear time. Rows that already increase come back as they are. Elsewhere than on the CPU the
    min-max formula, quadratic in K. Source: Barlow, Bartholomew, Bremner and Brunk (1972).
    """
    if values.shape[-1] < 2 or not bool((values.detach().diff(dim=-1) < 0).any()):
        return values
    return _Isotonic.apply(values, weights.detach())  # type: ignore[return-value]


__all__ = ["isotonic_projection"]
