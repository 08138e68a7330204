"""The JSON document against its committed schema, on ordinary and odd reports."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace

import hypothesis.strategies as st
import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from reports import column, grouped, hostile, joint, report

from discrepancy.comparison.document import plain, schema
from discrepancy.comparison.model import ColumnResult, Kind, Member, Options
from discrepancy.comparison.report import ComparisonReport, UnitFacts

NOTHING = {f.name: None for f in fields(ColumnResult)} | {
    "name": "x", "kind": Kind.NUMERIC, "unit": "", "tested": True, "members": (), "units": (1, 1), "n_eff": (1.0, 1.0),
    "rows": (1, 1), "missing": {}, "summary": {}, "p_value": 1.0, "p_any": 1.0,
    "p_adjusted": 1.0, "drift": False, "verdict": "undecided",
}  # fmt: skip


def checked(result: ComparisonReport) -> dict:
    """The document, parsed back from its text by a strict reader and valid against the schema."""
    document = json.loads(result.to_json(), parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    jsonschema.Draft202012Validator(schema()).validate(document)
    assert document == result.to_dict()
    return document


def test_the_schema_is_itself_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


def test_an_ordinary_report_has_the_names_that_scripts_rely_on() -> None:
    document = checked(report())
    assert document["schema_version"] == 1
    assert document["drift"] is True
    assert (document["level"], document["correction"]) == (0.05, "holm")
    first = document["columns"][0]
    assert {"name", "kind", "drift", "p_value", "p_adjusted", "distance", "low", "high", "unit", "size"} <= set(first)
    assert first["name"] == "temperature"
    assert first["drift"] is True
    assert document["joint"]["drift"] is True
    assert document["verdicts"] == {"drift": 3, "equivalent": 1, "undecided": 1, "left out": 1}
    assert document["left_out"] == {"old_name": "only in january.csv"}


def test_what_was_not_tested_is_no_drift() -> None:
    document = checked(report(column("id", kind=Kind.IDENTIFIER, verdict=None, summary={}), drift=False, joint=None))
    assert document["columns"][0]["drift"] is False
    assert document["columns"][0]["verdict"] == "left out"
    assert document["joint"] == {**document["joint"], "drift": False, "p_value": None, "verdict": "left out"}


@pytest.mark.parametrize(
    "odd",
    [
        report(ColumnResult(**NOTHING), drift=False, joint=None, rows=(1, 1)),
        report(column(distance=math.nan, low=-math.inf, high=math.inf, size=math.nan)),
        report(column(members=(Member("W1", math.nan, 0.0, None),))),
        report(column(hostile(), unit=hostile(), note=hostile()), names=(hostile(), hostile()), notes=(hostile(),)),
        report(column(n_eff=(np.float64(12.5), np.float32(3.0)), summary={"x": np.arange(3), "y": np.float64(math.nan)})),  # type: ignore[arg-type]
        report(
            joint=joint(distance=None, low=None, high=None, size=None, p_value=None, driver=None, members=(), pairs=(), shares=())
        ),
        report(options=Options(kinds={"a": Kind.CODE}, columns=("a",), deltas={"a": 0.0}, block="auto", sample=5)),
        report(units=UnitFacts("blocks", (3, 4), "multiplier", 20)),
        report(*[column(f"c{k}") for k in range(300)]),
        grouped(),
    ],
    ids=["nothing", "non-finite", "member", "hostile", "numpy", "joint", "options", "units", "many", "groups"],
)
def test_odd_reports_are_documents_too(odd: ComparisonReport) -> None:
    checked(odd)


def test_groups_name_their_columns() -> None:
    document = checked(grouped())
    assert [c["group"] for c in document["columns"]][:2] == ["north", "north"]
    assert [g["drift"] for g in document["groups"]] == [True, False]


def test_a_name_that_utf8_cannot_hold_is_replaced_and_the_rest_kept() -> None:
    document = checked(report(column("a\ud800é")))
    assert document["columns"][0]["name"] == "a\ufffdé"


def test_seconds_do_not_enter_the_document() -> None:
    assert report(seconds=1.0).to_json() == report(seconds=2.0).to_json()


def test_what_json_cannot_say_is_refused() -> None:
    with pytest.raises(TypeError, match="complex"):
        plain({"a": 1j})


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda s: st.lists(s) | st.dictionaries(st.text(), s),
        max_leaves=12,
    )
)
def test_plain_values_survive_strict_json(value: object) -> None:
    text = json.dumps(plain(value), allow_nan=False, ensure_ascii=False)
    text.encode("utf-8")
    assert json.loads(text) == plain(value)


def test_unknown_keys_fail_the_schema() -> None:
    document = report().to_dict()
    document["columns"][0]["surprise"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema())


@pytest.mark.parametrize("field", [f.name for f in fields(ColumnResult)])
def test_every_field_of_a_result_is_described(field: str) -> None:
    assert field in schema()["$defs"]["column"]["properties"]


def test_every_field_of_the_joint_result_is_described() -> None:
    described = set(schema()["$defs"]["joint"]["properties"])
    assert described == {f.name for f in fields(type(joint()))}


def test_columns_are_found_by_name() -> None:
    found = report()
    assert found.column("wind").verdict == "equivalent"
    with pytest.raises(KeyError, match="temperature"):
        found.column("nope")
    assert "Drift in 3 of 5 columns" in repr(found)
    assert "\n" not in repr(replace(found, names=("a\nb", "c")))
