"""What a reader hands on: named raw columns, text or number, with a mask of missing cells. Nothing is interpreted here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np

from discrepancy.comparison.errors import DataError, listed

# What stands for "no value" in text. The set that data frames have taught people to expect; case matters, so that the
# element Na and the surname Null survive.
MISSING_TOKENS = frozenset(
    ("", "NA", "N/A", "n/a", "<NA>", "#N/A", "#N/A N/A", "#NA", "NULL", "null", "Null", "None")
) | frozenset(("NaN", "nan", "NAN", "-NaN", "-nan", "NaT", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"))
# Text up to this width is kept as fixed-width bytes: a byte a character instead of 50 a string, and vectorised tests.
NARROW = 40
_IN_NUMBER = np.zeros(256, dtype=bool)
_IN_NUMBER[[0, *b"0123456789+-.eE"]] = True


@dataclass(frozen=True)
class RawColumn:
    """One column as its source has it.

    `values`: bool, int64, uint64, float32, float64, datetime64[us] (UTC), or text: ASCII bytes of fixed width ("S") or
    Python strings (object), already stripped. `missing`: bool mask. `levels`: the declared levels of a categorical or
    enumeration, in their order. `zone`: whether instants carried a time zone. `unit`: what numbers count, where the
    source says so. `padded`: surrounding spaces were dropped.
    """

    values: np.ndarray
    missing: np.ndarray
    levels: tuple[str, ...] | None = None
    zone: Literal["none", "utc"] = "none"
    unit: str = ""
    padded: bool = False

    @property
    def rows(self) -> int:
        """How many rows, missing ones included."""
        return len(self.values)

    @property
    def is_text(self) -> bool:
        """Whether the cells are text, so that what they hold is still to be found out."""
        return self.values.dtype.kind in "SO"

    @property
    def family(self) -> Literal["text", "instant", "boolean", "number"]:
        """The broad type of the cells, in a word."""
        kind = self.values.dtype.kind
        return "text" if kind in "SO" else "instant" if kind == "M" else "boolean" if kind == "b" else "number"

    @property
    def empty(self) -> bool:
        """Whether every cell is missing."""
        return bool(self.missing.all())

    @cached_property
    def plain(self) -> np.ndarray | None:
        """Text cells as float64, NaN where missing, if all are written with digits, sign, point and exponent; else None."""
        values = self.values
        if values.dtype.kind != "S" or not len(values):
            return None
        if not _IN_NUMBER[np.ascontiguousarray(values).view(np.uint8)].all():
            return None
        gone = self.missing.any()
        try:
            numbers = np.where(self.missing, b"nan", values).astype(np.float64) if gone else values.astype(np.float64)
        except ValueError:
            return None
        return numbers

    def texts(self) -> list[str]:
        """Every cell as text, "" where missing; a number as Python prints it, an instant in ISO 8601."""
        values = self.values
        kind = values.dtype.kind
        if kind == "S":
            cells = values.astype("U").tolist()
        elif kind == "O":
            cells = values.tolist()
        elif kind == "b":
            cells = np.where(values, "true", "false").tolist()
        elif kind == "f":
            # float32 prints its own shortest digits, 0.1 and not 0.10000000149
            wide = values.astype(np.float64) if values.dtype == np.float64 else values
            cells = [_number_text(v) for v in (wide.tolist() if values.dtype == np.float64 else map(str, wide))]
        else:
            cells = values.astype(str).tolist()
        if self.missing.any():
            cells = ["" if gone else cell for cell, gone in zip(cells, self.missing.tolist())]
        return cells

    def take(self, index: np.ndarray) -> RawColumn:
        """The rows of a boolean or integer index."""
        return replace(self, values=self.values[index], missing=self.missing[index])


def _number_text(value: float | str) -> str:
    text = str(value)
    return text[:-2] if text.endswith(".0") else text


@dataclass(frozen=True)
class RawTable:
    """A table, or a run of consecutive rows of one: raw columns of one length, with what was noticed on the way.

    `name` is for messages. `left_out` maps a column that cannot be compared (lists, bytes) to the reason.
    `delimiter` is that of a delimited file, which decides what an ambiguous "1,234" means.
    """

    name: str
    columns: dict[str, RawColumn]
    rows: int
    notes: tuple[str, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    delimiter: str | None = None

    def take(self, index: np.ndarray) -> RawTable:
        """The rows of a boolean or integer index."""
        columns = {name: column.take(index) for name, column in self.columns.items()}
        rows = int(index.sum()) if index.dtype == bool else len(index)
        return replace(self, columns=columns, rows=rows)


def text_column(cells: Sequence[str]) -> RawColumn:
    """A raw column from text cells: stripped, missing tokens masked, compact where short and ASCII."""
    stripped = [cell.strip() for cell in cells]
    padded = stripped != cells
    missing = np.zeros(len(stripped), dtype=bool)
    if not MISSING_TOKENS.isdisjoint(stripped):
        missing = np.fromiter((cell in MISSING_TOKENS for cell in stripped), dtype=bool, count=len(stripped))
        stripped = ["" if gone else cell for cell, gone in zip(stripped, missing.tolist())]
    if max(map(len, stripped), default=0) <= NARROW:
        try:
            return RawColumn(np.array(stripped, dtype="S"), missing, padded=padded)
        except UnicodeEncodeError:
            pass
    values = np.empty(len(stripped), dtype=object)
    pool: dict[str, str] = {}
    values[:] = [pool.setdefault(cell, cell) for cell in stripped]
    return RawColumn(values, missing, padded=padded)


def all_missing(rows: int) -> RawColumn:
    """A column without a value."""
    return RawColumn(np.zeros(rows, dtype="S1"), np.ones(rows, dtype=bool))


def join(columns: Sequence[RawColumn], name: str, where: str) -> RawColumn:
    """Consecutive pieces of one column as one; all-missing pieces fit any type.

    Text with numbers becomes text, integers with floats become floats. DataError if instants or booleans meet another type.
    """
    if len(columns) == 1:
        return columns[0]
    missing = np.concatenate([c.missing for c in columns])
    full = [c for c in columns if not c.empty]
    if not full:
        return all_missing(len(missing))
    families = {c.family for c in full}
    if len(families) > 1 and families != {"text", "number"}:
        kinds = " in some rows and ".join(sorted(families))
        raise DataError(f"{where}: column {name!r} holds {kinds} in others: make its type the same throughout")
    levels = tuple(dict.fromkeys(level for c in full for level in c.levels or ())) or None
    if any(c.levels is None for c in full):
        levels = None
    zone = "utc" if any(c.zone == "utc" for c in full) else "none"
    common = {"levels": levels, "zone": zone, "unit": full[0].unit, "padded": any(c.padded for c in full)}
    if families == {"text", "number"}:
        return replace(text_column([cell for c in columns for cell in c.texts()]), **common)
    dtype = np.result_type(*{c.values.dtype for c in full if c.values.dtype != object}) if families != {"text"} else None
    if dtype is None:
        if any(c.values.dtype == object for c in full):
            # A long or accented cell somewhere: strings throughout, so that one column has one representation.
            values = np.empty(len(missing), dtype=object)
            values[:] = [cell for c in columns for cell in c.texts()]
        else:
            values = np.concatenate([c.values if c.is_text else np.zeros(c.rows, dtype="S1") for c in columns])
    else:
        values = np.concatenate([np.zeros(c.rows, dtype) if c.empty else c.values.astype(dtype, copy=False) for c in columns])
    return RawColumn(values, missing, **common)


def concatenate(tables: Sequence[RawTable], name: str | None = None, *, consume: bool = False) -> RawTable:
    """Consecutive tables as one; a column that a piece lacks is missing there.

    Linear in cells; peak memory is twice the table, or once and a column with `consume`, which takes the columns out of
    the pieces as it goes. Raises DataError where a column's types clash.
    """
    if not tables:
        raise DataError(f"{name or 'the data'} has no rows: nothing can be compared")
    first = tables[0]
    if len(tables) == 1:
        return first if name is None else replace(first, name=name)
    names = dict.fromkeys(column for table in tables for column in table.columns)
    left_out: dict[str, str] = {}
    for table in tables:
        left_out |= table.left_out
    notes = tuple(dict.fromkeys(note for table in tables for note in table.notes))
    columns: dict[str, RawColumn] = {}
    for column in names:
        pieces = [t.columns.get(column) or all_missing(t.rows) for t in tables]
        if consume:
            for table in tables:
                table.columns.pop(column, None)
        if column not in left_out:
            columns[column] = join(pieces, column, name or first.name)
    return RawTable(name or first.name, columns, sum(t.rows for t in tables), notes, left_out, first.delimiter)


def unique_names(header: Sequence[str], where: str) -> tuple[list[str], list[str]]:
    """Column names stripped, empty ones numbered, with the notes this deserves; DataError on duplicates, which names them."""
    names = [name.strip() for name in header]
    unnamed = [i for i, name in enumerate(names) if not name]
    for i in unnamed:
        names[i] = f"column {i + 1}"
    if len(set(names)) < len(names):
        seen: dict[str, int] = {}
        for position, name in enumerate(names):
            if name in seen:
                raise DataError(
                    f"{where}: columns {seen[name] + 1} and {position + 1} are both named {name!r}: rename one of them"
                )
            seen[name] = position
    notes = []
    if unnamed:
        shown = listed([names[i] for i in unnamed])
        notes.append(f"{where}: {len(unnamed)} column(s) without a name, called {shown} here.")
    return names, notes
