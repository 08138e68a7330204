"""A uniform sample of a table's rows in one pass over its chunks, so that a file of any size can be compared in little memory."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from discrepancy.comparison.errors import DataError
from discrepancy.comparison.reading.table import RawTable, concatenate
from discrepancy.comparison.streams import stream


def reservoir(chunks: Iterable[RawTable], size: int, seed: int, label: str) -> tuple[RawTable, int]:
    """A uniform sample of `size` rows without replacement, in their order, and how many rows there were.

    Every row draws one random 64-bit key; the rows of the `size` smallest keys are the sample, which is therefore the
    same however the rows are cut into chunks. `label` names the stream of random numbers. A smaller table comes whole.
    One pass; memory of the sample and one chunk. Raises DataError if there is no row.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    generator = stream(seed, "sample", label)
    kept: RawTable | None = None
    keys = np.empty(0, dtype=np.uint64)
    rows = 0
    for chunk in chunks:
        fresh = generator.integers(0, 2**64, size=chunk.rows, dtype=np.uint64)
        rows += chunk.rows
        if len(keys) == size:
            # Most rows of a late chunk lose at once: do not copy them first.
            index = np.flatnonzero(fresh < keys.max())
            chunk, fresh = chunk.take(index), fresh[index]
        if not chunk.rows and kept is not None:
            continue
        kept = chunk if kept is None else concatenate([kept, chunk])
        keys = np.concatenate([keys, fresh])
        if len(keys) > size:
            index = np.sort(np.argpartition(keys, size - 1)[:size])
            kept, keys = kept.take(index), keys[index]
    if kept is None:
        raise DataError("the table has no rows: nothing can be compared")
    return kept, rows
