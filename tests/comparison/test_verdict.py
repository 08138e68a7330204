"""Verdicts: Holm's steps by hand, Monte Carlo error that is drawn away, and words that follow from numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discrepancy.comparison.columns import column as column_module
from discrepancy.comparison.columns.draws import Draws
from discrepancy.comparison.model import Column, ColumnPair, ColumnResult, JointResult, Kind, Options, TablePair
from discrepancy.comparison.units import make_units
from discrepancy.comparison.verdict import WITHIN_ERROR, decide, decide_groups, error_rate, stops_early
from discrepancy.inference import clopper_pearson


def result(name: str, p: float | None, *, low: float | None = None, high: float | None = None, **more: object) -> ColumnResult:
    known = {
        "kind": Kind.NUMERIC,
        "unit": "",
        "tested": True,
        "driver": "W1",
        "members": (),
        "equivalent": False,
        "small": None,
        "units": (100, 100),
        "n_eff": (100.0, 100.0),
        "rows": (100, 100),
        "missing": {},
    }
    empty = dict.fromkeys(
        ("distance", "low", "high", "noise", "corrected", "scale", "size", "size_low", "size_high", "delta", "margin", "p_any")
    )
    ends = {"p_value_low": p if low is None else low, "p_value_high": p if high is None else high}
    return ColumnResult(name=name, p_value=p, **{**known, **empty, **ends, **more})  # type: ignore[arg-type]


def whole(p: float | None, **more: object) -> JointResult:
    return JointResult(p, p, p, p, 0.1, 0.0, 0.2, 0.1, (), "pairs", **more)  # type: ignore[arg-type]


def never(name: str, draws: int) -> ColumnResult:
    raise AssertionError(f"{name} was redrawn {draws} times and nothing hangs on it")


def test_holm_over_columns_and_joint_is_one_family():
    columns = [result("a", 0.01), result("b", 0.03), result("c", 0.9)]
    v = decide(columns, whole(0.016), Options(), never)
    assert [c.p_adjusted for c in v.columns] == pytest.approx([0.04, 0.06, 0.9])
    assert v.joint is not None
    assert v.joint.p_adjusted == pytest.approx(0.048)  # 3 * 0.016
    assert [c.drift for c in v.columns] == [True, False, False]
    assert v.joint.drift
    assert v.drift
    assert v.family == 4
    assert not decide(columns, whole(0.9), Options(level=0.03), never).drift


@pytest.mark.parametrize(("correction", "flags"), [("holm", 1), ("bh", 3), ("none", 3)])
def test_each_correction_controls_what_it_says(correction: str, flags: int):
    columns = [result("a", 0.01), result("b", 0.03), result("c", 0.035), result("d", 0.9)]
    v = decide(columns, None, Options(correction=correction), never)  # type: ignore[arg-type]
    assert sum(bool(c.drift) for c in v.columns) == flags
    words = {
        "holm": "any flag among the 4 tests is at most 5 % (Holm)",
        "bh": "Benjamini-Hochberg",
        "none": "No family error rate",
    }
    assert words[correction] in v.error_rate


def test_the_sentence_names_the_minimum_effect_only_where_there_is_one():
    assert "changed by more than its minimum effect" in error_rate(Options(), 3)
    assert "changed at all" in error_rate(Options(delta=0.0), 3)
    assert "changed by more" in error_rate(Options(delta=0.0, deltas={"x": 0.1}), 3)
    assert "at most 1 %" in error_rate(Options(level=0.01), 3)
    assert "Nothing could be tested" in error_rate(Options(), 0)


def test_drift_equivalent_undecided_and_both():
    columns = [
        result("drifts", 1e-4),
        result("drifts and is small", 1e-4, equivalent=True),
        result("same", 0.7, equivalent=True),
        result("open", 0.7),
        result("shown", 0.7, tested=False, equivalent=True),
        result("nothing", None),
    ]
    got = decide(columns, None, Options(), never).columns
    assert [c.verdict for c in got] == ["drift", "drift", "equivalent", "undecided", "left out", "undecided"]
    assert [c.small for c in got] == [False, True, False, False, False, False]
    assert [c.drift for c in got] == [True, True, False, False, False, False]
    assert [c.p_adjusted is None for c in got] == [False, False, False, False, True, True]


def test_untested_columns_take_no_share_of_the_error():
    v = decide([result("a", 0.04), result("b", 0.001, tested=False)], None, Options(), never)
    assert v.family == 1
    assert v.columns[0].p_adjusted == pytest.approx(0.04)


def test_under_twenty_units_everything_is_undecided_and_says_why():
    v = decide([result("a", 0.004, units=(9, 10))], whole(0.001), Options(correction="none"), never)
    assert not v.drift
    assert v.columns[0].verdict == "undecided"
    assert v.columns[0].p_adjusted == 1.0
    assert "fewer than 20" in (v.columns[0].note or "")
    assert v.joint is not None
    assert (v.joint.drift, v.joint.verdict) == (False, "undecided")
    assert decide([result("a", 0.004, units=(10, 10))], None, Options(), never).drift


def test_pairs_are_listed_only_behind_a_rejection():
    pairs = ({"columns": ["a", "b"]},)
    kept = decide([result("a", 0.9)], whole(0.01, pairs=pairs), Options(), never).joint
    gone = decide([result("a", 0.9)], whole(0.04, pairs=pairs), Options(), never).joint
    assert kept is not None
    assert gone is not None
    assert kept.pairs == pairs
    assert gone.pairs == ()


def drawn(name: str, truth: float, draws: int) -> ColumnResult:
    """A column whose true p-value is known, as a test with that many draws would report it."""
    hits = round(truth * draws)
    low, high = clopper_pearson(hits, draws)
    return result(name, (1 + hits) / (draws + 1), low=float(low), high=float(high))


def test_more_draws_exactly_where_the_holm_step_is_in_doubt():
    truth = {"sure": 1e-9, "close": 0.0075, "null": 0.6, "also null": 0.03}
    asked: list[tuple[str, int]] = []

    def refine(name: str, draws: int) -> ColumnResult:
        asked.append((name, draws))
        return drawn(name, truth[name], draws)

    columns = [drawn(name, p, 999) for name, p in truth.items()]
    columns[0] = replace(columns[0], p_value=1e-9, p_value_high=1e-9)
    v = decide(columns, None, Options(), refine)
    # "close" must pass 0.05/3, "also null" then 0.05/2; "null" is never in doubt
    doubts = {"close": 0.05 / 3, "also null": 0.05 / 2}
    for name, step in doubts.items():
        for draws in (999, 3996, 15984):
            low, high = clopper_pearson(round(truth[name] * draws), draws)
            assert ((name, 4 * draws) in asked) == bool(low <= step < high)
    assert {name for name, _ in asked} == set(doubts)
    assert [c.drift for c in v.columns] == [True, True, False, False]
    assert all(WITHIN_ERROR not in (c.note or "") for c in v.columns)


def test_what_stays_in_doubt_at_64000_draws_is_noted():
    asked: list[int] = []

    def refine(name: str, draws: int) -> ColumnResult:
        asked.append(draws)
        return drawn(name, 0.05, draws)

    v = decide([drawn("edge", 0.05, 999)], None, Options(), refine)
    assert asked == [3996, 15984, 63936]
    assert WITHIN_ERROR in (v.columns[0].note or "")


def test_the_joint_test_is_refined_too_and_a_family_of_many_columns_needs_it():
    asked: list[int] = []

    def refine_joint(draws: int) -> JointResult:
        asked.append(draws)
        low, high = (float(e) for e in clopper_pearson(0, draws))
        return JointResult(1 / (draws + 1), 0.0, low, high, 0.1, 0.0, 0.2, 0.1, (), "pairs")

    many = [result(f"c{i}", 0.9) for i in range(99)]
    start = refine_joint(999)
    v = decide(many, start, Options(), never, refine_joint=refine_joint)
    assert asked == [999, 3996, 15984]  # 0 of 15,984: at most 0.00043 with 99.9 % confidence, below 0.05/100
    assert v.joint is not None
    assert v.joint.drift


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(1e-9, 1.0), min_size=1, max_size=30), st.floats(0.001, 0.2), st.sampled_from(["holm", "bh", "none"]))
def test_drift_is_exactly_p_adjusted_at_most_the_level(p: list[float], level: float, correction: str):
    v = decide([result(f"c{i}", x) for i, x in enumerate(p)], None, Options(level=level, correction=correction), never)  # type: ignore[arg-type]
    for c in v.columns:
        assert c.p_adjusted is not None
        assert c.p_value is not None
        assert c.p_adjusted >= c.p_value
        assert c.drift == (c.p_adjusted <= level)
    assert v.drift == any(c.drift for c in v.columns)


def test_groups_are_one_family():
    parts = {g: ([result("a", p)], None) for g, p in (("x", 0.02), ("y", 0.3), ("z", 0.5))}
    got = decide_groups(parts, Options(), lambda *_: never("a", 0))
    assert got["x"].columns[0].p_adjusted == pytest.approx(0.06)
    assert not any(v.drift for v in got.values())
    assert {v.family for v in got.values()} == {3}
    alone = decide([result("a", 0.02)], None, Options(), never)
    assert alone.drift


def test_stopping_early_is_for_long_tables():
    assert not stops_early(20)
    assert stops_early(21)


def test_drift_with_a_low_of_zero_only_if_another_member_drives():
    """W1 is nearly blind on heavy tails, and blind to missingness: those, and only those, drift with low = 0."""
    rng = np.random.default_rng(11)
    n = 600
    blind = 0
    for trial in range(40):
        shift = rng.choice([0.0, 0.15, 0.3, 0.6])
        law = rng.choice(["normal", "cauchy", "counts", "missing", "zeros"])
        x, y = rng.standard_normal(n), rng.standard_normal(n) + shift
        if law == "cauchy":
            x, y = rng.standard_cauchy(n), rng.standard_cauchy(n) + shift
        elif law == "counts":
            x, y = rng.poisson(4, n).astype(float), rng.poisson(4 + shift, n).astype(float)
        elif law == "zeros":
            x, y = np.where(rng.random((2, n)) < 0.7, 0, np.exp([x, y]))
        elif law == "missing":
            y = np.where(rng.random(n) < 0.05 + shift / 3, np.nan, y - shift)
        pair = ColumnPair(f"{law} {trial}", Kind.NUMERIC, Column(x, np.isnan(x)), Column(y, np.isnan(y)))
        options = Options(seed=trial, permutations=499)
        units = make_units(TablePair([pair], n, n), options)
        found = column_module.compare_column(pair, units, options, draws=Draws(trial))
        c = decide([found], None, options, lambda *_, found=found: found).columns[0]
        if c.drift and c.low == 0:
            assert c.driver != "W1", c
            blind += 1
    assert blind > 0  # the case exists and was met
