"""Small discrepancies of one line each, whose tests are known from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._kinds import Claims, Discrepancy, PooledStatistic
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


@dataclass(frozen=True)
class MeanNorm(Discrepancy):
    """|mean of x - mean of y|^power, with a pooled form that takes signed rows."""

    power: int = 1
    claims: ClassVar[Claims] = Claims(metric=True, degree=1, norm_power=1)

    def __post_init__(self) -> None:
        object.__setattr__(self, "claims", Claims(metric=self.power == 1, degree=self.power, norm_power=self.power))

    def _value(self, pair: SamplePair, generator: torch.Generator | None) -> Tensor:
        return MeanShift()._value(pair, generator) ** self.power

    def pooled(self, z: Any, *, generator: torch.Generator | None = None) -> PooledStatistic:
        return lambda A, B: ((A - B) @ z).norm(dim=-1) ** self.power


@dataclass(frozen=True)
class SquaredShift(MeanShift):
    """|mean of x - mean of y|^2 without a claim to a norm: the route of a smooth discrepancy."""

    claims: ClassVar[Claims] = Claims(degree=2)

    def _value(self, pair: SamplePair, generator: torch.Generator | None) -> Tensor:
        return super()._value(pair, generator) ** 2


@dataclass(frozen=True)
class Ungraded(RiseOfMean):
    """The rise of the mean with its gradient in the weights cut off."""

    def _value(self, pair: SamplePair, generator: torch.Generator | None) -> Tensor:
        return super()._value(pair, generator).detach()
