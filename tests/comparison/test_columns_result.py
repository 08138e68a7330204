"""A column's result as a whole: equivalence, odd columns, the other kinds of unit, sketches, display data."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from columns_data import compare, levels, ordered, rows

from discrepancy.comparison.columns import Draws, Facts, KnotCounts, Line, Side, compare_column, compare_counts, count_column
from discrepancy.comparison.columns.norms import norms_of
from discrepancy.comparison.columns.null import null_sample
from discrepancy.comparison.columns.summary import PROBABILITIES
from discrepancy.comparison.model import Kind, Options, Units
from discrepancy.comparison.units import coarsen


def _finite(value):
    """Everything that a result holds is plain, and no number is NaN or infinite."""
    json.dumps(value, allow_nan=False)


def _check(result):
    _finite(asdict(result))
    if result.low is not None:
        assert 0 <= result.low <= result.distance * (1 + 1e-12) <= result.high * (1 + 1e-9)
    assert 0 < result.p_value <= 1
    assert result.p_any <= result.p_value
    assert result.p_value_low <= result.p_value <= result.p_value_high
    assert result.p_adjusted is None is result.verdict
    if result.driver is not None:
        assert result.driver in {m.name for m in result.members}


RNG = np.random.default_rng(0)
NAN = math.nan
ODD = {
    "one row each": ordered([1.0], [2.0]),
    "one row against many": ordered([1.0], np.arange(50.0)),
    "all missing on one side": ordered([NAN] * 20, np.arange(30.0)),
    "all missing": ordered([NAN] * 20, [NAN] * 9),
    "equal constants": ordered([3.0] * 20, [3.0] * 9),
    "different constants": ordered([3.0] * 20, [4.0] * 9),
    "constant, then not": ordered([3.0] * 40, RNG.normal(3, 1, 40)),
    "only infinities": ordered([math.inf] * 9, [-math.inf, math.inf] * 9),
    "infinite on one side": ordered([math.inf] * 30, RNG.normal(size=30)),
    "rare ones": ordered([0.0] * 5000, [0.0] * 4990 + [1.0] * 10),
    "numbers of both ends": ordered([1e308, -1e308] * 20, [1e-308, 0.0] * 20),
    "no level": levels([-1] * 9, [-1] * 7, ()),
    "one level": levels([0] * 9, [0] * 7, ("a",)),
    "as many levels as rows": levels(np.arange(60), np.arange(60, 120), tuple(map(str, range(120)))),
    "novel level": levels([0] * 500, [0] * 450 + [1] * 50, ("a", "b")),
    "unused levels": levels([0, 3] * 50, [0, 3] * 50, ("a", "b", "c", "d")),
    "boolean": levels([0] * 490 + [1] * 10, [0] * 440 + [1] * 60, ("false", "true"), kind=Kind.BOOLEAN),
    "no rows on one side": ordered([], [1.0, 2.0]),
    "no rows": ordered([], []),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_columns_have_a_plain_answer(name):
    for early in (False, True):
        _check(compare(ODD[name], early_stop=early, permutations=400))


def test_what_odd_columns_say():
    one = compare(ODD["one row each"])
    assert (one.p_value, one.low, one.high, one.size, one.equivalent) == (1.0, None, None, None, None)
    assert one.distance == 1.0
    gone = compare(ODD["all missing on one side"])
    assert (gone.distance, gone.driver) == (None, "missing")
    assert gone.p_value <= 0.001
    same = compare(ODD["equal constants"])
    assert (same.distance, same.size, same.high, same.p_value) == (0.0, 0.0, 0.0, 1.0)
    moved = compare(ODD["different constants"])
    assert (moved.distance, moved.low, moved.high) == (1.0, 1.0, 1.0)
    assert compare(ODD["novel level"]).p_value < 1e-3
    assert compare(ODD["infinite on one side"]).driver == "+inf"
    assert compare(ODD["no rows"]).p_value == 1.0
    few = compare(ordered(RNG.normal(size=50), RNG.normal(size=50)))
    assert "approximate" in few.note


def test_two_identical_tables_show_nothing():
    x = RNG.normal(size=3000)
    result = compare(ordered(x, x))
    assert (result.distance, result.low, result.corrected, result.size) == (0.0, 0.0, 0.0, 0.0)
    assert result.p_value == 1.0
    assert result.equivalent
    assert result.high == pytest.approx(1.96 * x.std() * math.sqrt(2 / 3000), rel=0.01)


def test_equivalence_needs_values_and_shares_inside_their_margins():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=5000), rng.normal(size=5000)
    result = compare(ordered(x, y))
    assert result.equivalent
    assert result.small
    assert result.margin == 0.1
    sigma = np.concatenate([x, y]).std() * math.sqrt(2 / 5000)
    edge = (result.distance + 1.6449 * sigma) / result.scale
    assert compare(ordered(x, y), options=Options(margin=edge * 1.001)).equivalent
    assert not compare(ordered(x, y), options=Options(margin=edge * 0.999)).equivalent
    assert not compare(ordered(x, y), options=Options(margins={"amount": edge * 0.999})).equivalent
    # Missing cells: 1 % against 5.5 % is inside neither 0.05 with its error nor the default.
    x[:50], y[:275] = np.nan, np.nan
    assert not compare(ordered(x, y)).equivalent
    y[:275] = rng.normal(size=275)
    y[:60] = np.nan
    assert compare(ordered(x, y)).equivalent
    assert not compare(ordered(x[:300], y[:300])).equivalent  # too few rows to show it


def test_a_real_but_small_change_is_called_small():
    rng = np.random.default_rng(2)
    n = 60_000
    result = compare(ordered(rng.normal(size=n), rng.normal(0.06, 1, n)))
    assert result.p_value < 0.01
    assert result.equivalent
    assert result.small


def test_a_change_of_unit_changes_the_numbers_and_not_the_verdict():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=400), rng.normal(0.3, 1, 350)
    one, two = compare(ordered(x, y)), compare(ordered(1000 * x + 7, 1000 * y + 7))
    assert two.p_value == one.p_value
    assert two.size == pytest.approx(one.size, rel=1e-9)
    for field in ("distance", "low", "high", "noise", "corrected", "scale"):
        assert getattr(two, field) == pytest.approx(1000 * getattr(one, field), rel=1e-9)
    back = compare(ordered(y, x))
    assert back.distance == pytest.approx(one.distance, rel=1e-12)
    assert back.high == pytest.approx(one.high, rel=1e-9)


def test_corrected_takes_the_noise_out():
    rng = np.random.default_rng(4)
    found = [compare(ordered(rng.normal(size=200), rng.normal(0.3, 1, 200)), permutations=99) for _ in range(60)]
    assert np.mean([r.corrected for r in found]) == pytest.approx(0.3, abs=0.035)
    null = [compare(ordered(rng.normal(size=200), rng.normal(size=200)), permutations=99) for _ in range(60)]
    assert np.median([r.corrected for r in null]) < 0.04 < np.median([r.distance for r in null])
    assert np.mean([r.noise for r in null]) == pytest.approx(np.mean([r.distance for r in null]), rel=0.15)


def test_random_groups_give_the_level_of_rows():
    rng = np.random.default_rng(5)
    n = 24_000
    pair = ordered(rng.normal(size=n), rng.normal(0.05, 1, n))
    grouped = coarsen(rows(pair), 0, above=20_000, groups=500)
    assert grouped.kind == "groups"
    one, two = compare(pair), compare(pair, grouped)
    assert two.distance == one.distance
    assert two.high == pytest.approx(one.high, rel=1e-12)
    assert two.noise == pytest.approx(one.noise, rel=0.1)
    assert math.log(two.p_any) == pytest.approx(math.log(one.p_any), abs=1.5)
    shares = levels(rng.integers(0, 5, n), rng.integers(0, 5, n), tuple("abcde"))
    assert compare(shares, grouped).p_value == compare(shares).p_value  # fixed-margin tables in both cases


def test_clusters_widen_what_rows_make_too_narrow():
    rng = np.random.default_rng(6)
    unit = np.repeat(np.arange(60), 20)
    x, y = (rng.normal(size=60)[unit] + 0.3 * rng.normal(size=1200) for _ in range(2))
    units = Units(60, 60, unit, unit, kind="clusters")
    clustered, plain = compare(ordered(x, y), units), compare(ordered(x, y))
    assert clustered.p_any > plain.p_any
    assert clustered.noise > 3 * plain.noise
    assert clustered.high - clustered.distance > 3 * (plain.high - plain.distance)
    assert clustered.units == (60, 60)
    _check(clustered)
    _check(compare(levels(unit % 4, unit % 3, tuple("abcd")), units))
    # Many clusters are put together at random: the same law, less work.
    many = Units(3000, 3000, np.repeat(np.arange(3000), 2), np.repeat(np.arange(3000), 2), kind="clusters")
    pair = ordered(np.repeat(rng.normal(size=3000), 2), np.repeat(rng.normal(size=3000), 2))
    counts = count_column(pair, many, Options(), draws=Draws(0))
    assert counts.reference.units.shape[0] == 500
    assert counts.reference.units.sum() == 6000
    separate = null_sample(norms_of(count_column(pair, rows(pair), Options())), 400, Draws(0), "x").values
    together = null_sample(norms_of(counts), 400, Draws(0), "x").values
    assert together.mean(0) == pytest.approx(math.sqrt(2) * separate.mean(0), rel=0.12)


@pytest.mark.parametrize("big", [False, True])
def test_one_weighted_table_is_resampled_inside_itself(big):
    rng = np.random.default_rng(7)
    n = 25_000 if big else 600
    x = rng.normal(size=n)
    y = rng.normal(size=500)
    units = Units(n, 500, null="multiplier")
    result = compare(ordered(x, y), units, weights=(np.exp(-0.7 * x), None), permutations=300)
    _check(result)
    assert result.p_any <= 0.004  # the weights move the mean by 0.7
    assert result.n_eff[0] < 0.8 * n
    fair = compare(ordered(x + 0.7, y), units, weights=(np.exp(-0.7 * x), None), permutations=300)
    assert fair.p_any > 0.01


def test_a_derived_column_takes_the_options_of_its_source():
    pair = replace(ordered(RNG.normal(size=60), RNG.normal(size=60), "comment: length"), source="comment", note="text")
    result = compare(pair, options=Options(margins={"comment": 0.3}, deltas={"comment": 0.05}, delta=0.4))
    assert (result.margin, result.delta, result.source) == (0.3, 0.05, "comment")
    assert result.note.startswith("text")


def _sketched(errors):
    knots = np.arange(6.0)
    f, g = np.array([300.0, 200, 200, 100, 100, 100]), np.array([100.0, 100, 200, 200, 200, 200])
    line = Line(knots, float("nan"), 1.7, 1.6)
    return KnotCounts(True, 6, (), Side(f, f, 1000), Side(g, g, 1000), line, errors=errors)


def test_stored_counts_compare_like_rows_and_a_sketch_error_widens():
    facts = Facts("amount", Kind.NUMERIC, rows=(1000, 1000), units=(1000, 1000))
    exact = compare_counts(_sketched({}), facts, Options())
    _check(exact)
    x, y = (np.repeat(np.arange(6.0), c.astype(int)) for c in (_sketched({}).reference.mass, _sketched({}).current.mass))
    from_rows = compare(ordered(x, y))
    assert exact.distance == pytest.approx(from_rows.distance)
    assert exact.high == pytest.approx(from_rows.high)
    rough = compare_counts(_sketched({"W1": 0.1, "A": 0.9, "KS": 0.9}), facts, Options())
    assert rough.distance == exact.distance
    assert rough.low == pytest.approx(exact.low - 0.1)
    assert rough.high == pytest.approx(exact.high + 0.1)
    assert rough.p_value > exact.p_value
    none = compare_counts(_sketched({"W1": 9.0, "A": 9.0, "KS": 9.0}), facts, Options())
    assert none.low == 0.0
    assert none.p_value == 1.0
    with pytest.raises(ValueError, match="cannot be negative"):
        _sketched({"W1": -1.0})
    with pytest.raises(ValueError, match=r"one mass for each of the 3 cells, got shape \(2,\)"):
        KnotCounts(False, 3, (), Side(np.ones(2), np.ones(2), 2), Side(np.ones(3), np.ones(3), 3))


def test_display_data_of_an_ordered_column():
    rng = np.random.default_rng(8)
    x, y = rng.lognormal(size=900), np.append(rng.lognormal(size=700), [np.nan, np.inf])
    summary = compare(ordered(x, y)).summary
    assert len(PROBABILITIES) == len(summary["reference"]["quantiles"]) == 21
    assert summary["reference"]["quantiles"] == pytest.approx(np.quantile(x, PROBABILITIES))
    assert summary["current"]["count"] == 700
    assert summary["current"]["sd"] == pytest.approx(y[:700].std(ddof=1))
    assert summary["reference"]["mean"] == pytest.approx(x.mean())
    histogram = summary["histogram"]
    assert len(histogram["edges"]) <= 61
    for name in ("reference", "current"):
        side = histogram[name]
        area = np.array(side["density"]) @ np.diff(histogram["edges"]) + side["below"] + side["above"]
        assert area == pytest.approx(1.0)
    whole = compare(ordered([0.0, 1, 1, 3], [2.0, 3], kind=Kind.INTEGER)).summary["histogram"]
    assert whole["edges"] == [-0.5, 0.5, 1.5, 2.5, 3.5]
    assert whole["reference"]["density"] == [0.25, 0.5, 0.0, 0.25]
    w = np.array([1.0, 0.0, 3.0])
    weighted = compare(ordered([1.0, 9.0, 2.0], [1.0, 2.0, 3.0]), weights=(w, w)).summary["reference"]
    assert weighted["mean"] == pytest.approx(1.75)
    assert (weighted["quantiles"][0], weighted["quantiles"][10], weighted["quantiles"][-1]) == (1.0, 2.0, 2.0)


def test_display_data_of_a_level_column():
    x = np.repeat(np.arange(40), np.arange(40, 0, -1))
    y = np.concatenate([np.repeat(np.arange(39), 3), [40, 40, -1]])
    names = tuple(f"level {k}" for k in range(41))
    summary = compare(levels(x, y, names)).summary
    assert len(summary["levels"]) == 30
    assert summary["rest"] == summary["distinct"] - 30 == 12
    assert summary["novel"] == [{"level": "level 40", "count": 2.0}]
    assert summary["vanished"] == [{"level": "level 39", "count": 1.0}]
    shown = {e["level"]: e for e in summary["levels"]}
    assert shown["level 0"]["reference"] == 40.0
    assert shown["level 0"]["current_share"] == pytest.approx(3 / 120)
    missing = compare(levels([0, -1], [0, 0], ("a",))).summary["levels"]
    assert {e["level"] for e in missing} == {"a", "(missing)"}


def test_the_same_column_gives_the_same_result_bit_for_bit():
    pair = ordered(RNG.normal(size=150), RNG.normal(size=140))
    units, options = rows(pair), Options(seed=5)
    assert compare_column(pair, units, options) == compare_column(pair, units, options)
