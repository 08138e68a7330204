"""Values and gradients of divergences of logits by the compiled loops, on tensors of the CPU."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from discrepancy._loops.threads import in_parallel
from discrepancy.divergences.f_divergence import FDivergence
from discrepancy.divergences.loop_terms import KINDS, loop_terms
from discrepancy.divergences.row_blocks import RowBlock

# Columns of the facts that describe u first and v second, exchanged: the laws of the reversed divergence.
_EXCHANGED = (2, 3, 0, 1, 4, 6, 5, 7, 8)
_EDGES = 8


def _numbers(block: RowBlock, dtype: torch.dtype) -> tuple[Any, Any]:
    """The block's logits as C-contiguous arrays in the precision of the loops; masked categories are -inf."""
    u, v = block.rows[0].detach(), block.rows[1].detach()
    if len(block.rows) > 2:
        u, v = u.masked_fill(~block.rows[2], -torch.inf), v.masked_fill(~block.rows[2], -torch.inf)
    return _array(u, dtype), _array(v, dtype)


def _array(t: Tensor, dtype: torch.dtype) -> Any:
    return t.numpy() if t.dtype == dtype and t.is_contiguous() else t.to(dtype).contiguous().numpy()


@functools.lru_cache(maxsize=256)
def _constants(f: FDivergence, dtype: torch.dtype) -> tuple[tuple[int, Any, Any], ...]:
    """(kind, exponent, factor) of each term, the numbers as the loops take them."""
    scalar = np.float64 if dtype == torch.float64 else np.float32
    return tuple(
        (KINDS.index(term.kind), np.array([term.exponent], scalar), np.array([term.factor], scalar))
        for term in loop_terms(f, torch.finfo(dtype).eps) or ()
    )


class NotALaw(ValueError):
    """Some row has a NaN, a +inf or no category."""


def values(f: FDivergence, blocks: Sequence[RowBlock], keep: Any, dtype: torch.dtype, asked: bool) -> Any:
    """The facts (n, 9) of all rows that `keep` (n,) names: the value, and what the gradient needs where it is `asked` for.

    Raises NotALaw at the first row that is none.
    """
    from discrepancy._loops.logits.rows import FACTS, add_edges, normalise
    from discrepancy._loops.logits.sweeps import EVALUATE

    terms = _constants(f, dtype)
    facts = np.empty((keep.size, FACTS))
    everything = bool(keep.all())

    def sweep(block: RowBlock) -> None:
        part, chosen = facts[block.start : block.stop], keep[block.start : block.stop]
        if not (everything or chosen.any()):
            part[:] = 0.0
            return
        u, v = _numbers(block, dtype)
        edges, bad = normalise(u, v, chosen, part)
        if bad:
            raise NotALaw
        for kind, exponent, factor in terms:
            EVALUATE[kind](exponent, factor, u, v, chosen, asked, part)
        if edges:
            add_edges(u, v, chosen, f.at_zero, f.slope_at_infinity, part)

    in_parallel(sweep, blocks)
    return facts


def gradient(
    f: FDivergence,
    blocks: Sequence[RowBlock],
    keep: Any,
    facts: Any,
    scales: Tensor,
    dtype: torch.dtype,
    like: Tensor,
    of_p: bool,
) -> Tensor:
    """scales (n,) times the gradient in u (`of_p`) or in v, of the shape and precision of `like` (n rows of V)."""
    from discrepancy._loops.logits.rows import edge_gradient
    from discrepancy._loops.logits.sweeps import DIFFERENTIATE

    if of_p:
        f, facts = f.reversed(), facts[:, _EXCHANGED].copy()
    terms = _constants(f, dtype)
    out = torch.empty(like.shape, dtype=like.dtype)
    table = out.view(-1, like.shape[-1])
    weights = _array(scales.detach().reshape(-1), dtype)
    edges, everything = bool(facts[:, _EDGES].any()), bool(keep.all())

    def sweep(block: RowBlock) -> None:
        here = slice(block.start, block.stop)
        rows = table[here]
        if not (everything or keep[here].any()):
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


__all__ = ["NotALaw", "gradient", "values"]
