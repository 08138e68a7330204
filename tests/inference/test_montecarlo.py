"""Exact binomial intervals against their defining tail sums and against coverage by enumeration."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import binom

from discrepancy.inference import binomial_band, clopper_pearson, inverse_sampling_interval, monte_carlo_p


def test_monte_carlo_p_counts_the_observed_value_as_a_draw() -> None:
    assert monte_carlo_p(0, 999) == 1 / 1000
    assert monte_carlo_p(999, 999) == 1
    assert np.allclose(monte_carlo_p([0, 4], [99, 99]), [0.01, 0.05])


@pytest.mark.parametrize("k", [1, 5, 49, 98])
def test_clopper_pearson_ends_solve_the_tail_equations(k: int) -> None:
    low, high = clopper_pearson(k, 99, 0.95)
    assert binom.sf(k - 1, 99, low) == pytest.approx(0.025)
    assert binom.cdf(k, 99, high) == pytest.approx(0.025)


def test_clopper_pearson_at_the_ends() -> None:
    low, high = clopper_pearson(0, 99, 0.95)
    assert low == 0
    assert binom.cdf(0, 99, high) == pytest.approx(0.025)
    low, high = clopper_pearson(99, 99, 0.95)
    assert high == 1
    assert binom.sf(98, 99, low) == pytest.approx(0.025)


@pytest.mark.parametrize("p", [0.003, 0.05, 0.4, 0.9])
def test_clopper_pearson_covers_every_probability(p: float) -> None:
    k = np.arange(41)
    low, high = clopper_pearson(k, 40, 0.9)
    covered = binom.pmf(k, 40, p)[(low <= p) & (p <= high)].sum()
    assert covered >= 0.9


@pytest.mark.parametrize("p", [0.2, 0.5, 0.8])
def test_inverse_sampling_covers_when_the_number_of_draws_is_random(p: float) -> None:
    k = 5
    draws = np.arange(k, 400)
    chance = binom.pmf(k - 1, draws - 1, p) * p  # the k-th success falls on draw L
    low, high = inverse_sampling_interval(np.full(len(draws), k), draws, 0.9)
    assert chance.sum() == pytest.approx(1)
    assert chance[(low <= p) & (p <= high)].sum() >= 0.9
    assert chance[low > p].sum() <= 0.05
    assert chance[high < p].sum() <= 0.05


def test_inverse_sampling_is_inside_the_interval_for_a_fixed_number() -> None:
    low, high = inverse_sampling_interval(20, 400)
    fixed = clopper_pearson(20, 400)
    assert low == pytest.approx(fixed[0])
    assert high < fixed[1]


@pytest.mark.parametrize(("draws", "rate"), [(1000, 0.05), (37, 0.5), (10, 0.0), (10, 1.0)])
def test_binomial_band_is_the_smallest_with_equal_tails(draws: int, rate: float) -> None:
    low, high = binomial_band(draws, rate, 0.95)
    assert binom.cdf(high, draws, rate) >= 0.975
    assert binom.sf(low - 1, draws, rate) >= 0.975
    if high > 0 and rate > 0:
        assert binom.cdf(high - 1, draws, rate) < 0.975
    if low > 0 and rate < 1:
        assert binom.cdf(low, draws, rate) > 0.025


def test_counts_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and draws"):
        clopper_pearson(5, 4)
    with pytest.raises(ValueError, match="at least 1"):
        monte_carlo_p(0, 0)
    with pytest.raises(ValueError, match="strictly between"):
        clopper_pearson(1, 4, 1.0)
    with pytest.raises(ValueError, match="at least one"):
        inverse_sampling_interval(0, 10)
    with pytest.raises(ValueError, match="between 0 and 1"):
        binomial_band(10, 1.5)


def test_counting_loads_neither_torch_nor_scipy_stats() -> None:
    code = (
        "import sys; from discrepancy.inference import holm, clopper_pearson; holm([0.1]); clopper_pearson(1, 9);"
        "print('torch' in sys.modules, 'scipy.stats' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]
