"""Raw cells to the numbers and levels that are compared, as a `Decision` says; the same for whole tables and for chunks."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np

from discrepancy.comparison.cells.instants import read_instants
from discrepancy.comparison.cells.numbers import POINT, read_numbers
from discrepancy.comparison.cells.truths import truth
from discrepancy.comparison.kinds import Decision, Side
from discrepancy.comparison.model import Column, Kind
from discrepancy.comparison.reading.table import RawColumn

# Numbers that the user calls dates: seconds, milliseconds, microseconds or nanoseconds since 1970 by their size.
_EPOCH_UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))


def ordered_column(raw: RawColumn, side: Side, kind: Kind) -> Column:
    """A raw column as float64 numbers or seconds since the epoch, NaN where missing. Linear.

    A cell that does not fit counts as missing: `decide` has refused such a column before. NaN in the cells is missing.
    """
    family, values, missing = raw.family, raw.values, raw.missing
    if family == "text" and raw.plain is not None and side.number is POINT and not (kind is Kind.DATETIME and side.instant):
        values = raw.plain
    elif family == "text":
        keep = ~missing
        out = np.full(raw.rows, np.nan)
        if keep.any():
            cells = values[keep]
            if kind is Kind.DATETIME and side.instant is not None:
                out[keep] = read_instants(cells, side.instant)
            else:
                out[keep] = read_numbers(cells, side.number or POINT, side.affix)
        values = out
    elif family == "instant":
        values = values.astype(np.int64) / 1e6
    values = np.array(values, dtype=np.float64)
    values[missing] = np.nan
    if kind is Kind.DATETIME and (family == "number" or (family == "text" and side.instant is None)):
        values = values / _per_second(values)
    return Column(values, np.isnan(values))


def _per_second(values: np.ndarray) -> float:
    finite = np.abs(values[np.isfinite(values)])
    middle = float(np.median(finite)) if len(finite) else 0.0
    return next((unit for bound, unit in _EPOCH_UNITS if middle > bound), 1.0)


def level_cells(raw: RawColumn, side: Side, decision: Decision) -> list[str]:
    """The level of every row as it is displayed, "" where missing.

    Truth values take the decision's two names, whole numbers that name levels their plain digits ("1.0" and "+1" are
    "1"), other numbers their shortest digits; text is itself, in Unicode's composed form, so that what looks equal is.
    """
    cells = raw.texts()
    distinct = list(dict.fromkeys(cells))
    if decision.truths is not None:
        low, high = decision.truths
        named = {c: (high if truth(c) else low) if c else "" for c in distinct}
    elif decision.codes and side.number is not None:
        form = side.number
        named = {c: _digits(form.plain(c)) if c else "" for c in distinct}
    elif all(map(str.isascii, distinct)):
        return cells
    else:
        named = {c: unicodedata.normalize("NFC", c) for c in distinct}
    if all(key == value for key, value in named.items()):
        return cells
    return [named[cell] for cell in cells]


def _digits(cell: str) -> str:
    """A whole number's digits without sign +, leading zeros or a decimal part of zero; never by way of a float."""
    try:
        return str(int(cell))
    except ValueError:
        number = float(cell)
        return str(int(number)) if number == int(number) else str(number)


def pooled_levels(
    cells: tuple[Sequence[str], Sequence[str]],
    missing: tuple[np.ndarray, np.ndarray],
    decision: Decision,
    declared: tuple[tuple[str, ...] | None, tuple[str, ...] | None] = (None, None),
) -> tuple[tuple[str, ...], tuple[Column, Column]]:
    """Pool the levels of both tables, and give every row its code into them (int64, -1 where missing).

    Only levels that occur are kept. Their order is the declared one, else false before true, numbers by size, text
    alphabetically. Linear in rows, plus sorting of the levels.
    """
    seen: set[str] = set()
    for side, gone in zip(cells, missing):
        seen.update(side if not gone.any() else (c for c, m in zip(side, gone.tolist()) if not m))
    order = [level for side in declared for level in side or ()]
    order += list(decision.truths or ()) + sorted(seen, key=_level_key(seen))
    levels = tuple(level for level in dict.fromkeys(order) if level in seen)
    code = {level: i for i, level in enumerate(levels)}
    columns = []
    for side, gone in zip(cells, missing):
        codes = np.fromiter((code.get(cell, -1) for cell in side), dtype=np.int64, count=len(side))
        codes[gone] = -1
        columns.append(Column(codes, gone))
    return levels, (columns[0], columns[1])


def _level_key(seen: set[str]):
    """Numbers by size where every level is one, else the text itself."""
    if all(POINT.pattern.fullmatch(level) for level in seen):
        return lambda level: (float(level), level)
    return lambda level: level
