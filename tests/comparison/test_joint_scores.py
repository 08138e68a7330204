"""Mixed columns on one scale, against SciPy's ranks and distances counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from joint_tables import levels, numeric
from scipy.stats import norm, rankdata

from discrepancy.comparison.joint.scores import rank_map, represent
from discrepancy.comparison.model import Column, ColumnPair, Kind

ROWS = np.arange


def test_rank_map_is_the_normal_score_of_the_mid_rank():
    x = np.random.default_rng(0).integers(0, 6, 50).astype(float)
    assert rank_map(x)(x) == pytest.approx(norm.ppf((rankdata(x) - 0.5) / 50), abs=1e-12)


@settings(deadline=None, max_examples=50)
@given(arrays(float, st.integers(1, 40), elements=st.floats(-1e6, 1e6)), st.data())
def test_weights_are_repeated_rows(x: np.ndarray, data: st.DataObject):
    times = data.draw(arrays(np.int64, len(x), elements=st.integers(0, 4)))
    if times.sum() == 0:
        times[0] = 1
    repeated = np.repeat(x, times)
    assert rank_map(x, times.astype(float))(repeated) == pytest.approx(rank_map(repeated)(repeated), abs=1e-9)


def test_infinities_are_the_extreme_ranks_and_nan_stays_nan():
    x = np.array([-np.inf, 0.0, 1.0, 2.0, np.inf, np.inf])
    assert rank_map(x)(x) == pytest.approx(norm.ppf(np.array([0.5, 1.5, 2.5, 3.5, 5.0, 5.0]) / 6))
    assert np.isnan(rank_map(x)(np.array([np.nan]))).all()
    only = np.array([np.inf, -np.inf])
    assert rank_map(only)(only) == pytest.approx(norm.ppf([0.75, 0.25]))


def test_many_distinct_values_are_thinned_to_knots_without_harm():
    x = np.random.default_rng(1).standard_cauchy(120_000)
    scores = rank_map(x)
    assert len(scores.knots) < 20_000
    assert scores(x) == pytest.approx(norm.ppf((rankdata(x) - 0.5) / len(x)), abs=2e-3)


def test_a_change_of_level_counts_as_distance_one_and_numbers_are_ranked_together():
    x, y = np.array([1.0, 5.0, 3.0]), np.array([100.0, 2.0])
    r = represent([numeric("v", x, y), levels("g", [0, 1, 1], [2, 0], ("a", "b", "c"))], (None, None), (3, 2), 0)
    ref, cur = r.pooled(False, ROWS(3)), r.pooled(True, ROWS(2))
    want = norm.ppf((rankdata(np.r_[x, y]) - 0.5) / 5)
    assert ref[:, 0] == pytest.approx(want[:3], abs=1e-6)
    assert cur[:, 0] == pytest.approx(want[3:], abs=1e-6)
    apart = ((ref[:, None, 1:] - cur[None, :, 1:]) ** 2).sum(-1)
    assert apart == pytest.approx(np.array([[1, 0], [1, 1], [1, 1]]), abs=1e-6)
    assert [(c.column, c.level) for c in r.coordinates] == [(0, None), (1, "a"), (1, "b"), (1, "c")]


def test_missing_is_score_zero_and_an_indicator():
    r = represent(
        [numeric("v", [1.0, np.nan, 2.0], [3.0, np.nan]), levels("g", [0, 1, -1], [0, 1], ("a", "b"))], (None, None), (3, 2), 0
    )
    half = 1 / math.sqrt(2)
    assert [(c.column, c.level) for c in r.coordinates] == [(0, None), (0, "missing"), (1, "a"), (1, "b"), (1, "missing")]
    rows = r.pooled(False, ROWS(3))
    assert rows[1, :2] == pytest.approx([0, half])
    assert rows[2, 2:] == pytest.approx([0, 0, half])
    assert rows[[0, 2], 1].tolist() == [0, 0]
    z, present = r.within(False, ROWS(3))
    assert present[:, 0].tolist() == [1, 0, 1]
    assert z[1, 0] == 0


def test_rare_levels_are_joined():
    codes = np.r_[np.zeros(500, int), np.ones(490, int), np.arange(2, 12)]
    r = represent([levels("g", codes, codes, tuple("abcdefghijkl"))], (None, None), (1000, 1000), 0)
    assert [c.level for c in r.coordinates] == ["a", "b", "10 rare levels"]


def test_what_is_derived_from_one_text_counts_as_one_column():
    rng = np.random.default_rng(2)
    pairs = [numeric(n, rng.normal(size=40), rng.normal(size=40), source="t") for n in ("length", "digits", "spaces", "caps")]
    pairs.append(numeric("v", rng.normal(size=40), rng.normal(size=40)))
    r = represent(pairs, (None, None), (40, 40), 0)
    spread = np.r_[r.pooled(False, ROWS(40)), r.pooled(True, ROWS(40))].std(0)
    assert (spread[:4] ** 2).sum() == pytest.approx(spread[4] ** 2, rel=1e-4)


def test_what_takes_no_part():
    zeros = np.zeros(5)
    moving = numeric("t", np.arange(5.0), np.arange(5.0) + 9, tested=False)
    text = ColumnPair("words", Kind.TEXT, Column(zeros, zeros > 0), Column(zeros, zeros > 0))
    constant = numeric("k", zeros, zeros)
    no_level = levels("e", -np.ones(5), -np.ones(5), ())
    r = represent([moving, text, constant, no_level, numeric("v", np.arange(5.0), zeros)], (None, None), (5, 5), 0)
    assert [p.name for p in r.columns] == ["v"]


def test_within_scores_ignore_the_margins():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=200), np.exp(3 * rng.normal(size=200)) + 50
    r = represent([numeric("v", x, y)], (None, None), (200, 200), 0)
    for current, values in ((False, x), (True, y)):
        assert r.within(current, ROWS(200))[0][:, 0] == pytest.approx(norm.ppf((rankdata(values) - 0.5) / 200), abs=1e-5)
