"""Values and gradients of divergences of logits by the compiled loops, on tensors of the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from discrepancy._loops.threads import in_parallel
from discrepancy.divergences.f_divergence import FDivergence
from discrepancy.divergences.loop_terms import KINDS, LoopTerm, loop_terms
from discrepancy.divergences.row_blocks import RowBlock

# Columns of the facts that describe u first and v second, exchanged: the laws of the reversed divergence.
_EXCHANGED = (2, 3, 0, 1, 4, 6, 5, 7, 8)
_VALUE, _STATUS = 4, 7


def _numbers(block: RowBlock, dtype: torch.dtype) -> tuple[Any, Any]:
    """The block's logits as C-contiguous arrays in the precision of the loops; masked categories are -inf."""
    u, v, *mask = (t.detach() for t in block.rows)
    if mask:
        u, v = u.masked_fill(~mask[0], -torch.inf), v.masked_fill(~mask[0], -torch.inf)
    return u.to(dtype).contiguous().numpy(), v.to(dtype).contiguous().numpy()


def _constants(term: LoopTerm, dtype: torch.dtype) -> tuple[int, Any, Any]:
    scalar = np.float64 if dtype == torch.float64 else np.float32
    return KINDS.index(term.kind), np.array([term.exponent], scalar), np.array([term.factor], scalar)


def values(f: FDivergence, blocks: Sequence[RowBlock], keep: Any, dtype: torch.dtype, asked: bool) -> Any:
    """The facts (n, 9) of all rows that `keep` (n,) names: the value, and what the gradient needs where it is `asked` for."""
    from discrepancy._loops.logits.rows import FACTS, add_edges, normalise
    from discrepancy._loops.logits.sweeps import EVALUATE

    terms = [_constants(term, dtype) for term in loop_terms(f, torch.finfo(dtype).eps) or ()]
    facts = np.empty((keep.size, FACTS))
    at_zero, at_infinity = f.at_zero, f.slope_at_infinity

    def sweep(block: RowBlock) -> None:
        part, chosen = facts[block.start : block.stop], keep[block.start : block.stop]
        if not chosen.any():
            part[:] = 0.0
            return
        u, v = _numbers(block, dtype)
        edges = normalise(u, v, chosen, part)
        if part[:, _STATUS].any():
            return
        for kind, exponent, factor in terms:
            EVALUATE[kind](exponent, factor, u, v, chosen, asked, part)
        if edges:
            add_edges(u, v, chosen, at_zero, at_infinity, part)

    in_parallel(sweep, blocks)
    return facts


def gradient(
    f: FDivergence, blocks: Sequence[RowBlock], keep: Any, facts: Any, scales: Tensor, dtype: torch.dtype, like: Tensor, of_p: bool
) -> Tensor:
    """scales (n,) times the gradient in u (`of_p`) or in v, of the shape and precision of `like` (n rows of V)."""
    from discrepancy._loops.logits.rows import edge_gradient
    from discrepancy._loops.logits.sweeps import DIFFERENTIATE

    if of_p:
        f, facts = f.reversed(), facts[:, _EXCHANGED].copy()
    terms = [_constants(term, dtype) for term in loop_terms(f, torch.finfo(dtype).eps) or ()]
    out = torch.empty(like.shape, dtype=like.dtype)
    table = out.view(-1, like.shape[-1])
    weights = scales.reshape(-1).to(dtype).contiguous().numpy()
    edges = facts[:, 8].any()

    def sweep(block: RowBlock) -> None:
        here = slice(block.start, block.stop)
        rows = table[here]
        if not keep[here].any():
            rows.zero_()
            return
        u, v = _numbers(block, dtype)
        if of_p:
            u, v = v, u
        part = rows if rows.dtype == dtype else torch.empty(rows.shape, dtype=dtype)
        numbers = part.numpy()
        for k, (kind, exponent, factor) in enumerate(terms):
            DIFFERENTIATE[kind](exponent, factor, u, v, keep[here], facts[here], weights[here], k > 0, numbers)
        if edges:
            edge_gradient(u, v, keep[here], f.at_zero, facts[here], weights[here], numbers)
        if part is not rows:
            rows.copy_(part)

    in_parallel(sweep, blocks)
    return out


__all__ = ["gradient", "values"]
