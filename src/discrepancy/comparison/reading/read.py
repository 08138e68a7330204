"""The three verbs of reading: `read_table` (whole), `iterate` (in chunks), `estimate_bytes` (how much whole would be)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from discrepancy.comparison.errors import DataError, listed
from discrepancy.comparison.reading.arrays import arrays_table, iterate_arrays
from discrepancy.comparison.reading.arrow import iterate_arrow, parquet_facts
from discrepancy.comparison.reading.delimited import iterate_delimited
from discrepancy.comparison.reading.frames import frame_table, is_frame
from discrepancy.comparison.reading.jsonlines import columns_table, iterate_json, records_table
from discrepancy.comparison.reading.sources import Files, Part, locate, opened
from discrepancy.comparison.reading.table import RawTable, concatenate, text_column

_READERS = {
    "csv": iterate_delimited, "tsv": iterate_delimited, "jsonl": iterate_json,
    "npy": iterate_arrays, "npz": iterate_arrays, "parquet": iterate_arrow, "arrow": iterate_arrow,
}  # fmt: skip
_HEAD = 1 << 20


def source_name(source: Any, default: str) -> str:
    """What to call a source in messages and reports: its last path component, or `default` for objects and "-"."""
    if isinstance(source, str | os.PathLike) and os.fspath(source) != "-":
        path = os.fspath(source)
        return Path(str(path)).name or str(path)
    return default


def _in_memory(source: Any, name: str, columns: Sequence[str] | None) -> RawTable:
    """A raw table from an object: frame, mapping of arrays, matrix, list of mappings."""
    if is_frame(source):
        return frame_table(source, name, columns)
    if isinstance(source, Mapping):
        if not source:
            raise DataError(f"{name} has no columns: nothing can be compared")
        arrays = {}
        for key, values in source.items():
            if isinstance(values, str | bytes) or not (hasattr(values, "__len__") or hasattr(values, "__array__")):
                raise DataError(f"{name}: column {key!r} is {values!r}: expected an array or a list with a value a row")
            arrays[str(key)] = _array(values)
        if len(arrays) < len(source):
            raise DataError(f"{name}: two keys read the same as text: rename one of them")
        if any(a.dtype == object and a.ndim == 1 for a in arrays.values()) and all(a.ndim == 1 for a in arrays.values()):
            return _checked(
                columns_table({k: a.tolist() if a.dtype == object else list(a) for k, a in arrays.items()}, name), columns
            )
        return arrays_table(arrays, name, columns)
    if isinstance(source, Sequence) and source and all(isinstance(row, Mapping) for row in source):
        return _checked(records_table([dict(row) for row in source], name), columns)
    if isinstance(source, Sequence) or hasattr(source, "__array__"):
        array = _array(source)
        if array.ndim == 0:
            raise DataError(f"{name} is a single value: expected rows by columns")
        return arrays_table({"": array}, name, columns)
    raise DataError(
        f"{name} is of the type {type(source).__name__}: expected a path, a data frame, an array, or arrays by column"
    )


def _array(values: Any) -> np.ndarray:
    if hasattr(values, "detach"):  # a tensor: its data, wherever it lives
        values = values.detach().cpu()
    if isinstance(values, np.ma.MaskedArray):
        return values
    if hasattr(values, "dtype"):
        return np.asarray(values)
    try:
        array = np.asarray(values)
    except ValueError:  # ragged
        array = None
    # A list is an array only where that loses nothing: [1, "a"] must not become two strings unseen.
    if array is not None and (array.dtype.kind in "biufmM" or array.ndim > 1):
        return array
    out = np.empty(len(values), dtype=object)
    out[:] = list(values)
    return out


def _checked(table: RawTable, columns: Sequence[str] | None) -> RawTable:
    if not table.rows:
        raise DataError(f"{table.name} has no rows: nothing can be compared")
    if columns is None:
        return table
    absent = [c for c in columns if c not in table.columns and c not in table.left_out]
    if absent:
        raise DataError(f"{table.name} has no column {listed(absent)}")
    return replace(table, columns={c: v for c, v in table.columns.items() if c in columns})


def is_path(source: Any) -> bool:
    """Whether a source is files and not an object that the caller holds."""
    return isinstance(source, str | os.PathLike | Files)


def _located(source: Any) -> Files:
    return source if isinstance(source, Files) else locate(source)


def iterate(
    source: Any, columns: Sequence[str] | None = None, rows: int = 200_000, *, name: str = "the table"
) -> Iterator[RawTable]:
    """A source as consecutive chunks of at most `rows` rows, `columns` only.

    Files are streamed (npz, and JSON that is one array, are held whole); objects in memory are sliced. Files of a folder
    or glob follow each other in order of name and must have the same columns (JSON lines may differ: absent is missing).
    A column's raw type may differ between chunks of text; what it holds is decided over all of them (`gather`).
    Linear in the source; memory of one chunk. Raises DataError as the readers do.
    """
    if rows < 1:
        raise ValueError(f"rows must be at least 1, got {rows}")
    if not is_path(source):
        yield from _sliced(_in_memory(source, name, columns), rows)
        return
    parts = _located(source).parts
    first: RawTable | None = None
    for part in parts:
        keys = dict(part.partition)
        inside = None if columns is None else [c for c in columns if c not in keys]
        for whole in _READERS[part.format](part, inside, rows):
            for chunk in _sliced(_partitioned(whole, keys, columns), rows):
                if first is None:
                    first = chunk
                elif part is not parts[0]:
                    _same_columns(first, chunk, part)
                yield chunk


def _sliced(table: RawTable, rows: int) -> Iterator[RawTable]:
    if table.rows <= rows:
        yield table
        return
    for start in range(0, table.rows, rows):
        yield table.take(np.arange(start, min(start + rows, table.rows)))


def _partitioned(chunk: RawTable, keys: dict[str, str], columns: Sequence[str] | None) -> RawTable:
    added = {
        k: text_column([v] * chunk.rows) for k, v in keys.items() if k not in chunk.columns and (columns is None or k in columns)
    }
    return replace(chunk, columns=chunk.columns | added) if added else chunk


def _same_columns(first: RawTable, chunk: RawTable, part: Part) -> None:
    """Refuse files of one source that differ in columns or types: a missing file column is no missing value."""
    if part.format == "jsonl":
        return
    one, two = set(first.columns) | set(first.left_out), set(chunk.columns) | set(chunk.left_out)
    if one != two:
        where = f"{part.name} lacks {listed(sorted(one - two))}" if one - two else f"{part.name} has {listed(sorted(two - one))}"
        raise DataError(f"{where}, unlike {first.name}: the files of one table need the same columns")
    for column, raw in chunk.columns.items():
        other = first.columns.get(column)
        if other is not None and not raw.empty and not other.empty and raw.family != other.family:
            raise DataError(
                f"column {column!r} is {other.family} in {first.name} and {raw.family} in {part.name}: give it one type"
            )


def read_table(source: Any, columns: Sequence[str] | None = None, *, name: str | None = None) -> RawTable:
    """A source whole: path, glob, folder, "-", any data frame, arrays by column, a matrix, a list of mappings.

    Raises DataError, in one sentence with file, place and remedy, for everything that cannot be read as a table.
    """
    shown = name or source_name(source, "standard input" if is_path(source) else "the table")
    return concatenate(list(iterate(source, columns, name=shown)), shown, consume=is_path(source))


def estimate_bytes(source: Any, columns: int | None = None) -> int:
    """About how many bytes `read_table` and the comparison's columns would hold; reads headers and a first megabyte only.

    Text: measured on the first megabyte, scaled by size. A compressed file is scaled by the ratio seen there. `columns`:
    how many columns are wanted; all where not given. 0 for an object in memory, which the caller holds already.
    """
    if not is_path(source):
        return 0
    return sum(_part_bytes(part, columns) for part in _located(source).parts)


def _part_bytes(part: Part, wanted: int | None) -> int:
    if part.format == "parquet":
        rows, columns, size = parquet_facts(part)
        return int(_share(wanted, columns) * (2 * size + 17 * rows * columns))
    if part.format in ("npy", "npz", "arrow"):
        return 3 * part.size
    with opened(part) as handle:
        head = handle.read(_HEAD)
    whole = part.size
    if part.compression is not None:
        if len(head) < _HEAD:
            whole = len(head)
        else:
            # The packed size of the head, by packing it again: a file object does not say how much it took in.
            import zlib

            whole = int(part.size * len(head) / max(1, len(zlib.compress(head, 6))))
    lines = max(1, head.count(b"\n"))
    first = head.partition(b"\n")[0]
    columns = 1 + max(first.count(d) for d in (b",", b";", b"\t", b"|"))
    # A cell as fixed-width text takes about one and a half times its length, then 8 bytes as a number, one as a mask,
    # and 8 for the work on it.
    return int(_share(wanted, columns) * whole * (1.5 + 17 * columns * lines / max(1, len(head))))


def _share(wanted: int | None, columns: int) -> float:
    return 1.0 if wanted is None or not columns else min(1.0, wanted / columns)
