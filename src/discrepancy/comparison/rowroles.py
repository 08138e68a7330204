"""Columns with a role: row weights and clusters, checked and taken out of the comparison."""

from __future__ import annotations

import numpy as np

from discrepancy.comparison.conversion import ordered_column
from discrepancy.comparison.errors import DataError, OptionError, closest
from discrepancy.comparison.evidence import gather
from discrepancy.comparison.kinds import decide
from discrepancy.comparison.model import Kind
from discrepancy.comparison.natures import KindConflict
from discrepancy.comparison.reading.table import RawTable


def row_weights(
    tables: list[RawTable], name: str, names: tuple[str, str], *, counts: bool
) -> tuple[tuple[np.ndarray | None, np.ndarray | None], list[str]]:
    """The row weights of both tables as float64, None where a table has no such column, which is noted.

    Raises DataError, with the first row, for weights that are missing, negative, infinite, not numbers or all zero, and
    for `counts` that are not whole numbers; OptionError if neither table has the column.
    """
    if not any(name in t.columns for t in tables):
        every = {c for t in tables for c in t.columns}
        raise OptionError(f"the weights column {name!r} is in neither table{closest(name, every)}")
    found: list[np.ndarray | None] = []
    notes = []
    for table, shown in zip(tables, names):
        if name not in table.columns:
            found.append(None)
            notes.append(f"{shown} has no column {name!r}: its rows weigh the same.")
            continue
        raw = table.columns[name]
        evidence = gather(raw, name)
        try:
            decision = decide(name, evidence, evidence, Kind.NUMERIC)
        except KindConflict:
            raise DataError(
                f"{shown}: the weights column {name!r} holds cells that are not numbers: weights must be numbers"
            ) from None
        values = ordered_column(raw, decision.sides[0], Kind.NUMERIC).values
        for bad, what, rule in (
            (np.isnan(values), "missing", "every row needs a weight"),
            (np.isinf(values), "infinite", "weights must be finite"),
            (values < 0, "negative", "weights must not be below zero"),
            (values != np.round(values) if counts else np.zeros(len(values), bool), "not whole", "frequency weights count rows"),
        ):
            if bad.any():
                row = int(np.argmax(bad))
                value = "" if what == "missing" else f" ({values[row]:g})"
                raise DataError(
                    f"{shown}: {int(bad.sum())} weight(s) in column {name!r} are {what}, first in row {row + 1}{value}: {rule}"
                )
        if not values.sum() > 0:
            raise DataError(f"{shown}: all weights in column {name!r} are zero: some row must count")
        found.append(values)
    return (found[0], found[1]), notes


def clusters(tables: list[RawTable], name: str, names: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """The cluster of every row as int64, the same id for the same key in both tables.

    Raises DataError where a table has no such column or a row no key.
    """
    keys: dict[str, int] = {}
    found = []
    for table, shown in zip(tables, names):
        if name not in table.columns:
            raise DataError(f"{shown} has no column {name!r}, which --cluster names{closest(name, table.columns)}")
        raw = table.columns[name]
        if raw.missing.any():
            row = int(np.argmax(raw.missing)) + 1
            raise DataError(f"{shown}: row {row} has no value in the cluster column {name!r}: every row needs its cluster")
        found.append(np.fromiter((keys.setdefault(cell, len(keys)) for cell in raw.texts()), dtype=np.int64, count=raw.rows))
    return found[0], found[1]
