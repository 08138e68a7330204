"""Verification by a distance between embeddings instead of mutual information."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._kinds import Discrepancy
from discrepancy.methods.decoding.verification import require_input


@dataclass(frozen=True, eq=False)
class DiscrepancyScore:
    """-D(embed(x), embed(y)) for any `Discrepancy` D between two sets of token embeddings: near is good.

    `embed` takes tokens (n,) to points (n, d), such as a model's input embeddings; `embed_output` does so for the output where
    its tokens mean something else (default: the same). Outputs without a token score -inf.
    """

    discrepancy: Discrepancy
    embed: Callable[[Tensor], Tensor]
    embed_output: Callable[[Tensor], Tensor] | None = None
    generator_seed: int = 0  # one draw of directions for all candidates

    def __post_init__(self) -> None:
        """Check the discrepancy."""
        if not isinstance(self.discrepancy, Discrepancy):
            raise TypeError(f"discrepancy must be a Discrepancy such as EnergyDistance(), got {type(self.discrepancy).__name__}")

    def __call__(self, x_ids: Tensor, prefix: Tensor, spans: Sequence[Tensor]) -> Tensor:
        """The scores (k,) of spans behind a prefix (t,)."""
        with torch.no_grad():
            x, found = self.embed(require_input(x_ids)), []
            outward = self.embed if self.embed_output is None else self.embed_output
            for span in spans:
                y = torch.cat([prefix, span])
                generator = torch.Generator().manual_seed(self.generator_seed)
                found.append(-self.discrepancy(x, outward(y), generator=generator) if len(y) else x.new_tensor(-math.inf))
        return torch.stack(found).double()


__all__ = ["DiscrepancyScore"]
