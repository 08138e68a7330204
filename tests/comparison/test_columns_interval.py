"""Intervals: influence functions and rays against closed forms, jackknife and published score intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from columns_data import compare, levels, ordered, rows
from scipy.special import ndtr, ndtri
from scipy.stats import wasserstein_distance

from discrepancy.comparison.columns import count_column
from discrepancy.comparison.columns.influence import (
    design_effect,
    kantorovich_potential,
    mean_variance,
    standard_error,
    tail_share,
)
from discrepancy.comparison.columns.interval import ordered_interval, share_interval
from discrepancy.comparison.columns.level_interval import jensen_shannon, level_interval
from discrepancy.comparison.columns.noise import multinomial_shares, reduce_cells, share_noise
from discrepancy.comparison.columns.norms import LevelNorms, OrderedNorms, norms_of
from discrepancy.comparison.columns.ray import Ray
from discrepancy.comparison.model import Options, Units


def _norms(pair, units=None, options=None, weights=(None, None)):
    return norms_of(count_column(pair, units or rows(pair), options or Options(), weights))


def test_the_potential_attains_w1():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=40), rng.normal(0.2, 2, 30)
    norms = _norms(ordered(x, y))
    psi = kantorovich_potential(norms.observed(), norms.gaps)
    at = dict(zip(norms.counts.line.knots, psi, strict=True))
    gain = np.mean([at[v] for v in x]) - np.mean([at[v] for v in y])
    assert gain == pytest.approx(wasserstein_distance(x, y), rel=1e-12)
    assert (np.abs(np.diff(psi)) <= norms.gaps * (1 + 1e-12)).all()


def test_the_standard_error_is_that_of_two_means():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=50), rng.normal(5, 2, 30)  # far apart: psi is the value itself
    norms = _norms(ordered(x, y))
    psi = kantorovich_potential(norms.observed(), norms.gaps)
    se = standard_error(norms.counts, psi, slice(0, norms.counts.values))
    both = np.concatenate([x, y])
    ranks = [norms.counts.line.knots.searchsorted(v) for v in (x, y)]
    assert se == pytest.approx(math.sqrt(psi[ranks[0]].var(ddof=1) / 50 + psi[ranks[1]].var(ddof=1) / 30), rel=1e-12)
    assert len(both) == norms.counts.values
    # Leave-one-out of the distance itself agrees where the linearisation is good.
    loo_x = [wasserstein_distance(np.delete(x, i), y) for i in range(50)]
    loo_y = [wasserstein_distance(x, np.delete(y, i)) for i in range(30)]
    jackknife = math.sqrt(49 / 50 * np.sum((loo_x - np.mean(loo_x)) ** 2) + 29 / 30 * np.sum((loo_y - np.mean(loo_y)) ** 2))
    assert se == pytest.approx(jackknife, rel=0.05)


def test_weighted_and_clustered_variances():
    rng = np.random.default_rng(2)
    x = rng.integers(0, 4, 60).astype(float)
    w = rng.exponential(size=60)
    pair = ordered(x, x)
    u = w / w.sum()
    n = 1 / (u**2).sum()
    counts = _norms(pair, weights=(w, None)).counts
    psi = np.array([0.0, 1.0, 2.0, 3.0])
    want = (u**2 * (x - u @ x) ** 2).sum() * n / (n - 1)
    assert mean_variance(counts.reference, psi) == pytest.approx(want, rel=1e-12)
    unit = np.arange(60) // 5
    clustered = _norms(pair, Units(12, 12, unit, unit, kind="clusters")).counts
    sums = np.bincount(unit, x - x.mean())
    assert mean_variance(clustered.reference, psi, dependent=True) == pytest.approx((sums**2).sum() / 3600 * 12 / 11, rel=1e-12)
    # Five copies of every row: the variance is five times that of independent rows, up to the corrections for n.
    copies = np.repeat(rng.integers(0, 4, 12), 5).astype(float)
    counts = _norms(ordered(copies, copies), Units(12, 12, unit, unit, kind="clusters")).counts
    assert design_effect(counts, psi[: counts.values], slice(0, counts.values)) == pytest.approx(
        5 * (59 / 60) * 12 / 11, rel=1e-9
    )
    one_row = _norms(ordered([1.0], [1.0, 2.0, 4.0])).counts
    assert math.isnan(mean_variance(one_row.reference, np.zeros(3)))


def test_noise_paths_have_the_covariance_of_a_bridge():
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 4, 80), rng.integers(0, 4, 60)
    w = rng.exponential(size=80)
    unit = np.arange(80) // 4
    p = np.bincount(x, minlength=4) / 80
    counts = _norms(ordered(x, y)).counts
    reduced = reduce_cells(counts)
    B = share_noise(counts.reference, reduced.shares[0], reduced, counts, 60_000, np.random.default_rng(0))
    assert np.cov(B.T) == pytest.approx((np.diag(p) - np.outer(p, p)) / 79, abs=6e-5)
    assert np.abs(B.sum(1)).max() < 1e-12

    counts = _norms(ordered(x, y), weights=(w, None)).counts
    reduced = reduce_cells(counts)
    u = w / w.sum()
    n = 1 / (u**2).sum()
    centred = np.eye(4)[x] - u @ np.eye(4)[x]
    B = share_noise(counts.reference, reduced.shares[0], reduced, counts, 60_000, np.random.default_rng(0))
    assert np.cov(B.T) == pytest.approx((centred * u[:, None]).T @ (centred * u[:, None]) * n / (n - 1), abs=1e-4)

    units = Units(20, 15, unit, np.arange(60) // 4, kind="clusters")
    counts = _norms(ordered(x, y), units).counts
    reduced = reduce_cells(counts)
    sums = np.stack([np.bincount(unit, v) for v in (np.eye(4)[x] - p).T]) / 80
    B = share_noise(counts.reference, reduced.shares[0], reduced, counts, 60_000, np.random.default_rng(0))
    assert np.cov(B.T) == pytest.approx(sums @ sums.T * 20 / 19, abs=1.5e-4)


def test_merged_cells_keep_the_ends_and_the_shares():
    rng = np.random.default_rng(4)
    pair = ordered(rng.normal(size=900), rng.normal(size=800))
    counts = _norms(pair).counts
    assert counts.values == 1700
    reduced = reduce_cells(counts)
    assert reduced.knots is not None
    assert len(reduced.knots) <= 301
    assert reduced.knots[-1] == counts.line.knots[-1]
    x = pair.reference.values
    cdf = np.cumsum(reduced.shares[0])
    assert cdf == pytest.approx([(x <= v).mean() for v in reduced.knots], abs=1e-12)
    assert multinomial_shares(50, np.array([-0.1, 0.5, 0.6]), 10, rng)[:, 0].max() == 0.0


@pytest.mark.parametrize("T", [0.3, 1.9, 2.4, 4.0, 40.0])
def test_the_ray_inverts_a_folded_normal(T):
    # One dimension, unit noise: T*_t = |t T + Z|, so every end is known without simulation.
    draws = ndtri((np.arange(5000) + 0.5) / 5000)
    ray = Ray(lambda t: np.abs(t * T + draws)[:, None], np.array([T]))
    t = np.linspace(0, 1.5, 601)
    above = 1 - ndtr(T - t * T) + ndtr(-T - t * T)
    grid = np.linspace(0, 3 * T + 6, 3001)
    median = np.array([np.interp(0.5, ndtr(grid - s) - ndtr(-grid - s), grid) for s in t * T])
    rho = np.minimum(1, 2 * 2 * ndtr(-median))
    low = t[np.argmax(above >= 0.025 * (1 + rho))]
    middle = t[np.argmax(median >= T)]
    assert ray.low() * T == pytest.approx(low * T, abs=0.08)
    assert ray.median() * T == pytest.approx(middle * T, abs=0.08)
    if T > 3:
        assert ray.low() * T == pytest.approx(T - 1.96, abs=0.1)
        assert ray.high() * T == pytest.approx(T + 1.96, abs=0.1)
    if T < 1.9:
        assert ray.low() == 0.0


def test_the_ray_is_one_sided_at_zero():
    draws = ndtri((np.arange(5000) + 0.5) / 5000)
    ray = Ray(lambda t: np.abs(t * 1.7 + draws)[:, None], np.array([1.7]))
    assert ray.one_sidedness(0.0) == 1.0
    assert ray.low() == 0.0  # 1.7 is beyond 1.645 but not beyond 1.96: all of the 5 % is on this side for |Z|, p = 0.089
    with pytest.raises(ValueError, match="positive statistic"):
        Ray(lambda t: draws[:, None], np.array([0.0]))


def test_ordered_interval_far_from_zero_is_the_normal_one():
    rng = np.random.default_rng(5)
    pair = ordered(rng.normal(size=1500), rng.normal(2, 1, 1200))
    norms = _norms(pair)
    assert isinstance(norms, OrderedNorms)
    T = norms.counts.line.distance
    out = ordered_interval(norms, norms.observed(), T, 0.001, np.random.default_rng(0))
    assert out is not None
    se = math.sqrt(pair.reference.values.var() / 1500 + pair.current.values.var() / 1200)
    assert out.high == pytest.approx(T + 1.96 * se, rel=1e-3)
    assert out.low == pytest.approx(T - 1.96 * se, abs=0.4 * se)  # 400 paths: the 2.5 % point is uncertain by 0.13 se
    assert out.corrected == pytest.approx(T, abs=0.3 * se)
    ks = ordered_interval(norms, norms.observed(), 0.68, 0.001, np.random.default_rng(0), statistic="KS")
    assert ks is not None
    F, G = ndtr(1.0), ndtr(-1.0)
    assert ks.high - 0.68 == pytest.approx(1.96 * math.sqrt(F * (1 - F) / 1500 + G * (1 - G) / 1200), rel=0.1)


def test_the_agreement_rule():
    rng = np.random.default_rng(6)
    pair = ordered(rng.normal(size=300), rng.normal(0.6, 1, 300))
    norms = _norms(pair)
    assert isinstance(norms, OrderedNorms)
    args = (norms, norms.observed(), norms.counts.line.distance)
    assert ordered_interval(*args, 0.04, np.random.default_rng(0)).low > 0
    assert ordered_interval(*args, 0.06, np.random.default_rng(0)).low == 0


def test_level_interval_far_from_zero():
    p, q, n, m = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.4, 0.4]), 3000, 2000
    pair = levels(np.repeat([0, 1, 2], (n * p).astype(int)), np.repeat([0, 1, 2], (m * q).astype(int)), ("a", "b", "c"))
    norms = _norms(pair)
    assert isinstance(norms, LevelNorms)
    found = level_interval(norms, norms.observed(), 0.001, np.random.default_rng(0))
    assert found is not None
    tv, js = found
    psi = np.array([0.5, -0.5, -0.5])
    se = math.sqrt(((p @ psi**2) - (p @ psi) ** 2) / (n - 1) + ((q @ psi**2) - (q @ psi) ** 2) / (m - 1))
    assert tv.high == pytest.approx(0.3 + ndtri(0.975) * se, rel=1e-9)
    assert tv.low == pytest.approx(0.3 - 1.96 * se, abs=0.4 * se)
    assert js["value"] == pytest.approx(float(jensen_shannon(p, q)))
    # The delta method for JS: its derivative in p is log(2p/(p+q))/2.
    g, k = np.log(2 * p / (p + q)) / 2, np.log(2 * q / (p + q)) / 2
    se = math.sqrt(((p @ g**2) - (p @ g) ** 2) / n + ((q @ k**2) - (q @ k) ** 2) / m)
    assert js["low"] == pytest.approx(js["value"] - 1.96 * se, abs=0.5 * se)
    assert js["high"] == pytest.approx(js["value"] + 1.96 * se, abs=0.6 * se)


def test_level_interval_of_equal_and_of_disjoint_tables():
    equal = compare(levels([0, 1] * 50, [0, 1] * 50, ("a", "b")))
    assert (equal.distance, equal.low, equal.js["value"], equal.js["low"]) == (0.0, 0.0, 0.0, 0.0)
    assert equal.high == pytest.approx(ndtri(0.975) * math.sqrt(2 / 100) / 2)
    assert equal.js["high"] == pytest.approx(equal.high * math.log(2))
    apart = compare(levels([0] * 50, [1] * 50, ("a", "b")))
    assert (apart.distance, apart.high) == (1.0, 1.0)
    # Fifty rows may all fall on the level of 96.5 %: both tables do so with probability 0.03.
    assert 0.9 < apart.low < 0.96
    assert apart.js["high"] == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    ("a", "n", "b", "m", "low", "high"),
    # Newcombe (1998), Statistics in Medicine 17, table II, method 10.
    [
        (56, 70, 48, 80, 0.0524, 0.3339),
        (9, 10, 3, 10, 0.1705, 0.8090),
        (5, 56, 0, 29, -0.0381, 0.1926),
        (0, 10, 0, 20, -0.1611, 0.2775),
    ],
)
def test_the_upper_end_of_a_share_is_newcombes(a, n, b, m, low, high):
    x, y = np.zeros(n), np.zeros(m)
    x[:a] = y[:b] = np.nan
    x, y = np.append(x, np.inf)[:n], y
    if a + b == 0:
        counts = _norms(levels([0] * n, [0] * m, ("a", "b"))).counts
        out = share_interval(counts, 1, 1.0)
    else:
        counts = _norms(ordered(x, y)).counts
        out = share_interval(counts, counts.missing_cell, 0.001)
    assert out is not None
    assert out.high == pytest.approx(max(abs(low), abs(high)), abs=6e-5)
    assert 0 <= out.low <= abs(a / n - b / m)


def test_the_lower_end_of_a_share_is_the_ray():
    x, y = np.zeros(4000), np.zeros(4000)
    x[:200], y[:400] = np.nan, np.nan
    out = share_interval(_norms(ordered(x, y)).counts, 1, 0.001)
    se = math.sqrt(0.05 * 0.95 / 3999 + 0.1 * 0.9 / 3999)
    assert out.low == pytest.approx(0.05 - 1.96 * se, abs=2e-4)
    assert share_interval(_norms(ordered(x, y)).counts, 1, 0.2).low == 0.0


def test_heavy_tails_are_recognised_and_said():
    rng = np.random.default_rng(7)
    normal = _norms(ordered(rng.normal(size=500), rng.normal(size=500)))
    assert tail_share(normal.counts, normal.gaps) < 0.1
    x, y = rng.standard_cauchy(2400), rng.standard_cauchy(2400) + 0.5
    result = compare(ordered(x, y))
    assert (result.low, result.high, result.size_low, result.equivalent) == (None, None, None, False)
    assert result.distance == pytest.approx(wasserstein_distance(x, y))
    assert "heavy tails" in result.note
    truth = 2 * math.atan(0.25) / math.pi
    assert result.summary["ks"]["low"] <= truth <= result.summary["ks"]["high"]
    assert result.summary["ks"]["low"] > 0
    assert result.p_value <= 0.001
    assert result.driver in ("A", "KS")
