"""Sums over all pairs of points, block by block: values, row sums and exact gradients without an n x m matrix.

Everything here works on a flat batch (B, n, d) of points with weights (B, n); sums are float64 whatever the inputs.
The gradients are found in the same pass as the values, because a sum has one number to be differentiated: memory is that
of the inputs plus a block. Cost O(B n m d), symmetric sums half of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from discrepancy.kernels.first_order import first_order
from discrepancy.kernels.kernel import Kernel, Pullback

# Pairs in a block: 2 MiB of float64 stay in a core's cache; a GPU wants enough work for all its units.
_CPU_PAIRS = 1 << 18
_GPU_PAIRS = 1 << 23


class Block(NamedTuple):
    """One block of the kernel matrix: which members, rows and columns, the values (b, r, c) and their pullback."""

    batch: slice
    rows: slice
    columns: slice
    values: Tensor
    pullback: Pullback
    diagonal: bool


def working_dtype(x: Tensor) -> torch.dtype:
    """float64, in which blocks are computed and summed; float32 on a device that has no other."""
    return torch.float32 if x.device.type == "mps" else torch.float64


def _slices(count: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def blocks(kernel: Kernel, x: Tensor, y: Tensor | None = None) -> Iterator[Block]:
    """All blocks of k(x, y); without y those of k(x, x) on and above the diagonal, whose own entries are set to 0."""
    symmetric = y is None
    other = x if y is None else y
    n, m, dtype = x.shape[-2], other.shape[-2], working_dtype(x)
    pairs = _CPU_PAIRS if x.device.type == "cpu" else _GPU_PAIRS
    if n * m <= pairs:
        members, rows, columns = max(1, pairs // (n * m)), n, m
    else:
        side = int(pairs**0.5)
        rows = min(n, max(side, pairs // m))
        members, columns = 1, max(1, pairs // rows)
        if symmetric:
            rows = columns = side
    for batch in _slices(x.shape[0], members):
        here = kernel.members(batch, x.shape[0])
        for r in _slices(n, rows):
            left = x[batch, r].to(dtype)
            for c in _slices(m, columns):
                if symmetric and c.start < r.start:
                    continue
                diagonal = symmetric and c.start == r.start
                values, pullback = here.block(left, left if diagonal else other[batch, c].to(dtype))
                if diagonal:
                    values.diagonal(dim1=-2, dim2=-1).zero_()
                yield Block(batch, r, c, values, pullback, diagonal)


def _times(values: Tensor, weights: Tensor) -> Tensor:
    return (values @ weights.unsqueeze(-1)).squeeze(-1)


class CrossSum(torch.autograd.Function):
    """sum_ij a_i b_j k(x_i, y_j), shape (B,), float64; `CrossSum.apply(kernel, x, a, y, b)`."""

    @staticmethod
    def forward(ctx: Any, kernel: Kernel, x: Tensor, a: Tensor, y: Tensor, b: Tensor) -> Tensor:
        _, need_x, _, need_y, need_b = ctx.needs_input_grad
        dtype = working_dtype(x)
        rows = torch.zeros(a.shape, dtype=dtype, device=x.device)
        columns = torch.zeros(b.shape, dtype=dtype, device=x.device) if need_b else None
        gx = torch.zeros(x.shape, dtype=dtype, device=x.device) if need_x else None
        gy = torch.zeros(y.shape, dtype=dtype, device=x.device) if need_y else None
        for block in blocks(kernel, x, y):
            left, right = a[block.batch, block.rows].to(dtype), b[block.batch, block.columns].to(dtype)
            rows[block.batch, block.rows] += _times(block.values, right)
            if columns is not None:
                columns[block.batch, block.columns] += _times(block.values.mT, left)
            if need_x or need_y:
                px, py = block.pullback(left.unsqueeze(-1) * right.unsqueeze(-2))
                if gx is not None:
                    gx[block.batch, block.rows] += px
                if gy is not None:
                    gy[block.batch, block.columns] += py
        ctx.gradients = (gx, rows, gy, columns)
        ctx.dtypes = (x.dtype, a.dtype, y.dtype, b.dtype)
        return (a * rows).sum(-1)

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *_scaled(ctx, grads[0]))


class OffDiagonalSum(torch.autograd.Function):
    """sum_{i != j} a_i a_j k(x_i, x_j), shape (B,), float64; `OffDiagonalSum.apply(kernel, x, a)`."""

    @staticmethod
    def forward(ctx: Any, kernel: Kernel, x: Tensor, a: Tensor) -> Tensor:
        need_x = ctx.needs_input_grad[1]
        dtype = working_dtype(x)
        rows = torch.zeros(a.shape, dtype=dtype, device=x.device)
        gx = torch.zeros(x.shape, dtype=dtype, device=x.device) if need_x else None
        for block in blocks(kernel, x):
            left, right = a[block.batch, block.rows].to(dtype), a[block.batch, block.columns].to(dtype)
            rows[block.batch, block.rows] += _times(block.values, right)
            if not block.diagonal:  # the mirror image below the diagonal
                rows[block.batch, block.columns] += _times(block.values.mT, left)
            if gx is not None:
                coefficients = left.unsqueeze(-1) * right.unsqueeze(-2) * (1.0 if block.diagonal else 2.0)
                if block.diagonal:
                    coefficients.diagonal(dim1=-2, dim2=-1).zero_()
                px, py = block.pullback(coefficients)
                gx[block.batch, block.rows] += px
                gx[block.batch, block.columns] += py
        ctx.gradients = (gx, 2 * rows)
        ctx.dtypes = (x.dtype, a.dtype)
        return (a * rows).sum(-1)

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *_scaled(ctx, grads[0]))


def _scaled(ctx: Any, g: Tensor) -> list[Tensor | None]:
    """The stored gradients times the incoming one, in the dtype of each input, for the inputs that want one."""
    found = []
    for stored, dtype, wanted in zip(ctx.gradients, ctx.dtypes, ctx.needs_input_grad[1:], strict=True):
        found.append((g.view(-1, *[1] * (stored.ndim - 1)) * stored).to(dtype) if wanted and stored is not None else None)
    return found


class KernelMean(torch.autograd.Function):
    """sum_j a_j k(t_i, x_j) for each t_i, shape (B, k), float64; `KernelMean.apply(kernel, t, x, a)`.

    The blocks are computed again in the backward pass: nothing of size k x n is kept.
    """

    @staticmethod
    def forward(ctx: Any, kernel: Kernel, t: Tensor, x: Tensor, a: Tensor) -> Tensor:
        ctx.save_for_backward(t, x, a)
        ctx.kernel = kernel
        rows = torch.zeros(t.shape[:-1], dtype=working_dtype(t), device=t.device)
        for block in blocks(kernel, t, x):
            rows[block.batch, block.rows] += _times(block.values, a[block.batch, block.columns].to(rows.dtype))
        return rows

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        t, x, a = ctx.saved_tensors
        g = grads[0]
        gt, gx = torch.zeros_like(t, dtype=g.dtype), torch.zeros_like(x, dtype=g.dtype)
        ga = torch.zeros_like(a, dtype=g.dtype)
        for block in blocks(ctx.kernel, t, x):
            left, right = g[block.batch, block.rows], a[block.batch, block.columns].to(g.dtype)
            pt, px = block.pullback(left.unsqueeze(-1) * right.unsqueeze(-2))
            gt[block.batch, block.rows] += pt
            gx[block.batch, block.columns] += px
            ga[block.batch, block.columns] += _times(block.values.mT, left)
        return None, gt.to(t.dtype), gx.to(x.dtype), ga.to(a.dtype)
