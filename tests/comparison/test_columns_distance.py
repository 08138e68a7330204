"""Distances, scales and members against SciPy, closed forms and sums written out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from columns_data import compare, levels, ordered, rows
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import ks_2samp, wasserstein_distance

from discrepancy.comparison.columns import choose_knots, count_column, place
from discrepancy.comparison.columns.norms import norms_of
from discrepancy.comparison.model import Kind, Options

FINITE = st.floats(-1e6, 1e6, allow_nan=False).map(lambda v: round(v, 3))


def _member(result, name):
    return next(m for m in result.members if m.name == name)


@settings(max_examples=60, deadline=None)
@given(st.lists(FINITE, min_size=1, max_size=40), st.lists(FINITE, min_size=1, max_size=40), st.integers(0, 2**31))
def test_w1_is_scipys_with_any_weights(x, y, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.exponential(size=len(x)), rng.exponential(size=len(y))
    a *= len(x) / a.sum()
    b *= len(y) / b.sum()
    plain, weighted = place(np.array(x), np.array(y)), place(np.array(x), np.array(y), (a, b))
    size = 1 + max(map(abs, x + y))
    assert plain.distance == pytest.approx(wasserstein_distance(x, y), abs=1e-12 * size)
    assert weighted.distance == pytest.approx(wasserstein_distance(x, y, a, b), abs=1e-12 * size)


def test_w1_is_exact_beyond_the_knots_too():
    rng = np.random.default_rng(0)
    x, y = rng.lognormal(size=4000), rng.lognormal(0.1, 1, 3000)
    line = place(x, y)
    assert len(line.knots) < 600
    assert line.distance == pytest.approx(wasserstein_distance(x, y), rel=1e-12)
    # The statistic of the test is a sum over the knots: a little coarser, and the same norm for every permutation.
    counts = count_column(ordered(x, y), rows(ordered(x, y)), Options())
    norms = norms_of(counts)
    assert norms.values(norms.observed()[None])[0, 0] == pytest.approx(line.distance, rel=0.02)


def test_scale_is_the_sd_of_a_normal_column_and_bounds_the_size():
    rng = np.random.default_rng(1)
    x = rng.normal(3, 2.5, 200_000)
    assert place(x[:100_000], x[100_000:]).scale == pytest.approx(2.5, rel=0.01)
    # Two points: the largest W1/s that there is, 1 / (0.8862 * 2 * 1/4) = 2.257.
    apart = place(np.zeros(7), np.ones(3))
    assert apart.distance == 1.0
    assert apart.distance / apart.scale == pytest.approx(4 / math.sqrt(math.pi), rel=1e-12)
    assert place(np.full(4, 2.0), np.full(9, 2.0)).scale == 0.0


@settings(max_examples=40, deadline=None)
@given(st.lists(FINITE, min_size=2, max_size=30), st.lists(FINITE, min_size=2, max_size=30))
def test_scale_is_ginis_mean_difference_of_the_equal_mixture(x, y):
    line = place(np.array(x), np.array(y))
    u, v = np.array(x), np.array(y)
    gini = np.abs(u[:, None] - u).mean() / 4 + np.abs(v[:, None] - v).mean() / 4 + np.abs(u[:, None] - v).mean() / 2
    assert line.scale == pytest.approx(math.sqrt(math.pi) / 2 * gini, rel=1e-9, abs=1e-9)
    assert line.distance <= 4 / math.sqrt(math.pi) * line.scale * (1 + 1e-9) + 1e-9


def test_knots_are_all_distinct_values_or_quantiles_with_the_atoms():
    few = np.repeat([1.0, 2.0, 5.0], [3, 4, 2])
    assert choose_knots(few).tolist() == [1.0, 2.0, 5.0]
    rng = np.random.default_rng(2)
    many = np.sort(np.concatenate([rng.normal(size=20_000), np.full(500, 0.123)]))
    knots = choose_knots(many)
    assert len(knots) <= 514
    assert knots[0] == many[0]
    assert knots[-1] == many[-1]
    assert 0.123 in knots
    assert (np.diff(knots) > 0).all()
    # Dense in the tails: the second knot is one of the ten smallest values.
    assert knots[1] <= many[9]


def test_members_of_an_ordered_column_by_hand():
    rng = np.random.default_rng(3)
    x, y = rng.poisson(3, 60).astype(float), rng.poisson(4, 45).astype(float)
    result = compare(ordered(x, y))
    values = np.unique(np.concatenate([x, y]))
    F, G = np.array([(x <= v).mean() for v in values]), np.array([(y <= v).mean() for v in values])
    H = (len(x) * F + len(y) * G) / (len(x) + len(y))
    h = np.diff(H, prepend=0.0)
    A = math.sqrt(sum(h[k] * (F[k] - G[k]) ** 2 / (H[k] * (1 - H[k])) for k in range(len(values) - 1)))
    assert _member(result, "W1").value == pytest.approx(wasserstein_distance(x, y), rel=1e-12)
    assert _member(result, "A").value == pytest.approx(A, rel=0.01)  # the floor 1/N touches the two end knots only
    assert _member(result, "KS").value == pytest.approx(ks_2samp(x, y).statistic, rel=1e-12)
    assert result.distance == pytest.approx(wasserstein_distance(x, y), rel=1e-12)
    assert _member(result, "W1").delta == pytest.approx(0.02 * result.scale)
    assert [m.delta for m in result.members[1:]] == [0.015, 0.01]


def test_members_of_a_level_column_by_hand():
    x, y = [0] * 40 + [1] * 30 + [2] * 30, [0] * 30 + [1] * 30 + [3] * 20
    result = compare(levels(x, y, ("red", "green", "blue", "new")))
    p, q = np.array([0.4, 0.3, 0.3, 0.0]), np.array([3 / 8, 3 / 8, 0.0, 1 / 4])
    h = (100 * p + 80 * q) / 180
    assert result.distance == pytest.approx(np.abs(p - q).sum() / 2)
    assert _member(result, "M").value == pytest.approx(0.3)
    assert _member(result, "S").value == pytest.approx((np.abs(p - q) / np.sqrt(np.maximum(h * (1 - h), 0.0025))).max())
    assert result.js is not None
    assert result.js["value"] == pytest.approx(jensenshannon(p, q) ** 2)
    assert [m.delta for m in result.members] == [0.01, 0.01, 0.07]
    assert [e["level"] for e in result.summary["novel"]] == ["new"]
    assert [e["level"] for e in result.summary["vanished"]] == ["blue"]
    assert result.scale == 1.0


def test_missing_and_infinite_values_are_members_of_their_own():
    x = np.array([1.0, 2.0, 3.0, np.nan, np.inf] * 20)
    y = np.array([1.0, 2.0, 3.0, np.nan, np.nan, -np.inf, np.inf, np.inf] * 20)
    result = compare(ordered(x, y))
    assert [m.name for m in result.members] == ["W1", "A", "KS", "-inf", "+inf", "missing"]
    shares = {m.name: m.value for m in result.members}
    assert shares["-inf"] == pytest.approx(1 / 8)
    assert shares["+inf"] == pytest.approx(1 / 20)
    assert shares["missing"] == pytest.approx(1 / 20)
    assert result.distance == 0.0  # the finite values are the same
    assert (result.missing["reference"], result.missing["current"]) == (0.2, 0.25)
    assert result.n_eff == (60.0, 60.0)


def test_missing_is_a_level_of_a_level_column():
    x, y = [0] * 90 + [-1] * 10, [0] * 60 + [1] * 10 + [-1] * 30
    result = compare(levels(x, y, ("a", "b")))
    assert result.distance == pytest.approx(0.3)
    assert (result.missing["reference"], result.missing["current"]) == (0.1, 0.3)
    assert 0 < result.missing["low"] < 0.2 < result.missing["high"]
    assert result.missing["p_value"] <= 0.005


def test_free_text_is_compared_by_presence_only():
    pair = ordered([1.0] * 50, [1.0] * 30 + [np.nan] * 20, kind=Kind.TEXT)
    result = compare(pair)
    assert (result.distance, result.low, result.size) == (None, None, None)
    assert [m.name for m in result.members] == ["missing"]
    assert result.driver == "missing"
    assert result.p_value <= 0.001


def test_numbers_near_the_ends_of_the_range_keep_their_size():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=300), rng.normal(0.5, 1, 300)
    plain = compare(ordered(x, y))
    for power in (1000, -1000):
        moved = compare(ordered(np.ldexp(x, power), np.ldexp(y, power)))
        assert moved.p_value == plain.p_value
        assert moved.size == pytest.approx(plain.size, rel=1e-9)
        assert moved.distance == pytest.approx(math.ldexp(plain.distance, power), rel=1e-9)
        assert moved.high == pytest.approx(math.ldexp(plain.high, power), rel=1e-9)


def test_weights_are_normalised_and_refused_where_they_are_none():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=200), rng.normal(size=150)
    a, b = rng.exponential(size=200), rng.exponential(size=150)
    pair = ordered(x, y)
    result = compare(pair, weights=(a, 7e5 * b))
    assert result.distance == pytest.approx(wasserstein_distance(x, y, a, b), rel=1e-9)
    assert result.n_eff == pytest.approx((a.sum() ** 2 / (a**2).sum(), b.sum() ** 2 / (b**2).sum()))
    with pytest.raises(ValueError, match=r"weights of reference must be finite and not negative.*-1"):
        compare(pair, weights=(np.where(np.arange(200) == 4, -1.0, a), None))
    with pytest.raises(ValueError, match=r"weights of current sum to zero"):
        compare(pair, weights=(None, np.zeros(150)))
    with pytest.raises(ValueError, match=r"one entry for each of its 200 rows, got shape \(3,\)"):
        compare(pair, weights=(np.ones(3), None))
    with pytest.raises(ValueError, match=r"whole numbers, reference has"):
        compare(pair, options=Options(frequency_weights=True), weights=(a, None))


def test_codes_must_be_levels():
    with pytest.raises(ValueError, match=r"'colour' must index its 2 levels, got 0 to 5"):
        compare(levels([0, 1, 5], [0, 1], ("a", "b")))
