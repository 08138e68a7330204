"""Units: which rows move together, against counts and processes whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, rankdata

from discrepancy.comparison.model import Column, ColumnPair, Kind, Options, TablePair
from discrepancy.comparison.units import automatic_block_length, coarsen, lag_one, make_units, normal_scores


def ordered(name: str, x: np.ndarray, y: np.ndarray) -> ColumnPair:
    x, y = np.asarray(x, float), np.asarray(y, float)
    return ColumnPair(name, Kind.NUMERIC, Column(x, np.isnan(x)), Column(y, np.isnan(y)))


def table(x: np.ndarray, y: np.ndarray, **more: object) -> TablePair:
    return TablePair([ordered("v", x, y)], len(x), len(y), **more)  # type: ignore[arg-type]


def ar1(rho: float, n: int, rng: np.random.Generator) -> np.ndarray:
    e = rng.standard_normal(n) * math.sqrt(1 - rho * rho)
    x = np.empty(n)
    x[0] = rng.standard_normal()
    for t in range(1, n):
        x[t] = rho * x[t - 1] + e[t]
    return x


def test_rows_are_the_units_of_a_small_table():
    rng = np.random.default_rng(0)
    units = make_units(table(rng.normal(size=300), rng.normal(size=200)), Options())
    assert (units.count_reference, units.count_current) == (300, 200)
    assert (units.kind, units.null, units.reference, units.note) == ("rows", "permutation", None, None)


@pytest.mark.parametrize(("n", "m"), [(20_001, 20_001), (50_000, 21_237), (20_500, 123_456)])
def test_groups_have_one_size_in_both_tables(n: int, m: int):
    rng = np.random.default_rng(0)
    units = make_units(table(rng.normal(size=n), rng.normal(size=m)), Options(seed=5))
    size = min(n, m) // 500
    assert units.kind == "groups"
    for ids, count, rows in ((units.reference, units.count_reference, n), (units.current, units.count_current, m)):
        assert ids is not None
        sizes = np.bincount(ids, minlength=count)
        assert count == rows // size
        assert len(sizes) == count
        assert sizes.min() >= size
        assert sizes.max() <= sizes.min() + 1  # the remainder is spread
    assert min(units.count_reference, units.count_current) >= 500


def test_groups_are_random_with_respect_to_the_row_and_repeatable():
    zeros = np.zeros(40_000)
    first, again, other = (make_units(table(zeros, zeros), Options(seed=s)) for s in (1, 1, 2))
    assert np.array_equal(first.reference, again.reference)
    assert not np.array_equal(first.reference, other.reference)
    assert not np.array_equal(first.reference, first.current)
    # group means of the row index scatter as means of 80 draws without replacement do: neither sorted nor stratified
    index = np.arange(40_000) / 40_000
    means = np.bincount(first.reference, weights=index) / np.bincount(first.reference)
    expected = math.sqrt(1 / 12 / 80 * (1 - 80 / 40_000))
    assert means.std() == pytest.approx(expected, rel=0.15)  # 500 means: standard error of the sd is 3 %


def test_normal_scores_are_those_of_scipy_ranks():
    x = np.array([3.0, 1.0, 1.0, 7.0, 2.0, 7.0, 7.0])
    assert normal_scores(x) == pytest.approx(norm.ppf((rankdata(x) - 0.5) / 7), abs=1e-12)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_lag_one_finds_the_planted_autocorrelation(rho: float):
    rng = np.random.default_rng(3)
    x = ar1(rho, 40_000, rng)
    got, pairs = lag_one(ordered("v", np.exp(x), np.exp(x[:10])), "reference")  # monotone maps change nothing
    assert pairs == 39_999
    assert got == pytest.approx(rho, abs=0.02)


def test_lag_one_of_levels_is_that_of_their_indicators():
    rng = np.random.default_rng(4)
    codes = np.where(rng.random(5_000) < 0.6, -9, rng.integers(0, 3, 5_000))
    for t in range(1, 5_000):
        codes[t] = codes[t - 1] if codes[t] < 0 else codes[t]
    codes[codes < 0] = 0
    pair = ColumnPair("c", Kind.CATEGORICAL, *[Column(codes, codes < 0)] * 2, levels=("a", "b", "c"))
    hot = np.eye(3)[codes] - np.eye(3)[codes].mean(0)
    want = (hot[1:] * hot[:-1]).sum() / (hot**2).sum()
    assert lag_one(pair, "current")[0] == pytest.approx(want, abs=2e-3)
    assert want == pytest.approx(0.6, abs=0.05)


def test_a_long_table_is_looked_at_in_stretches_without_their_joins():
    x = np.repeat(np.arange(12.0), 10_000)  # constant inside a stretch, jumps elsewhere
    rho, pairs = lag_one(ordered("v", x, x), "reference")
    assert pairs == 5 * 9_999
    assert rho > 0.99


@pytest.mark.parametrize(("rho", "n", "want"), [(0.5, 500, 34), (0.9, 2_000, 194), (0.0, 1_000, 1), (-0.5, 1_000, 1)])
def test_block_length_is_three_times_the_ar1_form_of_politis_and_white(rho: float, n: int, want: int):
    # b = 1.8171 (rho/(1-rho^2))^(2/3) n^(1/3), since (1.5 * 4)^(1/3) = 1.8171
    by_hand = math.ceil(3 * 1.8171206 * (max(rho, 0) / (1 - rho * rho)) ** (2 / 3) * n ** (1 / 3)) or 1
    assert automatic_block_length(rho, n, n)[1] == by_hand == want


def test_automatic_blocks_leave_twenty_units_and_say_what_was_cut():
    rng = np.random.default_rng(6)
    units = make_units(table(ar1(0.95, 400, rng), ar1(0.95, 400, rng)), Options(block="auto"))
    assert units.kind == "blocks"
    assert units.block_length == 40
    assert units.count_reference + units.count_current == 20
    assert units.note is not None
    assert "cut to 40" in units.note


def test_blocks_are_consecutive_and_cover_each_table_by_itself():
    units = make_units(table(np.zeros(103), np.zeros(60)), Options(block=10))
    assert units.reference is not None
    assert units.current is not None
    assert (units.count_reference, units.count_current) == (10, 6)
    assert np.all(np.diff(units.reference) >= 0)
    sizes = np.bincount(units.reference)
    assert sizes.min() >= 10
    assert sizes.max() <= 11
    assert set(np.bincount(units.current)) == {10}


def test_clusters_move_whole_and_unequal_sizes_call_for_multipliers():
    rng = np.random.default_rng(7)
    a, b = rng.integers(0, 80, 900), rng.integers(40, 120, 900)
    units = make_units(table(np.zeros(900), np.zeros(900), cluster_reference=a, cluster_current=b), Options(cluster="k"))
    assert units.kind == "clusters"
    assert units.count_reference == len(set(a.tolist()))
    assert units.null == "permutation"
    assert units.reference is not None
    assert len({(u, c) for u, c in zip(units.reference.tolist(), a.tolist())}) == units.count_reference
    small = np.repeat(np.arange(450), 2)
    units = make_units(table(np.zeros(900), np.zeros(900), cluster_reference=a, cluster_current=small), Options(cluster="k"))
    assert units.null == "multiplier"
    assert "cluster sizes" in (units.note or "")


def test_multipliers_exactly_when_one_table_is_weighted():
    x, w, flat = np.zeros(50), np.arange(1.0, 51.0), np.full(50, 3.0)
    null = lambda a, b, **o: make_units(table(x, x, weights_reference=a, weights_current=b), Options(**o)).null  # noqa: E731
    assert null(w, None) == null(None, w) == null(w, flat) == "multiplier"
    assert null(w, w) == null(None, None) == null(flat, None) == "permutation"
    assert null(w, None, frequency_weights=True) == "permutation"
    counted = make_units(table(x, x, weights_reference=w), Options(frequency_weights=True))
    assert (counted.count_reference, counted.count_current) == (1275, 50)  # the rows that the rows stand for


def test_dependence_in_file_order_is_warned_of_once_and_independence_is_not():
    rng = np.random.default_rng(8)
    note = make_units(table(ar1(0.6, 800, rng), rng.normal(size=800)), Options()).note
    assert note is not None
    assert "--block auto" in note
    assert "'v' in reference" in note
    assert note.count("--block") == 1
    assert make_units(table(rng.normal(size=800), rng.normal(size=800)), Options()).note is None


def test_under_twenty_units_is_said():
    assert "stays undecided" in (make_units(table(np.arange(5.0), np.arange(4.0)), Options()).note or "")


def test_bad_requests_are_refused():
    ids = np.arange(30)
    with pytest.raises(ValueError, match="--cluster and --block"):
        make_units(table(np.zeros(30), np.zeros(30), cluster_reference=ids, cluster_current=ids), Options(block=3))
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Options(block=0)


@given(st.integers(30, 400), st.integers(30, 400), st.integers(3, 25), st.integers(0, 2**63))
def test_coarsening_is_a_partition_into_near_equal_groups(n: int, m: int, groups: int, seed: int):
    units = coarsen(make_units(table(np.zeros(n), np.zeros(m)), Options()), seed, above=groups, groups=groups)
    size = min(n, m) // groups
    for ids, count, rows in ((units.reference, units.count_reference, n), (units.current, units.count_current, m)):
        assert ids is not None
        assert len(ids) == rows
        sizes = np.bincount(ids, minlength=count)
        assert len(sizes) == count == rows // size
        assert sizes.max() - sizes.min() <= 1
