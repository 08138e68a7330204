"""Profiles and streams in comparisons: the same answers as rows within the stated error, and clear words where they differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from discrepancy import DataError, OptionError, compare
from discrepancy.comparison.document import schema
from discrepancy.comparison.model import Kind
from discrepancy.comparison.profile import Profile, merge, profile
from discrepancy.comparison.report import ComparisonReport

WORDS = np.array(["alpha", "beta", "gamma", "delta", "epsilon"])


def table(n: int, seed: int, *, value: float = 0.0, city: float = 0.0, gap: float = 0.0) -> dict[str, Any]:
    """A table of mixed kinds; `value`, `city` and `gap` plant a shift, a change of shares, and missing cells."""
    rng = np.random.default_rng(seed)
    number = np.round(rng.normal(size=n) + value, 6)
    number[rng.random(n) < 0.02 + gap] = np.nan
    shares = np.array([0.5, 0.3, 0.2]) + city * np.array([-1.0, 0.0, 1.0])
    return {
        "value": number,
        "skewed": rng.lognormal(size=n),
        "count": rng.poisson(4, size=n),
        "city": rng.choice(["Rome", "Oslo", "Lima"], size=n, p=shares),
        "flag": np.where(rng.random(n) < 0.3, "yes", "no"),
        "note": [" ".join(rng.choice(WORDS, size=k)) for k in rng.integers(4, 9, size=n)],
        "id": [f"{seed}-{k}" for k in range(n)],
    }


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    return table(3_000, 1)


@pytest.fixture(scope="module")
def drifted() -> dict[str, Any]:
    return table(2_500, 2, value=0.3, city=0.1)


@pytest.fixture(scope="module")
def base(reference: dict[str, Any]) -> Profile:
    return profile(reference, name="base")


@pytest.fixture(scope="module")
def raw(reference: dict[str, Any], drifted: dict[str, Any]) -> ComparisonReport:
    return compare(reference, drifted)


def check(report: ComparisonReport) -> None:
    document = json.loads(report.to_json())
    jsonschema.Draft202012Validator(schema()).validate(document)
    for text in (report.to_html(), report.to_markdown(), report.to_csv()):
        text.encode("utf-8")


def same_as_rows(found: ComparisonReport, rows: ComparisonReport) -> None:
    check(found)
    assert {c.name for c in found.columns} == {c.name for c in rows.columns}
    assert {c.name for c in found.columns if c.drift} == {c.name for c in rows.columns if c.drift}
    assert found.rows == rows.rows
    assert "id" in found.left_out
    for truth in rows.columns:
        c = found.column(truth.name)
        assert c.distance is not None
        assert truth.distance is not None
        assert abs(c.distance - truth.distance) <= c.summary["sketch_error"] + 1e-9, c.name
        assert c.low <= truth.distance <= c.high  # type: ignore[operator]
        assert c.missing["reference"] == truth.missing["reference"]
        assert c.kind is truth.kind
        assert c.scale == pytest.approx(truth.scale, rel=0.01)
        if c.summary["sketch_error"] < 1e-6:
            assert c.p_any == pytest.approx(truth.p_any, abs=0.05)


def test_a_profile_stands_for_its_rows_on_either_side(
    base: Profile, reference: dict[str, Any], drifted: dict[str, Any], raw: ComparisonReport
) -> None:
    assert {c.name for c in raw.columns if c.drift} == {"value", "city"}
    found = compare(base, drifted)
    same_as_rows(found, raw)
    assert found.joint is not None
    assert found.joint.drift
    assert found.joint.typical == {}
    assert found.joint.note is not None
    assert "no pairs" in found.joint.note
    assert found.joint.distance == pytest.approx(raw.joint.distance, rel=0.1)  # type: ignore[union-attr]
    assert any("is a profile of 3,000 rows" in note for note in found.notes)
    back = compare(drifted, base)
    assert back.column("value").distance == pytest.approx(found.column("value").distance, abs=0.01)
    assert compare(base, drifted).to_json() == found.to_json()


def test_two_profiles_with_their_own_knots(base: Profile, drifted: dict[str, Any], raw: ComparisonReport) -> None:
    found = compare(base, profile(drifted, name="new"))
    same_as_rows(found, raw)
    assert 0 < found.column("skewed").summary["sketch_error"] < 0.02 * found.column("skewed").scale  # type: ignore[operator]
    assert found.joint is None
    assert any("different maps" in note and "--like" in note for note in found.notes)


def test_a_profile_like_another_compares_without_error(
    base: Profile, drifted: dict[str, Any], raw: ComparisonReport, tmp_path: Path
) -> None:
    other = profile(drifted, like=base)
    assert all(not np.any(c.counts.error) for c in other.columns)
    paths = [tmp_path / "a.profile", tmp_path / "b.profile"]
    base.save(paths[0])
    other.save(paths[1])
    found = compare(*paths)
    same_as_rows(found, raw)
    assert found.joint is not None
    assert found.joint.drift
    assert found.names == ("a.profile", "b.profile")
    # Not even the error of interpolated knots is left.
    assert found.column("skewed").summary["sketch_error"] < 0.005 * found.column("skewed").scale  # type: ignore[operator]


def test_a_merged_profile_is_that_of_all_rows(base: Profile, drifted: dict[str, Any], reference: dict[str, Any]) -> None:
    second = table(2_000, 5)
    rows = {name: list(reference[name]) + list(second[name]) for name in reference}
    truth = compare(rows, drifted)
    exact = compare(merge([base, profile(second, like=base)]), drifted)
    same_as_rows(exact, truth)
    assert exact.joint is not None
    assert exact.joint.distance == pytest.approx(truth.joint.distance, rel=0.1)  # type: ignore[union-attr]
    assert "merged from 2 parts" in " ".join(exact.notes)
    loose = compare(merge([base, profile(second)]), drifted)
    same_as_rows(loose, truth)
    assert loose.joint is None


def test_the_same_rows_show_nothing(base: Profile, reference: dict[str, Any]) -> None:
    found = compare(base, reference)
    assert not found.drift
    for c in found.columns:
        assert c.distance == pytest.approx(0, abs=1e-9 + c.summary["sketch_error"])
    assert found.joint is not None
    assert found.joint.distance == pytest.approx(0, abs=1e-4)


def test_files_above_the_budget_are_streamed(
    reference: dict[str, Any], drifted: dict[str, Any], raw: ComparisonReport, tmp_path: Path
) -> None:
    paths = []
    for name, data in (("a.csv", reference), ("b.csv", drifted)):
        paths.append(tmp_path / name)
        rows = zip(*(data[c] for c in data), strict=True)
        lines = [",".join("" if v != v else str(v) for v in row) for row in rows]
        paths[-1].write_text(",".join(data) + "\n" + "\n".join(lines) + "\n", encoding="utf-8")
    found = compare(*paths, memory=0.001)
    same_as_rows(found, raw)
    assert found.joint is not None
    assert found.joint.drift
    assert found.joint.typical["current"]
    assert any("--memory" in note and "read twice" in note for note in found.notes)
    assert any("uniform sample of 1,000 rows" in note for note in found.notes)
    row = found.joint.typical["current"][0]
    assert row["values"]["count"] == drifted["count"][row["row"]], "typical rows carry their number in the file"
    with pytest.raises(OptionError, match="by needs the rows"):
        compare(*paths, memory=0.001, by="city")
    assert compare(*paths, memory=0.001, sample=500).rows == (500, 500)


def test_kinds_are_settled_by_all_cells(tmp_path: Path) -> None:
    path = tmp_path / "late.csv"
    path.write_text("a,b\n" + "".join(f"{i % 7},{i % 5}\n" for i in range(4_000)) + "x,2.5\n", encoding="utf-8")
    found = profile(path, memory=1e-4)  # chunks of 1,000 rows: the odd cells come late
    assert found.column("a").kind is Kind.CATEGORICAL
    assert found.column("b").kind is Kind.NUMERIC
    assert found.column("a").counts.rows == 4_001


def test_what_does_not_fit_is_refused(base: Profile, drifted: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"'value' holds numbers in base.*and text in"):
        compare(base, {**drifted, "value": ["word"] * 2_500}, names=("base", "new"))
    with pytest.raises(DataError, match=r"no column in common|no column that can be profiled"):
        compare(base, {"other": [1.0, 2.0, 4.0]})
    with pytest.raises(OptionError, match="a profile fixes kinds"):
        compare(base, drifted, kinds={"city": "text"})
    with pytest.raises(OptionError, match="weights needs the rows"):
        compare(base, drifted, weights="count")
    with pytest.raises(OptionError, match="classifier"):
        compare(base, drifted, joint="classifier")
    with pytest.raises(DataError, match="cannot be merged"):
        merge([base, profile({"value": drifted["value"], "city": drifted["city"]})])
    with pytest.raises(OptionError, match="'nothing'"):
        profile(drifted, kinds={"nothing": Kind.CODE})
    with pytest.raises(ValueError, match="at least one profile"):
        merge([])


def test_missing_columns_and_odd_columns() -> None:
    n = 300
    rng = np.random.default_rng(0)
    one = {
        "a": rng.normal(size=n), "same": np.ones(n), "empty": [None] * n, "yes": ["yes", "no"] * (n // 2),
        "t": [f"2024-01-{d:02d}" for d in sorted(rng.integers(1, 28, n))], "gone": rng.normal(size=n),
        "wild": np.where(rng.random(n) < 0.1, np.inf, rng.normal(size=n)),
    }  # fmt: skip
    two = one | {
        "a": rng.normal(size=n), "empty": rng.normal(size=n), "yes": ["true", "false"] * (n // 2), "new": rng.normal(size=n),
        "t": [f"2024-02-{d:02d}" for d in sorted(rng.integers(1, 28, n))], "wild": rng.normal(size=n),
    }  # fmt: skip
    two.pop("gone")
    for found in (compare(profile(one), two), compare(profile(one), profile(two)), compare(one, profile(two))):
        check(found)
        assert found.column("same").verdict == "left out"
        assert found.column("t").verdict == "left out"
        assert "Moves with time" in (found.column("t").note or "")
        assert found.column("empty").drift
        assert found.column("empty").driver == "missing"
        assert found.column("wild").drift
        assert found.column("wild").driver == "+inf"
        assert not found.column("yes").drift
        assert found.column("yes").distance == 0
        assert {"gone", "new"} <= found.left_out.keys()


def test_one_row_and_few_rows() -> None:
    found = compare(profile({"a": [1.0], "b": ["x"]}), {"a": [2.0], "b": ["y"]})
    check(found)
    assert not found.drift
    assert {c.verdict for c in found.columns} <= {"undecided", "left out"}


def test_more_rows_than_tables_of_margins_take(base: Profile) -> None:
    whole = base
    while whole.rows < 2_000_000_000:
        whole = merge([whole, whole])
    found = compare(whole, base)
    assert not found.drift
    assert "safe side" in (found.column("value").note or "")
    assert found.rows[0] == whole.rows


def test_columns_and_neighbours_that_are_alike(base: Profile, drifted: dict[str, Any]) -> None:
    found = compare(base, drifted, columns=["value", "note"])
    assert {c.name for c in found.columns} == {"value", "note: length", "note: letters", "note: spaces"}
    assert found.joint is None
    walk = np.cumsum(np.random.default_rng(0).normal(size=2_000))
    serial = compare(profile({"w": walk}), {"w": walk + 1})
    assert any("eighbouring rows are alike" in note for note in serial.notes)
    assert not any("eighbouring" in note for note in found.notes)
