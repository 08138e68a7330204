"""Sums of products of two centred kernel matrices on the same rows, block by block, with exact gradients.

For weights w that sum to one and Kc_ij = K_ij - r_i - r_j + m, r = K w, m = w'Kw (and Lc likewise),

    S = sum_ij w_i w_j Kc_ij Lc_ij

is the squared Hilbert-Schmidt norm of the cross-covariance of the two embeddings. Because Lc is centred, the derivative of S in
K_ij is w_i w_j Lc_ij, and in w_k, along directions that keep the mass, 2 sum_j w_j Kc_kj Lc_kj.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from discrepancy.kernel_methods.streaming import Block, blocks, working_dtype
from discrepancy.kernels.first_order import first_order
from discrepancy.kernels.kernel import Kernel

# Entries that are kept of both matrices from the pass over the row means to that over the products (32 MiB); above, blocks are
# computed again.
KEPT_ENTRIES = 1 << 21


def filled_blocks(kernel: Kernel, x: Tensor) -> Iterator[Block]:
    """The blocks on and above the diagonal of k(x, x), with the diagonal's values."""
    for block in blocks(kernel, x):
        if block.diagonal:
            own = kernel.members(block.batch, x.shape[0]).diagonal(x[block.batch, block.rows].to(block.values.dtype))
            block.values.diagonal(dim1=-2, dim2=-1).copy_(own)
        yield block


def row_means(parts: Iterable[Block], w: Tensor) -> tuple[Tensor, Tensor]:
    """K w (B, n) and w'Kw (B, 1, 1), given the blocks of K."""
    means = torch.zeros_like(w)
    for block in parts:
        means[block.batch, block.rows] += (block.values @ w[block.batch, block.columns, None])[..., 0]
        if not block.diagonal:
            means[block.batch, block.columns] += (block.values.mT @ w[block.batch, block.rows, None])[..., 0]
    return means, (w * means).sum(-1)[:, None, None]


def _centred(block: Block, means: Tensor, mean: Tensor) -> Tensor:
    rows, columns = means[block.batch, block.rows, None], means[block.batch, None, block.columns]
    return block.values - rows - columns + mean[block.batch]


class CentredSum(torch.autograd.Function):
    """S (B,), float64: `CentredSum.apply(kernel_x, kernel_y, x, y, w)` for x (B, n, d1), y (B, n, d2), w (B, n).

    Time O(n^2 (d1 + d2)), twice where the matrices are not kept; memory that of the inputs plus a block. Differentiable once.
    """

    @staticmethod
    def forward(ctx: Any, kernel_x: Kernel, kernel_y: Kernel, x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        """Means first, then products and gradients in one pass."""
        need_x, need_y = ctx.needs_input_grad[2:4]
        mass = w.to(working_dtype(x))
        keep = x.shape[0] * x.shape[1] ** 2 <= KEPT_ENTRIES
        kept_x, kept_y = (list(filled_blocks(k, t)) if keep else None for k, t in ((kernel_x, x), (kernel_y, y)))
        mean_x = row_means(kept_x if kept_x is not None else filled_blocks(kernel_x, x), mass)
        mean_y = row_means(kept_y if kept_y is not None else filled_blocks(kernel_y, y), mass)
        sums = torch.zeros_like(mass)
        gx = torch.zeros_like(x, dtype=mass.dtype) if need_x else None
        gy = torch.zeros_like(y, dtype=mass.dtype) if need_y else None
        pairs = zip(
            kept_x if kept_x is not None else filled_blocks(kernel_x, x),
            kept_y if kept_y is not None else filled_blocks(kernel_y, y),
            strict=True,
        )
        for left, right in pairs:
            rows, columns = (left.batch, left.rows), (left.batch, left.columns)
            K, L = _centred(left, *mean_x), _centred(right, *mean_y)
            product = K * L
            sums[rows] += (product @ mass[columns][..., None])[..., 0]
            if not left.diagonal:
                sums[columns] += (product.mT @ mass[rows][..., None])[..., 0]
            weight = mass[rows][..., None] * mass[columns][:, None] * (1.0 if left.diagonal else 2.0)
            for found, block, other in ((gx, left, L), (gy, right, K)):
                if found is not None:
                    from_rows, from_columns = block.pullback(weight * other)
                    found[rows] += from_rows
                    found[columns] += from_columns
        ctx.gradients = (gx, gy, 2 * sums)
        ctx.dtypes = (x.dtype, y.dtype, w.dtype)
        # A squared norm: what falls below zero is rounding.
        return (mass * sums).sum(-1).clamp_min(0.0)

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The stored gradients, scaled."""
        found: list[Tensor | None] = [None, None]
        for stored, dtype, wanted in zip(ctx.gradients, ctx.dtypes, ctx.needs_input_grad[2:], strict=True):
            scaled = None if stored is None or not wanted else grads[0].view(-1, *[1] * (stored.ndim - 1)) * stored
            found.append(None if scaled is None else scaled.to(dtype))
        return tuple(found)


def centred_matrix(kernel: Kernel, x: Tensor) -> Tensor:
    """Kc (n, n) of one cloud x (n, d) with equal weights, in working precision; quadratic memory."""
    n = x.shape[0]
    w = torch.full((1, n), 1 / n, dtype=working_dtype(x), device=x.device)
    whole = torch.empty(n, n, dtype=w.dtype, device=x.device)
    parts = list(filled_blocks(kernel, x[None])) if n * n <= KEPT_ENTRIES else None
    means, mean = row_means(parts if parts is not None else filled_blocks(kernel, x[None]), w)
    for block in parts if parts is not None else filled_blocks(kernel, x[None]):
        values = _centred(block, means, mean)[0]
        whole[block.rows, block.columns] = values
        whole[block.columns, block.rows] = values.T
    return whole


__all__ = ["KEPT_ENTRIES", "CentredSum", "centred_matrix", "filled_blocks", "row_means"]
