"""Marginal penalties: conjugate pairs, proximal steps, a penalty of one's own."""

import math
from dataclasses import dataclass

import pytest
import torch

from discrepancy.transport import Balanced, KLPenalty, MarginalPenalty, TotalVariationPenalty, UnbalancedSinkhorn

RATIOS = torch.cat([torch.zeros(1), torch.logspace(-6, 6, 20001)]).double()


@dataclass(frozen=True)
class ReverseKLPenalty(MarginalPenalty):
    """rho (t - 1 - log t): its potentials stay below rho, and no formula for its proximal step is given."""

    rho: float = 1.0

    @property
    def upper(self) -> float:
        return math.inf

    @property
    def lower(self) -> float:
        return -0.999999 * self.rho

    def price(self, ratio):
        return self.rho * (ratio - 1 - ratio.log())

    def reward(self, f):
        return self.rho * torch.log1p(f / self.rho)

    def mass(self, f):
        return 1 / (1 + f / self.rho)

    def slope(self, f):
        return 1 / (self.rho * (1 + f / self.rho) ** 2)


@dataclass(frozen=True)
class PlainKL(KLPenalty):
    """Kullback-Leibler without its closed forms."""

    @property
    def decay(self):
        return None


POTENTIALS = {
    KLPenalty(0.7): torch.linspace(-3, 5, 9).double(),
    TotalVariationPenalty(1.5): torch.linspace(-1.5, 1.5, 7).double(),
    ReverseKLPenalty(2.0): torch.linspace(-1.5, 6, 9).double(),
}


@pytest.mark.parametrize("penalty", POTENTIALS, ids=repr)
def test_reward_is_the_conjugate_of_the_price(penalty):
    """-phi*(-f) = min_t phi(t) + t f, by a fine grid of t; `mass` is where the minimum is, `slope` its derivative."""
    f = POTENTIALS[penalty]
    grid = penalty.price(RATIOS) + RATIOS * f[:, None]
    torch.testing.assert_close(penalty.reward(f), grid.min(-1).values, atol=1e-5, rtol=1e-5)
    assert float(penalty.reward(torch.zeros(1).double())) == 0
    assert bool((penalty.fenchel_gap(RATIOS, f[:, None]) >= 0).all())
    if not isinstance(penalty, TotalVariationPenalty):
        torch.testing.assert_close(penalty.mass(f), RATIOS[grid.argmin(-1)], atol=1e-3, rtol=2e-3)
        torch.testing.assert_close(penalty.fenchel_gap(penalty.mass(f), f), torch.zeros_like(f), atol=1e-12, rtol=0)
        h = 1e-6
        torch.testing.assert_close(penalty.slope(f), (penalty.mass(f - h) - penalty.mass(f + h)) / (2 * h), atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("penalty", [*POTENTIALS, Balanced(), PlainKL(0.7)], ids=repr)
@pytest.mark.parametrize("epsilon", [1e-3, 0.3, 20.0])
def test_the_step_maximises_the_dual_of_one_point(penalty, epsilon):
    s = torch.linspace(-4, 9, 14).double()
    e = torch.tensor(epsilon).double()
    f = penalty.step(s, e)

    def dual(f):
        return penalty.reward(f) - e * ((f - s) / e).exp()

    best = dual(f)
    for move in (-1e-4, 1e-4, -0.1, 0.1):
        moved = (f + move).clamp(penalty.lower, penalty.upper)
        within = torch.isfinite(best)  # at a bound the exponential may overflow
        assert bool((dual(moved) <= best + 1e-12 * best.abs())[within].all())


def test_the_general_step_is_that_of_the_closed_form():
    s = torch.linspace(-50, 80, 31).double()
    for epsilon in (1e-3, 0.2, 7.0):
        e = torch.tensor(epsilon).double()
        torch.testing.assert_close(PlainKL(0.7).step(s, e), KLPenalty(0.7).step(s, e), atol=1e-12, rtol=1e-12)


def test_a_penalty_of_ones_own_solves():
    """The general path against the closed form for the same penalty, and a penalty that has none against its certificate."""
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(12, 2, generator=generator).double(), torch.randn(9, 2, generator=generator).double() + 0.5
    want = UnbalancedSinkhorn(0.1, penalty=KLPenalty(0.7)).solve(x, y)
    got = UnbalancedSinkhorn(0.1, penalty=PlainKL(0.7)).solve(x, y)
    torch.testing.assert_close(got.value, want.value, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(got.plan(), want.plan(), atol=1e-6, rtol=1e-4)
    own = UnbalancedSinkhorn(0.1, penalty=(ReverseKLPenalty(2.0), PlainKL(0.7))).solve(x, y)
    assert own.outcome.ok
    assert 0 <= float(own.dual_gap) < 1e-8


def test_large_rho_does_not_cancel():
    f = torch.tensor([1.0, -2.0]).double()
    penalty = KLPenalty(1e12)
    torch.testing.assert_close(penalty.reward(f), f, rtol=1e-11, atol=0)
    assert float(penalty.fenchel_gap(penalty.mass(f), f).max()) < 1e-9


@pytest.mark.parametrize("kind", [KLPenalty, TotalVariationPenalty])
@pytest.mark.parametrize("rho", [0.0, -1.0, math.nan, math.inf])
def test_rho_must_be_positive_and_finite(kind, rho):
    with pytest.raises(ValueError, match="rho must be"):
        kind(rho)
