"""`compare` from two sources to a report: planted changes are found, nothing else is, and odd tables have their outcome."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from scipy.stats import wasserstein_distance

import discrepancy
from discrepancy import compare
from discrepancy.comparison.document import schema
from discrepancy.comparison.errors import DataError, OptionError
from discrepancy.comparison.report import ComparisonReport


def rows(n: int, seed: int, **planted: float) -> dict[str, Any]:
    """A table of mixed kinds; `planted` changes a column by name."""
    rng = np.random.default_rng(seed)
    gap = planted.get("gap", 0.0)
    z = rng.normal(size=n)
    noise = rng.normal(size=n)
    r = planted.get("dependence", 0.0)
    value = rng.normal(size=n) + planted.get("value", 0.0)
    value[rng.random(n) < 0.02 + gap] = np.nan
    shares = np.array([0.5, 0.3, 0.2]) + planted.get("city", 0.0) * np.array([-1.0, 0.0, 1.0])
    return {
        "value": value,
        "steady": z,
        "partner": r * z + np.sqrt(1 - r * r) * noise,
        "count": rng.poisson(4, size=n),
        "city": rng.choice(["Rome", "Oslo", "Lima"], size=n, p=shares),
        "flag": rng.random(n) < 0.3,
        "id": [f"{seed}-{k}" for k in range(n)],
    }


def checked(report: ComparisonReport) -> dict[str, Any]:
    document = json.loads(report.to_json())
    jsonschema.Draft202012Validator(schema()).validate(document)
    for text in (report.to_html(), report.to_markdown(), report.to_csv(), report._repr_html_()):
        text.encode("utf-8")
    return document


def flagged(report: ComparisonReport) -> set[str]:
    return {c.name for c in report.columns if c.drift}


def test_planted_changes_are_found_and_only_they() -> None:
    report = compare(rows(2400, 1), rows(2400, 2, value=0.4, city=0.12))
    assert flagged(report) == {"value", "city"}
    assert report.drift
    assert report.left_out.keys() == {"id"}
    document = checked(report)
    by_name = {c["name"]: c for c in document["columns"]}
    assert by_name["value"]["low"] < 0.4 < by_name["value"]["high"]
    assert by_name["city"]["low"] < 0.12 < by_name["city"]["high"]
    for c in document["columns"]:
        assert c["drift"] == (c["p_adjusted"] <= 0.05)
        assert c["p_adjusted"] >= c["p_value"]
        assert c["low"] <= c["distance"] <= c["high"]


def test_the_distance_is_the_one_that_scipy_gives() -> None:
    a, b = rows(500, 1), rows(300, 2, value=0.4)
    report = compare(a, b)
    x, y = a["value"], b["value"]
    truth = wasserstein_distance(x[~np.isnan(x)], y[~np.isnan(y)])
    assert report.column("value").distance == pytest.approx(truth, rel=1e-12)
    p, q = ([np.mean(t["city"] == c) for c in ("Rome", "Oslo", "Lima")] for t in (a, b))
    assert report.column("city").distance == pytest.approx(0.5 * np.abs(np.subtract(p, q)).sum(), rel=1e-12)


def test_missing_cells_set_the_drift_of_their_column() -> None:
    report = compare(rows(2400, 1), rows(2400, 2, gap=0.1))
    assert flagged(report) == {"value"}
    found = report.column("value")
    assert found.driver == "missing"
    assert found.missing["current"] - found.missing["reference"] == pytest.approx(0.1, abs=0.025)


def test_a_changed_dependence_is_found_jointly_only() -> None:
    report = compare(rows(2400, 1, dependence=0.7), rows(2400, 2))
    assert flagged(report) == set()
    assert report.drift
    assert report.joint is not None
    assert report.joint.drift
    assert {"steady", "partner"} == set(report.joint.pairs[0]["columns"])


def test_nothing_planted_nothing_found() -> None:
    report = compare(rows(2400, 3), rows(2400, 4))
    assert not report.drift
    assert checked(report)["verdicts"]["drift"] == 0


def test_groups_share_one_family() -> None:
    a, b = rows(1500, 1), rows(1500, 2, value=0.6)
    report = compare(a, b, by="city")
    assert [g.value for g in report.groups] == ["Lima", "Oslo", "Rome"]
    assert all({c.name for c in g.columns if c.drift} == {"value"} for g in report.groups)
    assert sum(g.rows[0] for g in report.groups) == 1500
    assert all("city" not in {c.name for c in g.columns} for g in report.groups)
    tests = sum(c.tested for g in report.groups for c in g.columns) + len(report.groups)
    assert f"{tests} tests" in report.error_rate
    document = checked(report)
    assert {c["group"] for c in document["columns"]} == {"Lima", "Oslo", "Rome"}
    b["city"] = np.where(b["city"] == "Lima", "Kyoto", b["city"])
    notes = " ".join(compare(a, b, by="city").notes)
    assert "'Kyoto'" in notes
    assert "'Lima'" in notes


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table], ids=["pandas", "polars", "pyarrow"])
def test_frames_give_what_arrays_give(make: Any) -> None:
    a, b = rows(300, 1), rows(300, 2, value=0.5)
    assert compare(make(a), make(b)).to_dict() == compare(a, b).to_dict()


def test_the_same_seed_gives_the_same_document() -> None:
    a, b = rows(300, 1), rows(300, 2, value=0.1)
    once = compare(a, b, seed=7).to_json()
    assert compare(a, b, seed=7).to_json() == once
    assert compare(a, b, seed=8).to_json() != once


def test_leaving_a_column_out_changes_no_other_p_value() -> None:
    a, b = rows(300, 1), rows(300, 2, value=0.1)
    whole, part = compare(a, b), compare(a, b, columns=("value", "city"))
    for name in ("value", "city"):
        assert part.column(name).p_value == whole.column(name).p_value


def test_progress_is_told_from_start_to_end() -> None:
    steps: list[tuple[int, int, str]] = []
    compare(rows(100, 1), rows(100, 2), progress=lambda *step: steps.append(step))
    assert [done for done, _, _ in steps] == list(range(len(steps)))
    assert steps[-1][:2] == (7, 7)
    assert {"value", "city", "joint distribution"} <= {what for _, _, what in steps}


@pytest.mark.parametrize(
    ("a", "b", "drift"),
    [
        ({"x": [1.0], "c": ["a"]}, {"x": [2.0], "c": ["b"]}, False),
        ({"x": [1.0] * 30}, {"x": [1.0] * 30}, False),
        ({"x": [1.0] * 50}, {"x": [2.0] * 50}, True),
        ({"x": [1.5] * 50, "y": ["a"] * 50}, {"x": [2.5] * 50, "y": ["b"] * 50}, True),
        ({"x": [None] * 40, "y": [1.0, 2.0] * 20}, {"x": [None] * 40, "y": [1.0, 2.0] * 20}, False),
        ({"x": [None] * 40}, {"x": list(np.linspace(0, 1, 40))}, True),
        ({"x": [*np.linspace(0, 1, 200), *[np.inf] * 40]}, {"x": [*np.linspace(0, 1, 200), *[np.inf] * 2]}, True),
        ({"x": np.linspace(-1e300, 1e300, 60)}, {"x": np.linspace(-1e300, 1e300, 60)}, False),
        ({"id": [f"u{k}" for k in range(50)]}, {"id": [f"v{k}" for k in range(50)]}, False),
        ({"t": ["9999-12-31", "0001-01-01"] * 30}, {"t": ["9999-12-31", "0001-01-01"] * 30}, False),
        ({"=1<b>\x1b[2J": np.arange(30.0), "y\n|": ["=cmd", "<script>", "x"] * 10},) * 2 + (False,),
    ],
    ids=[
        "one row",
        "constant",
        "constant moved",
        "constants moved",
        "all missing",
        "missing in one",
        "infinities",
        "huge",
        "identifiers",
        "far dates",
        "hostile",
    ],
)
def test_odd_tables_have_their_outcome(a: dict, b: dict, drift: bool) -> None:
    report = compare(a, b)
    checked(report)
    assert report.drift == drift
    for c in report.columns:
        assert c.verdict is not None


def test_many_columns_of_few_rows_stay_undecided_with_a_reason() -> None:
    rng = np.random.default_rng(0)
    a, b = ({f"c{k}": rng.normal(size=5) for k in range(150)} for _ in range(2))
    report = compare(a, b)
    assert {c.verdict for c in report.columns} == {"undecided"}
    assert any("fewer than 20" in note for note in report.notes)
    checked(report)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"level": 1.5}, "level must be between 0 and 1"),
        ({"levle": 0.1}, "unknown option 'levle'"),
        ({"kinds": {"nowhere": "code"}}, "nowhere"),
        ({"kinds": {"value": "shoe"}}, "shoe"),
        ({"columns": "value"}, "columns"),
    ],
)
def test_wrong_options_are_refused_with_a_word(options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        compare(rows(50, 1), rows(50, 2), **options)


def test_tables_without_a_common_column_are_refused() -> None:
    with pytest.raises(DataError, match="no column in common"):
        compare({"a": [1.0, 2.0]}, {"b": [1.0, 2.0]})


def test_options_as_an_object_and_keywords_over_them() -> None:
    base = discrepancy.Options(level=0.2, correction="none", joint="none")
    report = compare(rows(100, 1), rows(100, 2), options=base, level=0.01)
    assert (report.level, report.correction) == (0.01, "none")
    assert report.joint is None
    assert "No family error rate" in report.error_rate


def test_blocks_weights_and_clusters_reach_the_units() -> None:
    a, b = rows(400, 1), rows(400, 2)
    blocks = compare(a, b, block=20)
    assert (blocks.units.kind, blocks.units.count, blocks.units.block_length) == ("blocks", (20, 20), 20)
    weighted = compare(a | {"w": np.linspace(1, 2, 400)}, b | {"w": np.ones(400)}, weights="w")
    assert weighted.column("steady").n_eff[0] < 400
    assert weighted.left_out["w"]
    keys = np.repeat(np.arange(50), 8)
    clustered = compare(a | {"k": keys}, b | {"k": keys + 100}, cluster="k")
    assert (clustered.units.kind, clustered.units.count) == ("clusters", (50, 50))
