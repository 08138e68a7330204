"""Columns of Python objects - JSON values, object arrays, lists - as raw columns, by the one type that all of them have."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

import numpy as np

from discrepancy.comparison.reading.table import RawColumn, all_missing, text_column

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)


def _is_missing(value: Any) -> bool:
    if value is None:
        return True
    if isinstance(value, float | np.floating):
        return math.isnan(value)
    # pandas' NaT and NA, numpy's NaT: each is not equal to itself, or refuses to say.
    if isinstance(value, np.datetime64 | np.timedelta64):
        return bool(np.isnat(value))
    return type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, Decimal) and value.is_nan())


def _sort(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "boolean"
    if isinstance(value, Integral):
        return "integer"
    if isinstance(value, Real | Decimal):
        return "float"
    if isinstance(value, str):
        return "text"
    if isinstance(value, dt.date | np.datetime64):  # a datetime is a date
        return "instant"
    if isinstance(value, dt.timedelta | np.timedelta64):
        return "duration"
    if isinstance(value, dt.time):
        return "time"
    return type(value).__name__


def _microseconds(value: Any) -> int:
    if isinstance(value, np.datetime64):
        return int(value.astype("datetime64[us]").astype(np.int64))
    if not isinstance(value, dt.datetime):
        value = dt.datetime(value.year, value.month, value.day)
    if value.tzinfo is None:
        value = value.replace(tzinfo=dt.UTC)
    return (value - _EPOCH) // _MICROSECOND


def _seconds(value: Any) -> float:
    if isinstance(value, np.timedelta64):
        return float(value / np.timedelta64(1, "us")) / 1e6
    if isinstance(value, dt.time):
        return value.hour * 3600 + value.minute * 60 + value.second + value.microsecond / 1e6
    return value.total_seconds()


def _shown(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    return str(value)


def object_column(cells: Sequence[Any]) -> RawColumn | str:
    """A raw column from Python values, or the reason why it cannot be compared (lists, mappings, bytes).

    None and every kind of NaN are missing. Whole numbers beyond 64 bits, and text mixed with other plain values, are
    kept as text, digit for digit. Instants go to UTC. Linear time, a few hundred nanoseconds a cell.
    """
    missing = np.fromiter((_is_missing(v) for v in cells), dtype=bool, count=len(cells))
    present = [v for v, gone in zip(cells, missing.tolist()) if not gone]
    sorts = {_sort(v) for v in present}
    if not sorts:
        return all_missing(len(cells))
    plain = {"boolean", "integer", "float", "text", "instant", "duration", "time"}
    if not sorts <= plain:
        return f"holds {' and '.join(sorted(sorts - plain))} values: spread them over columns of plain values"
    rows = len(cells)

    def filled(values: list[Any], dtype: Any) -> np.ndarray:
        out = np.zeros(rows, dtype=dtype)
        out[~missing] = values
        return out

    if sorts == {"boolean"}:
        return RawColumn(filled(present, bool), missing)
    if sorts == {"integer"} and all(-(2**63) <= v < 2**63 for v in present):
        return RawColumn(filled([int(v) for v in present], np.int64), missing)
    if sorts == {"float"} or sorts == {"integer", "float"}:
        return RawColumn(filled([float(v) for v in present], np.float64), missing)
    if sorts == {"instant"}:
        zoned = {isinstance(v, dt.datetime) and v.tzinfo is not None for v in present}
        instants = filled([_microseconds(v) for v in present], np.int64).astype("datetime64[us]")
        return RawColumn(instants, missing, zone="utc" if True in zoned else "none")
    if sorts <= {"duration", "time"}:
        return RawColumn(filled([_seconds(v) for v in present], np.float64), missing, unit="seconds")
    return text_column(["" if gone else _shown(v) for v, gone in zip(cells, missing.tolist())])
