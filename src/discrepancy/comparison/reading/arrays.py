"""NumPy arrays as tables: npy and npz files (never unpickled), arrays and mappings of arrays in memory."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO

import numpy as np

from discrepancy.comparison.errors import DataError, closest, listed
from discrepancy.comparison.reading.objects import object_column
from discrepancy.comparison.reading.sources import Part, opened
from discrepancy.comparison.reading.table import RawColumn, RawTable, text_column, unique_names


def array_column(values: np.ndarray) -> RawColumn | str:
    """A raw column from a one-dimensional array, or the reason why it cannot be compared."""
    kind = values.dtype.kind
    if kind == "O":
        return object_column(values.tolist())
    if kind == "U" or kind == "T":
        return text_column(values.tolist())
    if kind == "S":
        return text_column([cell.decode("utf-8", errors="replace") for cell in values.tolist()])
    if kind == "M":
        missing = np.isnat(values)
        return RawColumn(values.astype("datetime64[us]"), missing)
    if kind == "m":
        missing = np.isnat(values)
        seconds = values.astype("timedelta64[us]").astype(np.float64) / 1e6
        return RawColumn(np.where(missing, 0.0, seconds), missing, unit="seconds")
    if kind == "f":
        if values.dtype.itemsize not in (4, 8):
            values = values.astype(np.float32 if values.dtype.itemsize < 4 else np.float64)
        missing = np.isnan(values)
        return RawColumn(values.astype(values.dtype.newbyteorder("="), copy=False), missing)
    none = np.zeros(len(values), dtype=bool)
    if kind == "b":
        return RawColumn(values, none)
    if kind in "iu":
        return RawColumn(values.astype(np.uint64 if kind == "u" and values.dtype.itemsize == 8 else np.int64), none)
    return f"holds values of the type {values.dtype}, which have no order and no levels"


def _columns_of(values: np.ndarray, stem: str, where: str, *, alone: bool) -> dict[str, np.ndarray]:
    """An array's columns by name: fields of a structured one, x0, x1, ... of a matrix, itself if one-dimensional."""
    if isinstance(values, np.ma.MaskedArray):
        cells = np.asarray(values.data).astype(object)
        cells[np.ma.getmaskarray(values)] = None
        values = cells
    if values.dtype.names:
        if values.ndim != 1:
            raise DataError(f"{where} is a structured array of shape {values.shape}: expected one record a row")
        return {field: values[field] for field in values.dtype.names}
    if values.ndim == 1:
        return {stem: values}
    if values.ndim == 2:
        prefix = "x" if alone else f"{stem}_"
        return {f"{prefix}{j}": values[:, j] for j in range(values.shape[1])}
    raise DataError(f"{where} has shape {values.shape}: expected rows by columns; reshape it to two dimensions")


def arrays_table(arrays: Mapping[str, np.ndarray], name: str, columns: Sequence[str] | None = None) -> RawTable:
    """A raw table from arrays by name: one-dimensional ones are columns, matrices become name_0, name_1, ...

    An array alone names its columns x0, x1, .... Raises DataError for other shapes, different lengths, no rows.
    """
    alone = len(arrays) == 1 and next(iter(arrays)) == ""
    flat: dict[str, np.ndarray] = {}
    for stem, values in arrays.items():
        for key, column in _columns_of(values, stem or "x0", f"{name}, array {stem!r}" if stem else name, alone=alone).items():
            if key in flat:
                raise DataError(f"{name}: two arrays give a column named {key!r}: rename one of them")
            flat[key] = column
    lengths = {len(values): key for key, values in flat.items()}
    if len(lengths) > 1:
        (n, a), (m, b) = list(lengths.items())[:2]
        raise DataError(f"{name}: {a!r} has {n} rows and {b!r} has {m}: all columns need one length")
    if not flat or not next(iter(lengths)):
        raise DataError(f"{name} has no {'rows' if flat else 'columns'}: nothing can be compared")
    names, notes = unique_names(list(flat), name)
    if columns is not None:
        absent = [c for c in columns if c not in names]
        if absent:
            raise DataError(f"{name} has no column {listed(absent)}{closest(absent[0], names)}")
    table: dict[str, RawColumn] = {}
    left_out: dict[str, str] = {}
    for key, values in zip(names, flat.values()):
        if columns is None or key in columns:
            made = array_column(np.asarray(values))
            if isinstance(made, str):
                left_out[key] = made
            else:
                table[key] = made
    return RawTable(name, table, next(iter(lengths)), tuple(notes), left_out)


def _loaded(handle: BinaryIO, name: str) -> dict[str, np.ndarray]:
    try:
        # An object array is a pickle, and opening one can run code: it is refused whoever made it.
        content = np.load(handle, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return {"": content}
        return {key: content[key] for key in content.files}
    except ValueError as error:
        if "pickle" in str(error).lower():
            raise DataError(
                f"{name} holds objects, which are pickled and never opened because that can run code: save numbers or text"
            ) from None
        raise DataError(f"{name} is truncated or damaged ({str(error).splitlines()[0].lower()}): write it again") from None
    except (zipfile.BadZipFile, EOFError, KeyError, SyntaxError, OverflowError) as error:
        raise DataError(f"{name} is truncated or damaged ({type(error).__name__}): write it again") from None


def iterate_arrays(part: Part, columns: Sequence[str] | None = None, rows: int = 200_000) -> Iterator[RawTable]:
    """Chunks of at most `rows` rows of an npy or npz file; a large plain npy file is mapped, not loaded.

    Raises DataError for object arrays, damaged files, other than one or two dimensions, and columns of different length.
    """
    name = part.name
    if part.format == "npy" and part.path is not None and part.compression is None:
        try:
            arrays: dict[str, np.ndarray] = {"": np.load(part.path, mmap_mode="r", allow_pickle=False)}
        except (ValueError, OSError, EOFError):
            with opened(part) as handle:  # what cannot be mapped: an empty array, or an error to be worded
                arrays = _loaded(handle, name)
    else:
        with opened(part) as handle:
            arrays = _loaded(handle, name)
    total = max((len(a) for a in arrays.values() if a.ndim), default=0)
    scalars = [key for key, a in arrays.items() if not a.ndim]
    if scalars:
        raise DataError(f"{name}: {listed(scalars) if scalars[0] else 'the array'} is a single number: expected rows by columns")
    if total <= rows:
        yield arrays_table(arrays, name, columns)
        return
    if len({len(a) for a in arrays.values()}) > 1:
        yield arrays_table(arrays, name, columns)  # words the error
    for start in range(0, total, rows):
        yield arrays_table({key: np.array(a[start : start + rows]) for key, a in arrays.items()}, name, columns)
