"""The first pass over a source: what its cells are, from all of them, and a uniform sample of its rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from discrepancy.comparison.errors import DataError
from discrepancy.comparison.evidence import Evidence, gather_table
from discrepancy.comparison.evidence import merge as pooled
from discrepancy.comparison.reading import RawColumn, RawTable, iterate
from discrepancy.comparison.sampling import reservoir

_MOST_ROWS = 200_000  # rows of a chunk
_CELL = 120  # bytes that a text cell takes while a chunk is read
_CHUNK_SHARE = 0.12  # of the memory budget for a chunk
_SAMPLE_SHARE = 0.08  # for the sample
_SAMPLED = 50  # bytes of a cell in the sample
_HEAD = 1_000
_NUMBER = "\0row"  # no reader makes such a name


@dataclass(frozen=True)
class Source:
    """Something that can be read in chunks as often as is wanted: a path, located files, a frame, arrays, a raw table.

    `columns`: those wanted, or None for all. `memory`: GiB that its user may hold; a chunk takes some 12 % of it.
    """

    value: Any
    name: str
    columns: tuple[str, ...] | None = None
    memory: float = 1.0

    def chunks(self) -> Iterator[RawTable]:
        """The rows in order, a chunk at a time. Raises DataError as the readers do."""
        if isinstance(self.value, RawTable):
            yield self.value
            return
        head = next(iter(iterate(self.value, self.columns, _HEAD, name=self.name)), None)
        if head is None:
            return
        yield from iterate(self.value, self.columns, self._rows(len(head.columns), _CELL, _CHUNK_SHARE), name=self.name)

    def sample_rows(self, columns: int) -> int:
        """How many rows a sample may have."""
        return min(100_000, self._rows(columns, _SAMPLED, _SAMPLE_SHARE))

    def _rows(self, columns: int, cell: int, share: float) -> int:
        room = int(share * self.memory * 2**30) // (cell * max(columns, 1))
        return min(_MOST_ROWS, max(_HEAD, room))


@dataclass(frozen=True)
class Scan:
    """What the first pass saw: `rows`, the `evidence` for each column's kind from every cell, and a uniform `sample` of rows.

    `comma`: whether numbers are written with a decimal comma. `picked`: the row numbers of the sample, from 0.
    """

    rows: int
    evidence: dict[str, Evidence]
    sample: RawTable
    left_out: dict[str, str]
    notes: tuple[str, ...]
    comma: bool
    picked: np.ndarray


def scan(source: Source, seed: int, label: str) -> Scan:
    """Read a source once. `label` names the stream of random numbers of the sample.

    Linear in cells; memory of a chunk and the sample. Raises DataError where the source cannot be read or has no column.
    """
    from discrepancy.comparison.pairing import writes_comma

    evidence: dict[str, Evidence] = {}
    left_out: dict[str, str] = {}
    notes: dict[str, None] = {}
    seen = 0

    def watched(chunks: Iterator[RawTable]) -> Iterator[RawTable]:
        nonlocal seen
        for chunk in chunks:
            facts = gather_table(chunk)
            for name in dict.fromkeys([*evidence, *facts]):
                # Lines of JSON need not have the same keys: what is absent is missing.
                old = evidence.get(name, Evidence(0, seen))
                evidence[name] = pooled(old, facts.get(name, Evidence(0, chunk.rows)))
            number = RawColumn(np.arange(seen, seen + chunk.rows), np.zeros(chunk.rows, dtype=bool))
            seen += chunk.rows
            left_out.update(chunk.left_out)
            notes.update(dict.fromkeys(chunk.notes))
            yield replace(chunk, columns={**chunk.columns, _NUMBER: number})

    chunks = watched(source.chunks())
    first = next(chunks, None)
    if first is None:
        raise DataError(f"{source.name} has no rows: nothing can be profiled")
    size = source.sample_rows(len(first.columns))
    sample, rows = reservoir(_again(first, chunks), size, seed, label)
    picked = sample.columns.pop(_NUMBER).values
    for name in left_out:
        evidence.pop(name, None)
    sample = replace(sample, name=source.name, columns={n: c for n, c in sample.columns.items() if n not in left_out})
    if not evidence:
        reasons = ", ".join(f"{name!r} {reason}" for name, reason in list(left_out.items())[:3]) or "it has none"
        raise DataError(f"{source.name} has no column that can be compared: {reasons}")
    return Scan(rows, evidence, sample, left_out, tuple(notes), writes_comma(sample, evidence), picked)


def _again(first: RawTable, rest: Iterator[RawTable]) -> Iterator[RawTable]:
    yield first
    yield from rest
