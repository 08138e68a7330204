"""Divergences and entropies from exact scores, and the law of noise levels that integrates them."""

import math

import pytest
import torch

from discrepancy import NumericalError
from discrepancy.dynamics import (
    Cosine,
    LogNormalLevels,
    LogUniformLevels,
    MixtureScore,
    UniformTimes,
    VarianceExploding,
    VariancePreserving,
    score_divergence,
    score_entropy,
)

SCHEDULES = [VariancePreserving(), VariancePreserving(0.3, 15.0), VarianceExploding(0.002, 100.0), Cosine(0.002, 300.0)]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(mean, variance, schedule):
    return MixtureScore(
        torch.tensor([[mean]], dtype=torch.float64), torch.tensor([[[variance]]], dtype=torch.float64), schedule=schedule
    )


def test_the_constant_of_the_paper():
    """Z for beta from 0.1 to 20 and a floor of 1e-3, and its closed-form inverse distribution function."""
    schedule, levels = VariancePreserving(), LogUniformLevels()
    assert levels.mass(schedule) == pytest.approx(20.2559, abs=5e-5)

    def log_variance(t):
        total = 0.1 * t + 0.5 * 19.9 * t * t
        return math.log(-math.expm1(-total)) + total

    rate = (0.1 + 19.9e-3) / -math.expm1(-(0.1e-3 + 0.5 * 19.9e-6))
    assert levels.mass(schedule) == pytest.approx(rate * 1e-3 + log_variance(1.0) - log_variance(1e-3))
    drawn = schedule.time(levels.draw(200_000, schedule, seeded()))
    even = schedule.time(LogUniformLevels(stratified=True).draw(50, schedule, seeded()))
    assert bool((even.diff() > 0).all())
    middle = levels.quantile(torch.tensor([0.5], dtype=torch.float64), schedule)
    assert float((schedule.time(middle) > even).double().mean()) == pytest.approx(0.5)
    for t in (5e-4, 1e-2, 0.1, 0.5):
        below = rate * min(t, 1e-3) + (log_variance(t) - log_variance(1e-3) if t > 1e-3 else 0.0)
        share = below / levels.mass(schedule)
        assert float((drawn < t).double().mean()) == pytest.approx(share, abs=5 * math.sqrt(share / 200_000))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_kl_of_two_gaussians(schedule):
    x = 0.5 + 0.7 * torch.randn(20000, 1, generator=seeded(1), dtype=torch.float64)
    p, q = gaussian(0.5, 0.49, schedule), gaussian(-0.2, 1.3, schedule)
    truth = 0.5 * (math.log(1.3 / 0.49) + (0.49 + 0.49) / 1.3 - 1)
    found = score_divergence(p, q, x, schedule, generator=seeded(2))
    assert float(found) == pytest.approx(truth, abs=4 * float(found.standard_error) + 2e-3)
    assert found.low is None
    assert score_divergence(p, p, x, schedule, generator=seeded(2)).value == 0


def test_uniform_times_agree():
    x = torch.randn(40000, 1, generator=seeded(3), dtype=torch.float64)
    schedule = VariancePreserving(first=1e-5)
    p, q = gaussian(0.0, 1.0, schedule), gaussian(1.0, 2.0, schedule)
    found = score_divergence(p, q, x, schedule, levels=UniformTimes(), generator=seeded(4))
    truth = 0.5 * (math.log(2) + (1 + 1) / 2 - 1)
    assert float(found) == pytest.approx(truth, abs=4 * float(found.standard_error))


@pytest.mark.parametrize("deviation", [0.7, 1.0, 3.0])
def test_entropy_of_a_mixture(deviation):
    schedule = VariancePreserving()
    side = torch.randint(2, (20000, 1), generator=seeded(5)).double() * 2 - 1
    x = 4 * side + 0.5 * torch.randn(20000, 1, generator=seeded(6), dtype=torch.float64)
    exact = MixtureScore(
        torch.tensor([[-4.0], [4.0]], dtype=torch.float64), torch.full((2, 1, 1), 0.25, dtype=torch.float64), schedule=schedule
    )
    found = score_entropy(exact, x, schedule, deviation=deviation, generator=seeded(7))
    truth = 0.5 * math.log(2 * math.pi * math.e * 0.25) + math.log(2)
    assert float(found) == pytest.approx(truth, abs=4 * float(found.standard_error) + 2e-3)


def test_batches_of_fields_and_gradients():
    schedule = VariancePreserving()
    shift = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    x = torch.randn(50, 2, 3, generator=seeded(8), dtype=torch.float64)

    def unit(y, sigma, condition):
        return -y

    def shifted(y, sigma, condition):
        return -(y - schedule.scale(sigma)[:, None, None] * shift)

    found = score_divergence(unit, shifted, x, schedule, passes=400, generator=seeded(9))
    found.value.backward()
    # KL = 6 shift^2 / 2, its derivative 6 shift
    assert float(found) == pytest.approx(6 * 0.09 / 2, rel=0.05)
    assert float(shift.grad) == pytest.approx(6 * 0.3, rel=0.05)


def test_bad_input():
    x = torch.randn(10, 1)
    with pytest.raises(TypeError, match="LogUniformLevels"):
        score_divergence(lambda y, s, c: -y, lambda y, s, c: -2 * y, x, levels=LogNormalLevels())
    with pytest.raises(NumericalError, match="not finite at 10 of 10"):
        score_divergence(lambda y, s, c: y / 0, lambda y, s, c: -y, x)
    with pytest.raises(ValueError, match="returns"):
        score_divergence(lambda y, s, c: y[:, :0], lambda y, s, c: -y, x)
    with pytest.raises(ValueError, match="passes"):
        score_divergence(lambda y, s, c: -y, lambda y, s, c: -y, x, passes=0)
    with pytest.raises(ValueError, match="deviation"):
        score_entropy(lambda y, s, c: -y, x, deviation=0)
    with pytest.raises(ValueError, match="non-finite"):
        score_entropy(lambda y, s, c: -y, x / 0)
    with pytest.raises(ValueError, match="floor"):
        LogUniformLevels(0.0)
