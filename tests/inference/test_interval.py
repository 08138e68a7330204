"""Intervals against Welch's, against each other, at coincidence, and against known truths."""

from __future__ import annotations

import math

import pytest
import torch
from plain import MeanNorm, MeanShift, RiseOfMean, SquaredShift, Ungraded
from torch import Tensor

from discrepancy._validate import sample_pair
from discrepancy.directions import Uniform
from discrepancy.inference import bootstrap, permutation_test
from discrepancy.inference.influence import influence
from discrepancy.inference.ray import NormRay, QuadraticRay, Ray, lower_end
from discrepancy.kernel_methods import MMD, EnergyDistance
from discrepancy.kernels import Gaussian
from discrepancy.transport import LowerBound, SlicedWasserstein, Wasserstein


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(n: int, d: int = 1, seed: int = 0, shift: float = 0.0) -> Tensor:
    return torch.randn(n, d, generator=seeded(seed), dtype=torch.float64) + shift


class Folded(Ray):
    """T*_t = |t T + s N(0, 1)| with exact normal quantiles for draws."""

    def __init__(self, observed: float, s: float) -> None:
        self.observed = observed
        u = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
        self.noise = s * torch.special.ndtri(u)

    def draws(self, t: float):  # type: ignore[no-untyped-def]
        return (t * self.observed + self.noise).abs().numpy()


def test_the_ray_far_from_zero_is_the_normal_limit() -> None:
    low = lower_end(Folded(10.0, 1.0), 0.95, spread=0.1)
    assert 10 * low == pytest.approx(10 - 1.96, abs=0.02)


def test_the_ray_at_zero_spends_the_whole_error_on_the_low_side() -> None:
    # |N(0, 1)| exceeds 1.96 with probability 5 %: the lower end leaves zero exactly there
    assert lower_end(Folded(1.95, 1.0), 0.95, spread=0.5) == 0
    assert lower_end(Folded(1.97, 1.0), 0.95, spread=0.5) > 0


@pytest.mark.parametrize("power", [1, 2])
def test_norm_ray_does_not_depend_on_chunks_or_power(power: int) -> None:
    x, y = normal(20, 2, 1), normal(15, 2, 2, 0.5)
    pair = sample_pair(x, y)
    D = MeanNorm(power)
    whole = NormRay(D.pooled(torch.cat([x, y])), pair, power, 50, seed=3)
    pieces = NormRay(D.pooled(torch.cat([x, y])), pair, power, 50, seed=3, memory=1e-5)
    assert pieces.step < 50
    other = NormRay(MeanNorm(1).pooled(torch.cat([x, y])), pair, 1, 50, seed=3)
    for t in (0.0, 0.4, 1.0, 2.0):
        assert whole.draws(t) == pytest.approx(pieces.draws(t))
        assert whole.draws(t) == pytest.approx(other.draws(t) ** power)


def test_norm_ray_noise_has_the_covariance_of_the_difference() -> None:
    x, y = normal(30, 1, 1), 2 * normal(40, 1, 2)
    w = torch.linspace(0.5, 1.5, 30, dtype=torch.float64) / 30
    pair = sample_pair(x, y, w)
    ray = NormRay(MeanNorm(1).pooled(torch.cat([x, y])), pair, 1, 5000, seed=0)
    se = influence(RiseOfMean(), pair, 0).standard_error(pair)
    assert math.sqrt((ray.draws(0.0) ** 2).mean()) == pytest.approx(se, rel=0.04)


def test_quadratic_ray_of_a_squared_norm_is_its_norm_ray() -> None:
    x, y = normal(60, 1, 1), normal(50, 1, 2, 0.3)
    pair = sample_pair(x, y)
    psi = influence(SquaredShift(), pair, 0)
    smooth = QuadraticRay(MeanNorm(2).pooled(torch.cat([x, y])), pair, psi, 4000, 0, square=False)
    root = influence(MeanNorm(1), pair, 0)
    rooted = QuadraticRay(MeanNorm(1).pooled(torch.cat([x, y])), pair, root, 4000, 0, square=True)
    exact = NormRay(MeanNorm(2).pooled(torch.cat([x, y])), pair, 2, 4000, 0)
    for t in (0.0, 0.5, 1.0, 2.0):
        assert smooth.draws(t) == pytest.approx(rooted.draws(t))
        assert smooth.draws(t).mean() == pytest.approx(exact.draws(t).mean(), rel=0.1)
        assert smooth.draws(t).std() == pytest.approx(exact.draws(t).std(), rel=0.1)


@pytest.mark.parametrize("D", [MeanNorm(1), MeanShift(), Wasserstein(1), Wasserstein(2)])
def test_far_from_zero_every_route_is_the_normal_interval(D: MeanShift) -> None:
    x, y = normal(200, 1, 1), normal(300, 1, 2, 20.0)
    found = bootstrap(x, y, D, generator=seeded())
    se = math.sqrt(float(x.var() / 200 + y.var() / 300))
    assert found.value == pytest.approx(float(D(x, y)))
    assert found.standard_error == pytest.approx(se, rel=0.01)
    assert found.high == pytest.approx(found.value + 1.96 * se, rel=1e-3)
    assert found.low == pytest.approx(found.value - 1.96 * se, abs=0.3 * se)


def test_powers_of_a_norm_have_the_same_interval() -> None:
    x, y = normal(80, 2, 1), normal(90, 2, 2, 0.6)
    one, two = bootstrap(x, y, MeanNorm(1), generator=seeded()), bootstrap(x, y, MeanNorm(2), generator=seeded())
    smooth = bootstrap(x, y, SquaredShift(), generator=seeded())
    assert 0 < one.low < one.value < one.high
    assert (two.low, two.value, two.high) == pytest.approx((one.low**2, one.value**2, one.high**2))
    assert (smooth.value, smooth.high) == pytest.approx((two.value, two.high))
    assert smooth.low == pytest.approx(two.low, abs=0.2 * two.value)
    assert two.standard_error == pytest.approx(2 * one.value * one.standard_error)


def test_low_leaves_zero_only_where_the_permutation_test_rejects() -> None:
    for seed in range(8):
        x, y = normal(25, 1, seed), normal(25, 1, 100 + seed, 0.08 * seed)
        found = bootstrap(x, y, EnergyDistance(), generator=seeded())
        p = permutation_test(x, y, EnergyDistance(), permutations=4000, generator=seeded()).p_value
        if found.low > 0:
            assert p < 0.07  # 0.05 up to the Monte Carlo error of 399 draws
        if p > 0.07:
            assert found.low == 0
            assert "does not reject" in found.note


def test_an_unbiased_estimate_may_be_negative_and_lies_in_its_interval() -> None:
    D = MMD(Gaussian(1.0))
    values = []
    for seed in range(8):
        found = bootstrap(normal(40, 2, seed), normal(50, 2, 50 + seed), D, generator=seeded())
        assert found.low <= found.value <= found.high
        assert found.high > 0
        assert "biased companion" in found.note
        values.append(found.value)
    assert min(values) < 0
    x, y = normal(60, 2, 1), normal(60, 2, 2, 1.0)
    unbiased, biased = (
        bootstrap(x, y, D, generator=seeded()),
        bootstrap(x, y, MMD(Gaussian(1.0), biased=True), generator=seeded()),
    )
    assert (unbiased.low, unbiased.high) == (biased.low, biased.high)
    assert unbiased.value == pytest.approx(float(D(x, y)))


def test_a_bandwidth_from_the_data_is_recorded_and_fixed() -> None:
    x, y = normal(50, 2, 1), normal(60, 2, 2, 1.0)
    found = bootstrap(x, y, MMD(), generator=seeded())
    assert repr(MMD().resolved(x, y)) in found.method
    assert "Median" not in found.method


def test_identical_samples_have_low_zero_and_a_positive_high() -> None:
    x = normal(40, 1, 1)
    for D in (MeanNorm(1), MeanNorm(2), Wasserstein(1), Wasserstein(2), MMD(Gaussian(1.0), biased=True), SquaredShift()):
        found = bootstrap(x, x.flip(0), D, generator=seeded())
        assert found.low == 0
        assert found.high > 0.001
    assert "agree to rounding" in bootstrap(x, x, Wasserstein(1), generator=seeded()).note


def test_sliced_distances_add_the_error_of_their_directions() -> None:
    x, y = normal(60, 3, 1), normal(60, 3, 2, 1.0)
    D = SlicedWasserstein(2, directions=Uniform(20))
    found = bootstrap(x, y, D, generator=seeded())
    assert "random draw added" in found.method
    assert found.low < found.value < found.high
    assert bootstrap(x, y, D, generator=seeded()) == found
    assert bootstrap(x, y, D, generator=seeded(1)).value != found.value


def test_a_control_variate_changes_the_error_of_the_draw_and_not_the_interval_of_the_rows() -> None:
    x, y = normal(60, 3, 1), normal(60, 3, 2, 0.7)
    plain, controlled = (
        bootstrap(x, y, SlicedWasserstein(2, directions=Uniform(20), control_variate=control), generator=seeded(), resamples=100)
        for control in (None, LowerBound())
    )
    truth = 0.7  # SW_2 of a translation by (0.7, 0.7, 0.7) is |shift| / sqrt 3
    for found in (plain, controlled):
        assert 0 < found.low < truth < found.high
    assert controlled.standard_error < plain.standard_error
    assert controlled.high - controlled.low == pytest.approx(plain.high - plain.low, rel=0.25)


def test_no_interval_where_none_is_valid() -> None:
    x, y = normal(30, 1, 1), normal(30, 1, 2, 1.0)
    supremum = bootstrap(x, y, Wasserstein(math.inf), generator=seeded())
    assert supremum.low is None
    assert supremum.standard_error is None
    assert "no valid interval" in supremum.note
    single = bootstrap([1.0], y, Wasserstein(1), generator=seeded())
    assert single.low is None
    assert "single" in single.note
    assert float(single) == pytest.approx(float(Wasserstein(1)([1.0], y)))


def test_what_claims_nothing_gets_the_normal_interval() -> None:
    x, y = normal(50, 1, 1), normal(50, 1, 2, 1.0)
    graded, ungraded = (bootstrap(x, y, D, generator=seeded()) for D in (RiseOfMean(), Ungraded()))
    se = math.sqrt(float(x.var() / 50 + y.var() / 50))
    assert (graded.low, graded.high) == pytest.approx((graded.value - 1.96 * se, graded.value + 1.96 * se), rel=1e-3)
    assert ungraded.low == pytest.approx(graded.low)
    assert "leaving out" in ungraded.method


def test_level_dtype_weights_and_memory() -> None:
    x, y = normal(80, 1, 1), normal(80, 1, 2, 0.8)
    wide, narrow = (bootstrap(x, y, EnergyDistance(), level=v, generator=seeded()) for v in (0.99, 0.8))
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high
    assert wide.level == 0.99
    single = bootstrap(x.float(), y.float(), EnergyDistance(), generator=seeded())
    double = bootstrap(x, y, EnergyDistance(), generator=seeded())
    assert (single.value, single.standard_error, single.high) == pytest.approx(
        (double.value, double.standard_error, double.high), rel=1e-3
    )
    pieces = bootstrap(x, y, EnergyDistance(), generator=seeded(), memory=1e-4)
    assert (pieces.low, pieces.high) == pytest.approx((double.low, double.high))
    zero = torch.cat([torch.ones(80), torch.zeros(5)]).double() / 80
    padded = bootstrap(torch.cat([x, normal(5, 1, 9)]), y, EnergyDistance(), zero, generator=seeded())
    assert (padded.low, padded.high) == pytest.approx((double.low, double.high))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"level": 1.0}, ValueError, "level"),
        ({"resamples": 20}, ValueError, "at least 80"),
        ({"memory": 0.0}, ValueError, "memory"),
        ({"generator": 1}, TypeError, "generator"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        bootstrap(normal(9), normal(9), MeanNorm(1), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0])
def test_coverage_of_a_mean_shift(shift: float) -> None:
    missed = 0
    for seed in range(200):
        g = seeded(seed)
        x, y = torch.randn(60, 1, generator=g).double(), torch.randn(60, 1, generator=g).double() + shift
        found = bootstrap(x, y, MeanNorm(1), generator=g, resamples=200)
        missed += not found.low <= shift <= found.high
    assert missed <= 20  # 99.9 % point of Bin(200, 0.05)
