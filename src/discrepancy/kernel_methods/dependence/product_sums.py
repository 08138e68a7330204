"""The three sums over two kernel matrices on the same rows that a joint law and the product of its margins need.

For K, L and weights w of sum one, with r = K w and s = L w:

    joint   J = sum_ij w_i w_j K_ij L_ij        the joint embedding with itself
    product M = (w'Kw) (w'Lw)                   the product of the margins with itself
    across  C = sum_i w_i r_i s_i               one with the other
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from discrepancy.kernel_methods.dependence.centred import KEPT_ENTRIES, filled_blocks, row_means
from discrepancy.kernel_methods.streaming import Block, working_dtype
from discrepancy.kernels import Kernel
from discrepancy.kernels.first_order import first_order


def _again(kept: list[Block] | None, kernel: Kernel, x: Tensor) -> Iterable[Block]:
    """The blocks of k(x, x): those kept, or computed anew."""
    return filled_blocks(kernel, x) if kept is None else kept


class ProductSums(torch.autograd.Function):
    """(J, C, w'Kw, w'Lw), each (B,) in float64: `ProductSums.apply(kernel_x, kernel_y, x, y, w)`.

    x (B, n, d1), y (B, n, d2), w (B, n). Time O(n^2 (d1 + d2)); memory that of the inputs plus a block: small matrices (32 MiB)
    are kept, larger ones computed twice forward and once backward. Differentiable once.
    """

    @staticmethod
    def forward(ctx: Any, kernel_x: Kernel, kernel_y: Kernel, x: Tensor, y: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        """Row means, then the sum of products."""
        mass = w.to(working_dtype(x))
        kept_x = kept_y = None
        if x.shape[0] * x.shape[1] ** 2 <= KEPT_ENTRIES:
            kept_x = list(filled_blocks(kernel_x, x))
            kept_y = kept_x if kernel_x is kernel_y and x is y else list(filled_blocks(kernel_y, y))
        ctx.blocks = lambda: (_again(kept_x, kernel_x, x), _again(kept_y, kernel_y, y))
        left_blocks, right_blocks = ctx.blocks()
        r, mean_x = row_means(left_blocks, mass)
        s, mean_y = row_means(right_blocks, mass)
        products = torch.zeros_like(mass)
        for left, right in zip(*ctx.blocks(), strict=True):
            both = left.values * right.values
            products[left.batch, left.rows] += (both @ mass[left.batch, left.columns, None])[..., 0]
            if not left.diagonal:
                products[left.batch, left.columns] += (both.mT @ mass[left.batch, left.rows, None])[..., 0]
        ctx.save_for_backward(x, y, mass, r, s, products)
        ctx.dtype = w.dtype
        return (mass * products).sum(-1), (mass * r * s).sum(-1), mean_x[:, 0, 0], mean_y[:, 0, 0]

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """dK_ij = w_i w_j (g_J L_ij + g_C (s_i + s_j) / 2 + g_x), the pairs on both sides of the diagonal together."""
        x, y, w, r, s, products = ctx.saved_tensors
        joint, across, own_x, own_y = (torch.zeros_like(w[:, 0]) if g is None else g for g in grads)
        _, _, need_x, need_y, need_w = ctx.needs_input_grad
        gx = torch.zeros_like(x, dtype=w.dtype) if need_x else None
        gy = torch.zeros_like(y, dtype=w.dtype) if need_y else None
        gw = None
        if need_w:
            gw = 2 * (joint[:, None] * products + own_x[:, None] * r + own_y[:, None] * s) + across[:, None] * r * s
        for left, right in zip(*ctx.blocks(), strict=True):
            rows, columns = (left.batch, left.rows), (left.batch, left.columns)
            here = left.batch
            twice = 1.0 if left.diagonal else 2.0
            weight = twice * w[rows][..., None] * w[columns][:, None]
            for found, block, other, means, own in ((gx, left, right, s, own_x), (gy, right, left, r, own_y)):
                if found is None:
                    continue
                mean = (means[rows][..., None] + means[columns][:, None]) / 2
                slope = joint[here, None, None] * other.values + across[here, None, None] * mean + own[here, None, None]
                from_rows, from_columns = block.pullback(weight * slope)
                found[rows] += from_rows
                found[columns] += from_columns
            if gw is not None:
                # d(sum_i w_i r_i s_i) / dw_k has, besides r_k s_k, the parts through r and s.
                half = across[here, None, None]
                for block, other in ((left, s), (right, r)):
                    gw[rows] += (half * block.values @ (w * other)[columns][..., None])[..., 0]
                    if not left.diagonal:
                        gw[columns] += (half * block.values.mT @ (w * other)[rows][..., None])[..., 0]
        return (
            None,
            None,
            None if gx is None else gx.to(x.dtype),
            None if gy is None else gy.to(y.dtype),
            None if gw is None else gw.to(ctx.dtype),
        )


__all__ = ["ProductSums"]
