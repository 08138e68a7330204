"""JSON: one object a line, an array of objects, or one object of equally long lists; objects in objects are flattened."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from discrepancy.comparison.errors import DataError, closest, listed
from discrepancy.comparison.reading.encoding import opened_text, text_facts
from discrepancy.comparison.reading.objects import object_column
from discrepancy.comparison.reading.sources import Part, opened
from discrepancy.comparison.reading.table import RawColumn, RawTable

CELLS = 2_000_000  # most values held as Python objects at one time


def _flat(record: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in record.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        keys = [key for key, _ in pairs]
        raise KeyError(next(key for key in keys if keys.count(key) > 1))
    return record


def _parsed(text: str, name: str, line: int) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unrepeated)
    except json.JSONDecodeError as error:
        row = line + error.lineno - 1
        hint = ": it looks like delimited text, so name it .csv" if line == 1 and text.lstrip("\ufeff \t")[:1] not in "{[" else ""
        raise DataError(f"{name}, line {row}: not JSON ({error.msg.lower()} at column {error.colno}){hint}") from None
    except KeyError as error:
        raise DataError(
            f"{name}, line {line}: the key {error.args[0]!r} occurs twice in one object: rename one of them"
        ) from None
    except RecursionError:
        raise DataError(f"{name}, line {line}: nested too deeply to be a row of a table") from None


def records_table(records: Sequence[dict[str, Any]], name: str, columns: Sequence[str] | None = None) -> RawTable:
    """A raw table from a list of mappings; a key that a record lacks is missing there."""
    names: dict[str, list[Any]] = {}
    nested = False
    for i, record in enumerate(records):
        for key, value in _flat(record):
            cells = names.get(key)
            if cells is None:
                cells = names[key] = []
            if len(cells) > i:
                raise DataError(f"{name}: the nested key {key!r} collides with a plain one: rename one of them")
            cells.extend([None] * (i - len(cells)))
            cells.append(value)
        nested = nested or any(isinstance(v, dict) for v in record.values())
    for cells in names.values():
        cells.extend([None] * (len(records) - len(cells)))
    notes = (f"{name}: objects inside objects were flattened to columns named outer.inner.",) if nested else ()
    return columns_table(names, name, columns, notes)


def columns_table(
    cells: dict[str, list[Any]], name: str, columns: Sequence[str] | None = None, notes: tuple[str, ...] = ()
) -> RawTable:
    """A raw table from lists of values by column name, all of one length."""
    rows = {len(values) for values in cells.values()}
    if len(rows) > 1:
        raise DataError(
            f"{name}: its columns have different lengths, {min(rows)} to {max(rows)}: each row needs one value a column"
        )
    table: dict[str, RawColumn] = {}
    left_out: dict[str, str] = {}
    for column, values in cells.items():
        if columns is not None and column not in columns:
            continue
        made = object_column(values)
        if isinstance(made, str):
            left_out[column] = made
        else:
            table[column] = made
    return RawTable(name, table, rows.pop() if rows else 0, notes, left_out)


def _records(value: Any, name: str) -> list[dict[str, Any]]:
    for i, record in enumerate(value):
        if not isinstance(record, dict):
            raise DataError(f"{name}: element {i + 1} is {json.dumps(record)[:40]}, expected an object with a key a column")
    return value


def iterate_json(part: Part, columns: Sequence[str] | None = None, rows: int = 200_000) -> Iterator[RawTable]:
    """Chunks of at most `rows` rows of a JSON file (fewer where a chunk would exceed 2 million values).

    Lines are streamed; an array or an object of lists is read whole. A key is a column; an absent key is missing there,
    so later chunks may have more columns. Raises DataError, with the line, for what is not JSON or not an object.
    """
    name = part.name
    with opened(part) as handle:
        facts = text_facts(handle, name)
    with opened(part) as handle, opened_text(handle, facts) as text:
        notes = (facts.note,) if facts.note else ()
        whole = _whole(text, name)
        if whole is not None:
            if isinstance(whole, list):
                table = records_table(_records(whole, name), name, columns)
            else:
                table = columns_table({str(k): v for k, v in whole.items()}, name, columns)
            chunks = iter([RawTable(name, table.columns, table.rows, (*notes, *table.notes), table.left_out)])
        else:
            text.seek(0)
            chunks = _lines(text, name, columns, rows, notes)
        seen: set[str] = set()
        count = 0
        for chunk in chunks:
            seen |= set(chunk.columns) | set(chunk.left_out)
            count += chunk.rows
            yield chunk
    if not count:
        raise DataError(f"{name} has no rows: nothing can be compared")
    absent = [c for c in columns or () if c not in seen]
    if absent:
        raise DataError(f"{name} has no column {listed(absent)}{closest(absent[0], seen)}")


def _whole(text: Any, name: str) -> list[Any] | dict[str, list[Any]] | None:
    """The content of a file that is one JSON value; None where it has an object a line."""
    first = ""
    while not first.strip("\ufeff \t\r\n"):
        line = text.readline()
        if not line:
            return None
        first = line
    opening = first.lstrip("\ufeff \t")
    if opening.startswith("{"):
        try:
            record = json.loads(opening)
            if not (record and all(isinstance(v, list) for v in record.values()) and not text.read(4096).strip()):
                return None
        except RecursionError:
            return None
        except json.JSONDecodeError:
            if opening.strip() != "{" and text.readline().lstrip().startswith("{"):
                return None  # a bad first line among lines of objects
    elif not opening.startswith("["):
        return None
    text.seek(0)
    value = _parsed(text.read().lstrip("\ufeff"), name, 1)
    if isinstance(value, list):
        if value and all(isinstance(v, list) for v in value):
            raise DataError(f"{name} is an array of arrays, which has no column names: write an object a row")
        return value
    if value and all(isinstance(v, list) for v in value.values()):
        return value
    raise DataError(f"{name} is one JSON object: expected an object a line, an array of objects, or lists by column name")


def _lines(text: Any, name: str, columns: Sequence[str] | None, rows: int, notes: tuple[str, ...]) -> Iterator[RawTable]:
    records: list[dict[str, Any]] = []
    values = 0

    def made() -> RawTable:
        table = records_table(records, name, columns)
        return RawTable(name, table.columns, table.rows, (*notes, *table.notes), table.left_out)

    for number, line in enumerate(text, start=1):
        stripped = line.strip("\ufeff \t\r\n")
        if not stripped:
            continue
        record = _parsed(stripped, name, number)
        if not isinstance(record, dict):
            raise DataError(f"{name}, line {number}: {stripped[:40]} is not an object: each line needs one, with a key a column")
        records.append(record)
        values += len(record)
        if len(records) >= rows or values >= CELLS:
            yield made()
            records, values = [], 0
    if records:
        yield made()
