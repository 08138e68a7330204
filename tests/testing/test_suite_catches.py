"""The conformity suite fails what is broken: one planted fault a case, and the checks that must notice it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from discrepancy._kinds import Claims, Discrepancy, PooledStatistic
from discrepancy._validate import SamplePair, sample
from discrepancy.testing import check_discrepancy
from discrepancy.testing.conformity import CHECKS, Case


def second_moment_gap(x: Tensor, a: Tensor, y: Tensor, b: Tensor) -> Tensor:
    """|E xx' - E yy'|^2 + |E x - E y|^2, a smooth squared norm with everything that the suite looks at."""
    mean = torch.einsum("...i,...ij->...j", a, x) - torch.einsum("...i,...ij->...j", b, y)
    square = torch.einsum("...i,...ij,...ik->...jk", a, x, x) - torch.einsum("...i,...ij,...ik->...jk", b, y, y)
    return mean.square().sum(-1) + square.square().sum((-1, -2))


@dataclass(frozen=True)
class Sound(Discrepancy):
    """Keeps its promises."""

    scale: float = 1.0
    claims: ClassVar[Claims] = Claims(translation_invariant=False, norm_power=2)

    def _value(self, pair: SamplePair, generator: torch.Generator | None) -> Tensor:
        return self.scale * second_moment_gap(pair.x, pair.a, pair.y, pair.b)

    def pooled(self, z: Any, *, generator: torch.Generator | None = None) -> PooledStatistic:
        cloud = sample(z, "z")

        def statistic(A: Tensor, B: Tensor) -> Tensor:
            return self.scale * second_moment_gap(cloud, A - B, cloud, torch.zeros_like(B))

        return torch.no_grad()(statistic)


@dataclass(frozen=True)
class WeightsDropped(Sound):
    def _value(self, pair, generator):
        return super()._value(
            SamplePair(pair.x, pair.y, torch.full_like(pair.a, 1 / pair.a.shape[-1]), pair.b, True, False), generator
        )


@dataclass(frozen=True)
class SignFlipped(Sound):
    def _value(self, pair, generator):
        return -super()._value(pair, generator)


@dataclass(frozen=True)
class Lopsided(Sound):
    def _value(self, pair, generator):
        return super()._value(pair, generator) * (1 + 1e-9 * pair.x.detach().square().mean((-1, -2)))


@dataclass(frozen=True)
class NearlyZero(Sound):
    def _value(self, pair, generator):
        return super()._value(pair, generator) + 1e-12


@dataclass(frozen=True)
class GradientDetached(Sound):
    def _value(self, pair, generator):
        return super()._value(SamplePair(pair.x.detach(), pair.y, pair.a, pair.b, False, False), generator)


@dataclass(frozen=True)
class WeightGradientDetached(Sound):
    def _value(self, pair, generator):
        return super()._value(SamplePair(pair.x, pair.y, pair.a, pair.b.detach(), False, False), generator)


@dataclass(frozen=True)
class BatchMixed(Sound):
    def _value(self, pair, generator):
        value = super()._value(pair, generator)
        return value if value.ndim == 0 else value + 1e-6 * value.mean()


@dataclass(frozen=True)
class SinglePrecision(Sound):
    def _value(self, pair, generator):
        return super()._value(SamplePair(pair.x.float(), pair.y.float(), pair.a.float(), pair.b.float(), False, False), generator)


@dataclass(frozen=True)
class PooledWithoutB(Sound):
    def pooled(self, z, *, generator=None):
        whole = super().pooled(z)
        return lambda A, B: whole(A, torch.full_like(B, 1 / B.shape[1]))


@dataclass(frozen=True)
class DrawsInSecret(Sound):
    def _value(self, pair, generator):
        return super()._value(pair, generator) * (1 + 1e-3 * torch.rand(()).to(pair.x.dtype))


@dataclass(frozen=True)
class ChangesItsInput(Sound):
    def _value(self, pair, generator):
        value = super()._value(pair, generator)
        pair.x.detach().mul_(1.5)
        return value


@dataclass(frozen=True)
class ClaimsTranslation(Sound):
    claims: ClassVar[Claims] = Claims(norm_power=2)


@dataclass(frozen=True)
class ClaimsDegree(Sound):
    claims: ClassVar[Claims] = Claims(translation_invariant=False, norm_power=2, degree=2)


@dataclass(frozen=True)
class ClaimsMetric(Sound):
    claims: ClassVar[Claims] = Claims(translation_invariant=False, norm_power=2, metric=True)


@dataclass
class Thawed(Discrepancy):
    claims: ClassVar[Claims] = Claims(translation_invariant=False)

    def _value(self, pair, generator):
        return second_moment_gap(pair.x, pair.a, pair.y, pair.b)


@dataclass(frozen=True)
class WitnessReversed(Sound):
    def witness(self, x, y, a=None, b=None):
        return lambda t: -t.square().sum(-1) * 0 - (t @ (sample(x).mean(0) - sample(y).mean(0)))


FAULTS = {
    WeightsDropped: {"inputs.weights_matter", "inputs.zero_weights", "gradients.in_weights", "resampling.pooled_is_direct"},
    SignFlipped: {"axioms.non_negative", "resampling.pooled_is_direct"},
    Lopsided: {"axioms.symmetric"},
    NearlyZero: {"axioms.zero_at_equality"},
    GradientDetached: {"gradients.in_points", "gradients.in_points_of_equal_weight"},
    WeightGradientDetached: {"gradients.in_weights"},
    BatchMixed: {"inputs.batches", "gradients.of_batches"},
    SinglePrecision: {"inputs.precisions", "gradients.in_points"},
    PooledWithoutB: {"resampling.pooled_is_direct", "resampling.pooled_norm"},
    DrawsInSecret: {"resampling.generators"},
    ChangesItsInput: {"inputs.layouts"},
    ClaimsTranslation: {"axioms.translation_invariant"},
    ClaimsDegree: {"axioms.homogeneous"},
    ClaimsMetric: {"axioms.triangle_inequality"},
    Thawed: {"inputs.frozen_options"},
    WitnessReversed: {"resampling.witness_function"},
}


def test_a_sound_discrepancy_passes() -> None:
    check_discrepancy(Sound())
    check_discrepancy(Sound(2.5))


@pytest.mark.parametrize(("broken", "noticed"), FAULTS.items(), ids=[cls.__name__ for cls in FAULTS])
def test_a_planted_fault_is_noticed(broken: type[Discrepancy], noticed: set[str]) -> None:
    for name in noticed:
        with pytest.raises(Exception) as failure:  # noqa: PT011 - a crash is a failed check too
            CHECKS[name](Case(broken()))
        assert not isinstance(failure.value, NameError | ImportError)
    with pytest.raises(AssertionError, match=broken.__name__):
        check_discrepancy(broken())


def test_only_discrepancies_are_examined() -> None:
    with pytest.raises(TypeError, match="class derived from Discrepancy"):
        check_discrepancy(3)  # type: ignore[arg-type]
