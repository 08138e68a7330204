"""Counts of ordered columns in little memory: exact at knots, and within their stated bounds wherever else they are read."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from discrepancy.comparison.columns import place
from discrepancy.comparison.columns.norms import OrderedNorms
from discrepancy.comparison.model import Kind
from discrepancy.comparison.profile.figures import quantiles
from discrepancy.comparison.profile.ordered import OrderedCounts, common_knots, merged, rebinned
from discrepancy.comparison.profile.pairs import counted_pair
from discrepancy.comparison.profile.profile import ColumnProfile
from discrepancy.comparison.profile.tally import OrderedTally, knots_of_sample

NUMBERS = st.floats(-100, 100, allow_nan=False).map(lambda v: round(v, 3))
VALUES = st.lists(NUMBERS, min_size=1, max_size=60).map(np.array)
KNOTS = st.lists(NUMBERS, min_size=1, max_size=6, unique=True).map(lambda v: np.array(sorted(v)))
PROPERTY = settings(max_examples=60, deadline=None)


def counted(values: np.ndarray, knots: np.ndarray | None = None, pieces: int = 1) -> OrderedCounts:
    tally = OrderedTally(knots_of_sample(values), knots)
    for piece in np.array_split(values, pieces):
        tally.add(piece)
    return tally.finish()


def below(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.sort(values), at, side="right").astype(float)


def area(values: np.ndarray, left: float, right: float) -> float:
    """The integral of the number of values <= v over [left, right]."""
    return float(np.clip(right - np.maximum(values, left), 0, None).sum())


def check_bounds(c: OrderedCounts, values: np.ndarray) -> None:
    off = np.abs(np.cumsum(c.mass) - below(values, c.knots))
    assert (off <= c.error + 1e-6).all(), "F at the knots"
    truth = np.array([area(values, a, b) for a, b in zip(c.knots[:-1], c.knots[1:])])
    found = np.cumsum(c.mass)[:-1] * np.diff(c.knots) + c.short[1:]
    assert (np.abs(found - truth) <= c.blur[1:] + 1e-6 * (1 + np.abs(truth))).all(), "the integral over cells"
    assert c.count == len(values)
    assert (c.mass >= 0).all()


@PROPERTY
@given(VALUES, st.one_of(st.none(), KNOTS), st.integers(1, 4))
def test_counts_at_the_knots_are_those_of_the_rows(values: np.ndarray, knots: np.ndarray | None, pieces: int) -> None:
    c = counted(values, knots, pieces)
    assert not c.error.any()
    assert not c.blur.any()
    check_bounds(c, values)
    assert (c.knots[0], c.knots[-1]) == (min(values.min(), c.knots[0]), max(values.max(), c.knots[-1]))
    assert c.mean == pytest.approx(values.mean(), abs=1e-9)
    assert c.square == pytest.approx(((values - values.mean()) ** 2).sum(), rel=1e-9, abs=1e-6)
    if knots is None:
        assert c.complete
        assert c.knots.tolist() == np.unique(values).tolist()


def test_cells_begin_when_there_are_too_many_distinct_values() -> None:
    values = np.random.default_rng(0).normal(size=30_000)
    values[::3] = 0.25  # an atom
    c = counted(values, pieces=40)
    assert not c.complete
    assert 600 < len(c.knots) < 1_100  # the atom takes a third of the quantiles
    assert 0.25 in c.knots
    check_bounds(c, values)
    few = counted(np.round(values, 2), pieces=40)
    assert few.complete


def test_cells_beside_the_values() -> None:
    tally = OrderedTally(np.zeros(1))
    tally.add(np.array([1.0, np.nan, np.inf, -np.inf, np.inf, -0.0]))
    tally.add(np.array([np.nan, 0.0]))
    c = tally.finish()
    assert (c.below, c.above, c.missing, c.count, c.rows) == (1, 2, 2, 3, 8)
    assert c.knots.tolist() == [0.0, 1.0]
    assert c.mass.tolist() == [2, 1]


@PROPERTY
@given(VALUES, st.one_of(st.none(), KNOTS), KNOTS, KNOTS)
def test_reading_between_knots_stays_within_its_bounds(
    values: np.ndarray, knots: np.ndarray | None, first: np.ndarray, second: np.ndarray
) -> None:
    c = counted(values, knots)
    ends = c.knots[[0, -1]]
    once = rebinned(c, np.union1d(first, ends))
    check_bounds(once, values)
    check_bounds(rebinned(c, np.union1d(first, c.knots)), values)
    # Errors accumulate, and the bounds with them.
    check_bounds(rebinned(once, np.union1d(second, once.knots[[0, -1]])), values)


@PROPERTY
@given(VALUES, VALUES, VALUES, st.lists(st.one_of(st.none(), KNOTS), min_size=3, max_size=3))
def test_merging_adds_rows_in_any_order(x: np.ndarray, y: np.ndarray, z: np.ndarray, knots: list[np.ndarray | None]) -> None:
    a, b, c = (counted(v, k) for v, k in zip((x, y, z), knots))
    rows = np.concatenate([x, y, z])
    left, right = merged(merged(a, b), c), merged(a, merged(b, c))
    for whole in (left, right, merged(merged(c, a), b)):
        check_bounds(whole, rows)
        assert whole.mean == pytest.approx(rows.mean(), abs=1e-8)
        assert whole.square == pytest.approx(((rows - rows.mean()) ** 2).sum(), rel=1e-8, abs=1e-5)
        assert (whole.knots[0], whole.knots[-1]) == (min(v.knots[0] for v in (a, b, c)), max(v.knots[-1] for v in (a, b, c)))
    at = np.intersect1d(left.knots, right.knots)
    one, two = (np.cumsum(m.mass)[np.searchsorted(m.knots, at)] for m in (left, right))
    slack = sum(m.error[np.searchsorted(m.knots, at)] for m in (left, right))
    assert (np.abs(one - two) <= slack + 1e-6).all()
    if all(k is None for k in knots):
        assert left.complete
        assert left.knots.tolist() == np.unique(rows).tolist()
        assert left.mass.tolist() == np.unique(rows, return_counts=True)[1].tolist()


def test_a_year_of_merges_stays_accurate() -> None:
    rng = np.random.default_rng(1)
    days = [rng.normal(size=4_000) for _ in range(30)]
    whole = counted(days[0], pieces=3)
    for day in days[1:]:
        whole = merged(whole, counted(day, pieces=3))
    rows = np.concatenate(days)
    assert whole.count == len(rows)
    off = np.abs(np.cumsum(whole.mass) - below(rows, whole.knots)) / len(rows)
    assert (off <= whole.error / len(rows) + 1e-9).all()
    assert off.max() < 0.003
    assert whole.error.max() / len(rows) < 0.02
    assert len(whole.knots) < 2_100


def column(values: np.ndarray, knots: np.ndarray | None = None, **more: object) -> ColumnProfile:
    return ColumnProfile("x", Kind.NUMERIC, "", counted(values, knots), ("number",), **more)  # type: ignore[arg-type]


@PROPERTY
@given(VALUES, VALUES, st.one_of(st.none(), KNOTS), st.one_of(st.none(), KNOTS))
def test_the_distance_is_within_its_error(
    x: np.ndarray, y: np.ndarray, first: np.ndarray | None, second: np.ndarray | None
) -> None:
    pair = counted_pair(column(x, first), column(y, second))
    line = pair.counts.line
    assert line is not None
    truth = wasserstein_distance(x, y)
    assert abs(line.distance - truth) <= pair.counts.errors.get("distance", 0.0) + 1e-7 * (1 + truth)
    assert line.spread == pytest.approx(np.concatenate([x, y]).std(), rel=1e-6, abs=1e-6)
    if first is None and second is None:
        assert not pair.counts.errors
        assert line.scale == pytest.approx(place(x, y).scale, rel=1e-9, abs=1e-9)
    # The members of the test, on the same knots, from counts as they are.
    norms = OrderedNorms(pair.counts)
    T = norms.values(norms.observed()[None])[0]
    F, G = (below(v, line.knots[:-1]) / len(v) for v in (x, y))
    H = np.cumsum(pair.counts.pooled)[:-1] / pair.counts.pooled.sum()
    exact = {"W1": float(np.abs(F - G) @ np.diff(line.knots)), "KS": float(np.abs(F - G).max(initial=0.0))}
    h = pair.counts.pooled[:-1] / pair.counts.pooled.sum()
    exact["A"] = math.sqrt(float((F - G) ** 2 @ (h / np.maximum(H * (1 - H), 1 / pair.counts.pooled.sum()))))
    for name, value in exact.items():
        assert abs(T[norms.names.index(name)] - value) <= pair.counts.errors.get(name, 0.0) + 1e-9, name


def test_one_table_of_distinct_values_costs_nothing() -> None:
    rng = np.random.default_rng(2)
    x, y = np.round(rng.normal(size=3_000), 1), rng.normal(size=5_000)
    a, b = counted(x), counted(y)
    assert a.complete
    assert not b.complete
    assert set(b.knots) <= set(common_knots(a, b).tolist())
    assert len(common_knots(a, b)) <= len(b.knots) + 2
    assert not counted_pair(column(x), column(y)).counts.errors.get("KS", 0.0)


def test_quantiles_of_cells() -> None:
    values = np.random.default_rng(3).gamma(2.0, size=40_000)
    p = np.array([0.0, 0.01, 0.25, 0.5, 0.9, 0.999, 1.0])
    assert quantiles(counted(values), p) == pytest.approx(np.quantile(values, p), rel=2e-3, abs=1e-3)
    whole = np.random.default_rng(3).poisson(4, size=5_000).astype(float)
    assert quantiles(counted(whole), p).tolist() == np.quantile(whole, p, method="inverted_cdf").tolist()


def test_numbers_at_the_end_of_the_range() -> None:
    rng = np.random.default_rng(4)
    for size in (1e300, 1e-300):
        x, y = rng.normal(size=500) * size, (rng.normal(size=400) + 1) * size
        pair = counted_pair(column(x), column(y))
        assert pair.counts.line is not None
        assert pair.counts.line.distance * pair.counts.factor == pytest.approx(wasserstein_distance(x / size, y / size) * size)
        assert np.isfinite([pair.counts.line.scale, pair.counts.line.spread]).all()
