"""Values and gradients of divergences of logits by the compiled loops, on tensors of the CPU."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
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
_VALUE = 4


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


@dataclass
class RowFacts:
    """What the gradient needs of the value: `numbers` (n, 9) a row, the rows that count, and what holds for all of them."""

    numbers: Any
    keep: Any
    everything: bool
    edges: bool = False

    def values(self, dtype: torch.dtype) -> tuple[Any, bool]:
        """The values (n,) in this precision, and whether all are finite; what overflows it has no gradient either."""
        numbers = self.numbers[:, _VALUE].astype(np.float64 if dtype == torch.float64 else np.float32)
        sound = np.isfinite(numbers)
        if sound.all():
            return numbers, True
        self.numbers[~sound, _VALUE] = numbers[~sound]
        return numbers, False


def evaluate(
    f: FDivergence, blocks: Sequence[RowBlock], where: Tensor | None, n: int, dtype: torch.dtype, asked: bool
) -> RowFacts:
    """The facts of the n rows, or of those that `where` names; those of the gradient where it is `asked` for.

    Raises NotALaw at the first row that is none.
    """
    from discrepancy._loops.logits.rows import FACTS, add_edges, normalise
    from discrepancy._loops.logits.sweeps import EVALUATE

    terms = _constants(f, dtype)
    everything = where is None
    keep = np.ones(n, bool) if where is None else where.reshape(n).numpy()
    facts = RowFacts(np.empty((n, FACTS)), keep, everything)

    def sweep(block: RowBlock) -> None:
        part, chosen = facts.numbers[block.start : block.stop], keep[block.start : block.stop]
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
            facts.edges = True
            add_edges(u, v, chosen, f.at_zero, f.slope_at_infinity, part)

    in_parallel(sweep, blocks)
    return facts


def gradient(
    f: FDivergence, blocks: Sequence[RowBlock], facts: RowFacts, scales: Tensor, dtype: torch.dtype, like: Tensor, of_p: bool
) -> Tensor:
    """scales (n,) times the gradient in u (`of_p`) or in v, of the shape and precision of `like` (n rows of V)."""
    from discrepancy._loops.logits.rows import edge_gradient
    from discrepancy._loops.logits.sweeps import DIFFERENTIATE

    numbers_of_rows, keep = facts.numbers, facts.keep
    if of_p:
        f, numbers_of_rows = f.reversed(), numbers_of_rows[:, _EXCHANGED].copy()
    terms = _constants(f, dtype)
    out = torch.empty(like.shape, dtype=like.dtype)
    table = out.view(-1, like.shape[-1])
    weights = _array(scales.detach().reshape(-1), dtype)

    def sweep(block: RowBlock) -> None:
        here = slice(block.start, block.stop)
        rows = table[here]
        if not (facts.everything or keep[here].any()):
            rows.zero_()
            return
        u, v = _numbers(block, dtype)
        if of_p:
            u, v = v, u
        part = rows if rows.dtype == dtype else torch.empty(rows.shape, dtype=dtype)
        numbers = part.numpy()
        for k, (kind, exponent, factor) in enumerate(terms):
            DIFFERENTIATE[kind](exponent, factor, u, v, keep[here], numbers_of_rows[here], weights[here], k > 0, numbers)
        if facts.edges:
            edge_gradient(u, v, keep[here], f.at_zero, numbers_of_rows[here], weights[here], numbers)
        if part is not rows:
            rows.copy_(part)

    in_parallel(sweep, blocks)
    return out


__all__ = ["NotALaw", "RowFacts", "evaluate", "gradient"]
