"""Parquet and Arrow files in chunks, by pyarrow (the `io` extra), which is imported here and only when such a file came."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from discrepancy.comparison.errors import DataError, closest, listed
from discrepancy.comparison.reading.frames import frame_table
from discrepancy.comparison.reading.sources import Part, opened
from discrepancy.comparison.reading.table import RawTable


def _pyarrow(name: str) -> Any:
    try:
        import pyarrow
    except ModuleNotFoundError:
        raise DataError(f'{name} needs pyarrow to be read: pip install "discrepancy[io]"') from None
    return pyarrow


def parquet_facts(part: Part) -> tuple[int, int, int]:
    """Rows, columns and uncompressed bytes of a Parquet file, from its footer alone."""
    _pyarrow(part.name)
    import pyarrow.parquet as pq

    with opened(part) as handle:
        try:
            facts = pq.ParquetFile(handle).metadata
        except Exception as error:
            raise _damaged(part.name, error) from None
        size = sum(facts.row_group(i).total_byte_size for i in range(facts.num_row_groups))
        return facts.num_rows, facts.num_columns, size


def _damaged(name: str, error: Exception) -> DataError:
    reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    return DataError(f"{name} is truncated or damaged ({reason[:120]}): write it again")


def iterate_arrow(part: Part, columns: Sequence[str] | None = None, rows: int = 200_000) -> Iterator[RawTable]:
    """Chunks of at most `rows` rows of a Parquet, Arrow IPC (file or stream) or Feather file; memory of one chunk.

    Raises DataError where pyarrow is missing (with the install line), where the file is damaged, has no rows, or lacks
    one of `columns`.
    """
    pa = _pyarrow(part.name)
    name = part.name
    with opened(part) as handle:
        try:
            schema, batches = _parquet(handle, columns, rows) if part.format == "parquet" else _ipc(handle, pa)
        except Exception as error:
            raise _damaged(name, error) from None
        wanted = list(columns) if columns is not None else list(schema.names)
        absent = [c for c in wanted if c not in schema.names]
        if absent:
            raise DataError(f"{name} has no column {listed(absent)}{closest(absent[0], schema.names)}")
        seen = 0
        while True:
            try:
                batch = next(batches, None)
            except Exception as error:
                raise _damaged(name, error) from None
            if batch is None:
                break
            for start in range(0, batch.num_rows, rows):
                piece = pa.Table.from_batches([batch.slice(start, rows)])
                seen += piece.num_rows
                yield frame_table(piece, name, wanted)
    if not len(schema.names):
        raise DataError(f"{name} has no columns: nothing can be compared")
    if not seen:
        raise DataError(f"{name} has no rows: nothing can be compared")


def _parquet(handle: Any, columns: Sequence[str] | None, rows: int) -> tuple[Any, Iterator[Any]]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(handle)
    schema = file.schema_arrow
    known = None if columns is None else [c for c in columns if c in schema.names]
    return schema, file.iter_batches(batch_size=rows, columns=known)


def _ipc(handle: Any, pa: Any) -> tuple[Any, Iterator[Any]]:
    import pyarrow.ipc as ipc

    try:
        file = ipc.open_file(handle)
    except pa.ArrowInvalid:
        handle.seek(0)
        stream = ipc.open_stream(handle)
        return stream.schema, iter(stream)
    return file.schema, (file.get_batch(i) for i in range(file.num_record_batches))
