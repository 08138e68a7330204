"""Divergences of logits in blocks of rows, forward and backward: nothing as large as the logits is kept but the gradients.

The plain formula holds half a dozen tensors of the logits' size until its backward pass. Here a block of rows is taken from the
logits to its sum, and taken again for the gradient: peak memory is the inputs, the gradients asked for and one block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from discrepancy._results import NumericalError
from discrepancy.divergences.row_blocks import BLOCK, SMALL, RowBlock, precision, row_blocks

if TYPE_CHECKING:
    from discrepancy.divergences.divergence import Divergence


def plain_formula(divergence: Divergence, u: Tensor, v: Tensor, mask: Tensor | None, where: Tensor | None) -> Tensor:
    """The divergence of rows of logits in torch operations throughout: differentiable any number of times, in O(size) memory."""
    dtype = precision(u, v)
    u, v = u.to(dtype), v.to(dtype)
    if mask is not None:
        u, v = u.masked_fill(~mask, -torch.inf), v.masked_fill(~mask, -torch.inf)
    if where is not None:  # rows that do not count may hold anything; equal laws have value and gradient zero
        u, v = u.masked_fill(~where.unsqueeze(-1), 0.0), v.masked_fill(~where.unsqueeze(-1), 0.0)
    value = divergence._from_logits(torch.log_softmax(u, -1), torch.log_softmax(v, -1))
    return value if where is None else value.masked_fill(~where, 0.0)


def transformed() -> bool:
    """Whether torch.func or torch.compile is looking on, where a formula's course may not depend on the numbers."""
    return torch._C._are_functorch_transforms_active() or torch.compiler.is_compiling()


def streamed(divergence: Divergence, u: Tensor, v: Tensor, mask: Tensor | None, where: Tensor | None) -> tuple[Tensor, bool]:
    """The divergence along the last dimension of u, v (..., V), and whether all values are known to be finite.

    `mask` has the shape of u and v, and `where` the shape (...).

    By the compiled loops where the tensors are on the CPU and the divergence is one of the table's or a positive combination
    of such; else in torch, block by block. Raises ValueError as `Divergence.from_logits` says.
    """
    from discrepancy.divergences.loop_terms import loop_terms

    if transformed():  # nobody is told of infinite values where the numbers may not be looked at
        return plain_formula(divergence, u, v, mask, where), True
    looped = u.device.type == "cpu" and loop_terms(divergence, 1e-12) is not None and u.numel() > 0
    if not looped and u.numel() <= SMALL:
        _require_laws(u, v, mask, where)
        return plain_formula(divergence, u, v, mask, where), False
    return _Rows.apply(u, v, divergence, mask, where, looped)  # type: ignore[return-value]


class _Rows(torch.autograd.Function):
    """Saves the inputs, and a few numbers a row; the backward pass reads the inputs again."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, u: Tensor, v: Tensor, divergence: Divergence, mask: Tensor | None, where: Tensor | None, looped: bool
    ) -> tuple[Tensor, bool]:
        ctx.divergence, ctx.mask, ctx.where, ctx.looped = divergence, mask, where, looped
        dtype = precision(u, v)
        n = u.numel() // u.shape[-1]
        if looped:
            from discrepancy.divergences.loop_rows import NotALaw, evaluate

            asked = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
            try:
                ctx.facts = evaluate(divergence, _blocks(u, v, mask), where, n, dtype, asked)  # type: ignore[arg-type]
            except NotALaw:
                _require_laws(u, v, mask, where)
                raise
            numbers, sound = ctx.facts.values(dtype)
            if not sound and np.isnan(numbers).any():
                raise NumericalError(f"{divergence!r} of these logits overflows {dtype}: use float64")
            value = torch.from_numpy(numbers)
        else:
            value = torch.zeros(n, dtype=dtype, device=u.device)
            counted = None if where is None else where.reshape(n)
            for block in _blocks(u, v, mask):
                here = slice(block.start, block.stop)
                some = None if counted is None else counted[here]
                if some is None or bool(some.any()):
                    a, b, kept = block.rows[0], block.rows[1], block.rows[2] if mask is not None else None
                    _require_laws(a, b, kept, some)
                    value[here] = plain_formula(divergence, a, b, kept, some)
            sound = bool(torch.isfinite(value).all())
        ctx.save_for_backward(u, v)
        return value.reshape(u.shape[:-1]), sound

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        u, v = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: the gradient itself is to be differentiated
            return (*_twice(ctx, u, v, grad), None, None, None, None)
        if ctx.looped:
            from discrepancy.divergences.loop_rows import gradient

            blocks, dtype = _blocks(u, v, ctx.mask), precision(u, v)
            parts = [
                gradient(ctx.divergence, blocks, ctx.facts, grad, dtype, like, of_p) if need else None
                for like, of_p, need in zip((u, v), (True, False), ctx.needs_input_grad[:2], strict=True)
            ]
            return (*parts, None, None, None, None)
        return (*_by_blocks(ctx, u, v, grad), None, None, None, None)


def _blocks(u: Tensor, v: Tensor, mask: Tensor | None) -> list[RowBlock]:
    return row_blocks([u, v] if mask is None else [u, v, mask], BLOCK)


def _twice(ctx: Any, u: Tensor, v: Tensor, grad: Tensor) -> list[Tensor | None]:
    """The gradients by the plain formula, as functions of the inputs."""
    wanted = [t for t, need in zip((u, v), ctx.needs_input_grad[:2], strict=True) if need]
    value = plain_formula(ctx.divergence, u, v, ctx.mask, ctx.where)
    found = iter(torch.autograd.grad(value, wanted, grad, create_graph=True, materialize_grads=True))
    return [next(found) if need else None for need in ctx.needs_input_grad[:2]]


def _by_blocks(ctx: Any, u: Tensor, v: Tensor, grad: Tensor) -> list[Tensor | None]:
    """The gradients by automatic differentiation of one block at a time."""
    need_u, need_v = ctx.needs_input_grad[:2]
    out = [torch.zeros(t.shape, dtype=t.dtype, device=t.device) if need else None for t, need in ((u, need_u), (v, need_v))]
    tables = [None if t is None else t.view(-1, t.shape[-1]) for t in out]
    scales = grad.reshape(-1)
    where = None if ctx.where is None else ctx.where.reshape(-1)
    for block in _blocks(u, v, ctx.mask):
        here = slice(block.start, block.stop)
        some = None if where is None else where[here]
        if some is not None and not bool(some.any()):
            continue
        rows = [t.detach().requires_grad_(need) for t, need in zip(block.rows[:2], (need_u, need_v), strict=True)]
        with torch.enable_grad():
            value = plain_formula(ctx.divergence, rows[0], rows[1], block.rows[2] if ctx.mask is not None else None, some)
            found = iter(torch.autograd.grad(value, [t for t in rows if t.requires_grad], scales[here], materialize_grads=True))
        for table, row in zip(tables, rows, strict=True):
            if table is not None and row.requires_grad:
                table[here] = next(found)
    return out


def _require_laws(u: Tensor, v: Tensor, mask: Tensor | None, where: Tensor | None) -> None:
    """Raise ValueError for rows of logits with NaN or +inf, and for rows that exclude every category."""
    for name, t in (("u", u), ("v", v)):
        t = t.detach()
        if mask is not None:
            t = t.masked_fill(~mask, -torch.inf)
        if where is not None:
            t = t.masked_fill(~where.unsqueeze(-1), 0.0)
        top = t.amax(-1)  # NaN where there is one
        if bool(torch.isfinite(top).all()):
            continue
        bad = torch.isnan(t) | (t == torch.inf)
        if bool(bad.any()):
            where_bad = tuple(int(i) for i in bad.nonzero()[0])
            raise ValueError(f"{name} has {int(bad.sum())} logit(s) that are NaN or +inf, the first at index {where_bad}")
        raise ValueError(f"{name} has a row without a category: every logit is -inf or masked")


__all__ = ["plain_formula", "streamed", "transformed"]
