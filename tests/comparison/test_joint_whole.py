"""The joint test as a whole: what it finds, what it does not, and what it must not depend on."""

from __future__ import annotations

import datetime
import json
import math

import numpy as np
import pytest
from joint_tables import levels, matrices, numeric

from discrepancy.comparison.joint import compare_joint
from discrepancy.comparison.joint.joint import gaussian_tail
from discrepancy.comparison.model import Column, ColumnPair, JointResult, Kind, Options, TablePair
from discrepancy.comparison.units import make_units


def joint(table: TablePair, permutations: int | None = None, **options: object) -> JointResult:
    chosen = Options(**options)  # type: ignore[arg-type]
    found = compare_joint(table, make_units(table, chosen), chosen, permutations=permutations)
    assert found is not None
    return found


def normal(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def test_one_pair_changes_and_no_margin_does():
    X, Y = normal(900, 6, 0), normal(900, 6, 1)
    Y[:, 4] = 0.5 * Y[:, 1] + math.sqrt(0.75) * Y[:, 4]
    r = joint(matrices(X, Y))
    assert r.driver == "pairs"
    assert r.p_value is not None
    assert r.p_value < 1e-4  # beyond what 999 draws alone can say
    assert [p["columns"] for p in r.pairs] == [["c1", "c4"]]
    assert r.pairs[0]["current"] == pytest.approx(0.5, abs=0.1)
    assert r.pairs[0]["reference"] == pytest.approx(0.0, abs=0.1)
    assert r.pairs[0]["p_value"] <= 0.002
    assert {r.shares[0]["column"], r.shares[1]["column"]} == {"c1", "c4"}


def test_one_column_shifts_and_carries_the_distance():
    X, Y = normal(1500, 8, 2), normal(1200, 8, 3)
    Y[:, 5] += 0.5
    r = joint(matrices(X, Y))
    assert r.p_value is not None
    assert r.p_value < 0.001
    assert r.driver is not None
    assert r.driver.startswith("MMD")
    assert r.low is not None
    assert r.high is not None
    assert r.distance is not None
    assert 0 < r.low < r.distance < r.high
    assert r.size == r.distance
    assert r.pairs == ()
    assert r.shares[0]["column"] == "c5"
    assert r.shares[0]["share"] > 0.8
    assert sum(s["share"] for s in r.shares) == pytest.approx(1)
    # typical rows lie on their own side of the shift: reference low, current high
    means = {side: np.mean([row["values"]["c5"] for row in r.typical[side]]) for side in ("reference", "current")}
    assert means["reference"] < -0.5
    assert means["current"] > 1.0
    for side, data in (("reference", X), ("current", Y)):
        rows = r.typical[side]
        assert len(rows) == 10
        assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
        assert all(row["values"]["c5"] == data[row["row"], 5] for row in rows)
        assert next(iter(rows[0]["values"])) == "c5"


def test_a_shift_of_all_columns_is_shared_by_all():
    X, Y = normal(3000, 5, 4), normal(3000, 5, 5) + 0.4
    shares = {s["column"]: s["share"] for s in joint(matrices(X, Y)).shares}
    assert len(shares) == 5
    assert all(0.1 < v < 0.35 for v in shares.values())


def test_nothing_changed_and_nothing_is_told():
    r = joint(matrices(normal(500, 5, 6), normal(700, 5, 7)))
    assert r.p_any is not None
    assert r.p_value is not None
    assert 0.05 < r.p_any <= r.p_value <= 1
    assert (r.pairs, r.shares, r.typical, r.low) == ((), (), {}, 0.0)
    assert [m.name for m in r.members] == ["MMD 0.35", "MMD 0.7", "MMD 1.4", "pairs"]
    assert [m.delta for m in r.members] == [0.01, 0.01, 0.01, 0.05]


def test_a_trifle_at_many_rows_is_seen_and_not_flagged():
    n = 60_000
    X, Y = normal(n, 4, 8), normal(n, 4, 9)
    Y += 0.015
    Y[:, 1] = 0.03 * Y[:, 0] + Y[:, 1]
    r = joint(matrices(X, Y), permutations=499)
    assert r.p_any is not None
    assert r.p_value is not None
    assert r.p_any < 0.001
    assert r.p_value > 0.05
    assert joint(matrices(X, Y), permutations=499, delta=0.0).p_value == pytest.approx(r.p_any, rel=1e-9)


def test_ranks_make_it_invariant_to_monotone_maps_and_order_of_rows():
    X, Y = normal(300, 4, 10), normal(260, 4, 11) + 0.15
    first = joint(matrices(X, Y))
    mapped = joint(matrices(np.exp(X), np.exp(Y)))
    assert mapped.distance == pytest.approx(first.distance, abs=1e-6)
    assert mapped.p_value == first.p_value
    again = joint(matrices(X, Y))
    assert (again.p_value, again.distance, again.typical) == (first.p_value, first.distance, first.typical)
    swapped = joint(matrices(Y, X))
    assert swapped.distance is not None
    assert first.distance is not None
    # the median distance comes from pooled rows, which are all of them here: only the order differs
    assert swapped.distance == pytest.approx(first.distance, rel=1e-4)


def test_mixed_kinds_with_missing_cells_and_a_moved_share():
    rng = np.random.default_rng(12)
    n = 800
    when = 1.6e9 + 86_400 * rng.random((2, n))
    x, y = rng.normal(size=n), rng.normal(size=n)
    y[rng.random(n) < 0.3] = np.nan
    g = rng.choice(4, n, p=[0.4, 0.3, 0.2, 0.1]), rng.choice(4, n, p=[0.2, 0.3, 0.2, 0.3])
    gone = np.zeros(n, bool)
    pairs = [
        numeric("v", x, y),
        levels("g", g[0], g[1], ("a", "b", "c", "<d>")),
        ColumnPair("t", Kind.DATETIME, Column(when[0], gone), Column(when[1], gone)),
        ColumnPair(
            "k", Kind.INTEGER, Column(rng.poisson(3, n).astype(float), gone), Column(rng.poisson(3, n).astype(float), gone)
        ),
    ]
    r = joint(TablePair(pairs, n, n))
    assert r.p_value is not None
    assert r.p_value < 0.01
    assert {s["column"] for s in r.shares[:2]} == {"v", "g"}
    row = r.typical["current"][0]
    assert set(row["values"]) == {"v", "g", "t", "k"}
    assert isinstance(row["values"]["k"], int)
    assert row["values"]["g"] in ("a", "b", "c", "<d>")
    shown = datetime.datetime.fromisoformat(row["values"]["t"])
    assert abs((shown - datetime.datetime(1970, 1, 1)).total_seconds() - when[1][row["row"]]) < 1
    assert any(row["values"]["v"] is None for row in r.typical["current"])
    json.dumps([r.typical, r.pairs, r.shares], allow_nan=False)


def test_frequency_weights_are_repeated_rows():
    X, Y = normal(120, 3, 13), normal(100, 3, 14)
    times = np.random.default_rng(0).integers(0, 4, 120)
    counted = joint(matrices(X, Y, weights_reference=times.astype(float)), frequency_weights=True)
    repeated = joint(matrices(np.repeat(X, times, axis=0), Y))
    assert counted.distance == pytest.approx(repeated.distance, rel=1e-6)
    assert counted.p_value == repeated.p_value


def test_importance_weights_undo_a_tilt():
    """Rows drawn from N(-0.7, 1) and weighted by exp(0.7 x) stand for N(0, 1)."""
    X = normal(1200, 3, 15)
    Y = normal(900, 3, 16)
    X[:, 0] -= 0.7
    tilted = joint(matrices(X, Y))
    undone = joint(matrices(X, Y, weights_reference=np.exp(0.7 * X[:, 0])))
    assert tilted.p_value is not None
    assert undone.p_any is not None
    assert tilted.p_value < 0.001
    assert undone.p_any > 0.05
    assert undone.distance is not None
    assert tilted.distance is not None
    assert undone.distance < 0.4 * tilted.distance


def test_blocks_take_the_place_of_rows_that_depend_on_each_other():
    rng = np.random.default_rng(17)
    X, Y = (np.repeat(rng.normal(size=(60, 3)), 10, axis=0) + 0.1 * rng.normal(size=(600, 3)) for _ in range(2))
    assert joint(matrices(X, Y)).p_any == pytest.approx(0, abs=0.01)  # far too sure
    blocked = joint(matrices(X, Y), block=10)
    assert blocked.p_any is not None
    assert blocked.p_any > 0.05


def test_a_much_larger_table_is_sampled_and_says_so():
    rng = np.random.default_rng(18)
    r = joint(matrices(rng.normal(size=(100, 3)), rng.normal(size=(30_000, 3))), permutations=99)
    assert "uniform sample of 10,000 rows of current" in (r.note or "")


def test_what_cannot_be_tested_jointly():
    one = matrices(normal(50, 1, 0), normal(50, 1, 1))
    options = Options()
    assert compare_joint(one, make_units(one, options), options) is None
    two = matrices(normal(50, 2, 0), normal(50, 2, 1))
    assert compare_joint(two, make_units(two, options), Options(joint="none")) is None
    flat = matrices(np.c_[np.ones(50), normal(50, 1, 0)], np.c_[np.ones(50), normal(50, 1, 0)])
    assert compare_joint(flat, make_units(flat, options), options) is None
    single = matrices(normal(1, 2, 0), normal(50, 2, 1))
    assert compare_joint(single, make_units(single, options), options) is None


def test_ten_thousand_columns_of_five_rows_end_and_claim_nothing():
    r = joint(matrices(normal(5, 10_000, 0), normal(5, 10_000, 1)), permutations=99)
    assert r.p_value is not None
    assert r.p_value >= 1 / 253
    assert len(r.members) == 3  # no pair can be judged on five rows


def test_the_gaussian_tail_bounds_the_tail_of_a_norm():
    """|B| of a standard normal B in 5 dimensions is chi: its own tail is known."""
    from scipy.stats import chi

    draws = np.sqrt((np.random.default_rng(0).normal(size=(20_000, 5)) ** 2).sum(1))[:, None]
    for p in (1e-3, 1e-5, 1e-8):
        bound = float(gaussian_tail(np.array([chi(5).isf(p)]), draws, np.ones(1))[0])
        assert p < bound < 25 * p**0.9
    assert gaussian_tail(np.array([1.0]), draws, np.ones(1))[0] == 1.0
