"""The JSON document of a report: schema version 1, described by `schema.json` beside this file."""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from discrepancy.comparison.model import ColumnResult, JointResult

if TYPE_CHECKING:
    from discrepancy.comparison.report import ComparisonReport, UnitFacts

SCHEMA_VERSION = 1


def plain(value: Any) -> Any:
    """A value as JSON knows it: NumPy scalars and arrays become numbers and lists, what is not finite becomes None.

    Lone surrogates, which UTF-8 cannot hold, become U+FFFD. Raises TypeError for what JSON has no word for.
    """
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return str(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {plain(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    raise TypeError(f"a report holds numbers, strings, lists and dicts, got {type(value).__name__}: {value!r}")


def _column(result: ColumnResult, group: str | None) -> dict[str, Any]:
    record = {f.name: getattr(result, f.name) for f in fields(ColumnResult)}
    record["members"] = [asdict(member) for member in result.members]
    record["drift"] = bool(result.drift)  # what was left out of the family was not flagged
    record["verdict"] = result.verdict or "left out"
    record["units"] = {"reference": result.units[0], "current": result.units[1]}
    record["rows"] = {"reference": result.rows[0], "current": result.rows[1]}
    record["n_eff"] = {"reference": result.n_eff[0], "current": result.n_eff[1]}
    if group is not None:
        record["group"] = group
    return plain(record)


def _joint(result: JointResult | None) -> dict[str, Any]:
    if result is None:  # the same keys, so that a script need not ask first
        absent: dict[str, Any] = {f.name: None for f in fields(JointResult)}
        absent |= {"members": [], "pairs": [], "shares": [], "typical": {}}
        return absent | {"drift": False, "verdict": "left out", "note": "no joint test was run"}
    record = {f.name: getattr(result, f.name) for f in fields(JointResult)}
    record["members"] = [asdict(member) for member in result.members]
    record["drift"] = bool(result.drift)
    record["verdict"] = result.verdict or "left out"
    return plain(record)


def _units(units: UnitFacts) -> dict[str, Any]:
    return {
        "kind": units.kind,
        "reference": units.count[0],
        "current": units.count[1],
        "null": units.null,
        "block_length": units.block_length,
    }


def document(report: ComparisonReport) -> dict[str, Any]:
    """The whole report as one JSON document; the same report gives the same document, byte for byte."""
    columns = [_column(result, group) for group, result in report.everything()]
    verdicts = [c["verdict"] for c in columns]
    return {
        "schema_version": SCHEMA_VERSION,
        "program": f"discrepancy {report.version}",
        "drift": bool(report.drift),
        "level": report.options.level,
        "correction": report.options.correction,
        "error_rate": plain(report.error_rate),
        "reference": {"name": plain(report.names[0]), "rows": report.rows[0]},
        "current": {"name": plain(report.names[1]), "rows": report.rows[1]},
        "verdicts": {word: verdicts.count(word) for word in ("drift", "equivalent", "undecided", "left out")},
        "columns": columns,
        "joint": _joint(report.joint),
        "groups": [
            {
                "value": plain(group.value),
                "rows": {"reference": group.rows[0], "current": group.rows[1]},
                "drift": group.drift,
                "joint": _joint(group.joint),
                "notes": plain(group.notes),
            }
            for group in report.groups
        ],
        "units": _units(report.units),
        "left_out": plain(report.left_out),
        "notes": plain(report.notes),
        "seed": report.options.seed,
        "options": plain(asdict(report.options)),
    }


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the document."""
    import json
    from importlib import resources

    text = resources.files("discrepancy.comparison").joinpath("schema.json").read_text(encoding="utf-8")
    return json.loads(text)
