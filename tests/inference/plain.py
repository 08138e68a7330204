"""Small discrepancies of one line each, whose tests are known from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from discrepancy._kinds import Claims, Discrepancy
from discrepancy._validate import SamplePair


@dataclass(frozen=True)
class MeanShift(Discrepancy):
    """|mean of x - mean of y|, through the general pooled form."""

    claims: ClassVar[Claims] = Claims(metric=True, degree=1)

    def _value(self, pair: SamplePair, generator: torch.Generator | None) -> Tensor:
        gap = (pair.a.unsqueeze(-1) * pair.x).sum(-2) - (pair.b.unsqueeze(-1) * pair.y).sum(-2)
        return gap.norm(dim=-1)


@dataclass(frozen=True)
class RiseOfMean(Discrepancy):
    """mean of y - mean of x in one dimension: one-sided, so that a flipped label shows."""

    claims: ClassVar[Claims] = Claims(symmetric=False, non_negative=False, degree=1, dimension=1)

    def _value(self, pair: SamplePair, generator: torch.Generator | None) -> Tensor:
        return (pair.b * pair.y[..., 0]).sum(-1) - (pair.a * pair.x[..., 0]).sum(-1)
