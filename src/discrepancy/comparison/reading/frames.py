"""Data frames of any library that narwhals knows (pandas, polars, pyarrow, ...) as raw tables; none of them is imported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from discrepancy.comparison.errors import DataError, closest, listed
from discrepancy.comparison.reading.arrays import array_column
from discrepancy.comparison.reading.objects import object_column
from discrepancy.comparison.reading.table import RawColumn, RawTable, text_column, unique_names


def is_frame(source: Any) -> bool:
    """Whether this looks like a frame or series, judged without importing any frame library."""
    module = type(source).__module__.partition(".")[0]
    if module in ("pandas", "polars", "pyarrow", "narwhals", "modin", "cudf", "dask", "duckdb", "ibis", "pyspark", "sqlframe"):
        return True
    return hasattr(source, "__arrow_c_stream__") or hasattr(source, "__dataframe__") or hasattr(source, "__narwhals_dataframe__")


def _column(series: Any, nw: Any, name: str, column: str) -> RawColumn | str:
    dtype = series.dtype
    missing = np.asarray(series.is_null().to_numpy(), dtype=bool)
    if isinstance(dtype, nw.Categorical | nw.Enum):
        return _categorical(series, nw, missing)
    if dtype == nw.String:
        made = text_column([cell if isinstance(cell, str) else "" for cell in series.to_list()])
        return RawColumn(made.values, made.missing | missing, padded=made.padded)
    if dtype == nw.Boolean:
        cells = zip(series.to_list(), missing.tolist())
        return RawColumn(np.fromiter((False if gone else bool(v) for v, gone in cells), dtype=bool, count=len(missing)), missing)
    if dtype.is_integer():
        wide = np.uint64 if dtype == nw.UInt64 else np.int64
        if not missing.any():
            return RawColumn(np.asarray(series.to_numpy()).astype(wide, copy=False), missing)
        return object_column([None if gone else v for v, gone in zip(series.to_list(), missing.tolist())])
    if dtype.is_float():
        # Filled by the list where nulls could come back as objects; NaN is missing beside null.
        kept = np.float32 if dtype == nw.Float32 else np.float64
        values = np.asarray(series.to_numpy())
        if values.dtype == object:
            values = np.array([np.nan if gone else v for v, gone in zip(series.to_list(), missing.tolist())], dtype=kept)
        values = np.array(values, dtype=kept)
        values[missing] = np.nan
        return array_column(values)
    if isinstance(dtype, nw.Datetime | nw.Date):
        zoned = isinstance(dtype, nw.Datetime) and dtype.time_zone is not None
        if isinstance(dtype, nw.Date):
            return object_column(series.to_list())
        if zoned:
            series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        values = np.asarray(series.to_numpy())
        if values.dtype.kind != "M":
            made = object_column(series.to_list())
            return RawColumn(made.values, made.missing, zone="utc" if zoned else "none") if isinstance(made, RawColumn) else made
        values = values.astype("datetime64[us]")
        missing = missing | np.isnat(values)
        return RawColumn(np.where(missing, np.datetime64(0, "us"), values), missing, zone="utc" if zoned else "none")
    if isinstance(dtype, nw.List | nw.Array | nw.Struct | nw.Binary):
        return f"holds {type(dtype).__name__.lower()} values: spread them over columns of plain values"
    return object_column(series.to_list())


def _categorical(series: Any, nw: Any, missing: np.ndarray) -> RawColumn:
    declared = [str(level) for level in series.cat.get_categories().to_list()]
    # A pandas categorical may have numbers as levels: what is displayed names them.
    cells = ["" if gone else str(v) for v, gone in zip(series.to_list(), missing.tolist())]
    made = text_column(cells)
    # A declared level is a level even if it reads "NA": only the source's own nulls are missing.
    values = made.values
    if (made.missing & ~missing).any():
        values = np.array(cells, dtype=object)
    return RawColumn(values, missing, levels=tuple(dict.fromkeys(level.strip() for level in declared)), padded=made.padded)


def frame_table(source: Any, name: str, columns: Sequence[str] | None = None) -> RawTable:
    """A raw table from a frame or series; a lazy one is collected (its wanted columns only).

    Column names become text. Raises DataError for duplicate names, no rows, no columns, `columns` that are not there.
    """
    import narwhals.stable.v2 as nw

    library = type(source).__module__.partition(".")[0]
    labels = getattr(source, "columns", None) if library == "pandas" else None
    if labels is not None:
        names, notes = unique_names([str(label) for label in labels], name)
        if names != list(labels):
            source = source.set_axis(names, axis=1)
    else:
        notes = []
        given = getattr(source, "column_names", None) if library == "pyarrow" else None
        if given is not None:  # a pyarrow table may hold one name twice, which narwhals reports late
            names, notes = unique_names([str(label) for label in given], name)
            if names != list(given):
                source = source.rename_columns(names)
    try:
        frame = nw.from_native(source, allow_series=True)
    except TypeError:
        raise DataError(
            f"{name} is of the type {type(source).__name__}: expected a path, a data frame, or arrays by column"
        ) from None
    except Exception as error:  # each library words its duplicates in a class of its own
        raise DataError(f"{name} cannot be read as a table: {str(error).splitlines()[0]}") from None
    if isinstance(frame, nw.Series):
        frame = (frame.alias(frame.name) if frame.name else frame.alias("x0")).to_frame()
    schema = frame.collect_schema()
    if columns is not None:
        absent = [c for c in columns if c not in schema]
        if absent:
            raise DataError(f"{name} has no column {listed(absent)}{closest(absent[0], schema)}")
        frame = frame.select(*columns)
    table = frame.collect() if isinstance(frame, nw.LazyFrame) else frame
    if not len(table.columns):
        raise DataError(f"{name} has no columns: nothing can be compared")
    if not len(table):
        raise DataError(f"{name} has no rows: nothing can be compared")
    made: dict[str, RawColumn] = {}
    left_out: dict[str, str] = {}
    for column in table.columns:
        try:
            raw = _column(table[column], nw, name, column)
        except (TypeError, ValueError, OverflowError, NotImplementedError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(f"{name}: column {column!r} of the type {table[column].dtype} cannot be read ({reason})") from None
        if isinstance(raw, str):
            left_out[column] = raw
        else:
            made[column] = raw
    return RawTable(name, made, len(table), tuple(notes), left_out)
