"""Comparing inside groups: one pair of tables for each value of a column."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from discrepancy.comparison.errors import OptionError
from discrepancy.comparison.model import Column, ColumnPair, TablePair

MISSING = "(missing)"


def by(table: TablePair, column: str) -> dict[str, TablePair]:
    """The part of both tables in each group of `column`, in the order of its levels; rows without a value are a group too.

    The column itself is left out of the parts, and what is one equal constant inside a group is not tested there. A group
    that only one table has cannot be compared: see `unmatched`. O(rows x columns) time and memory.
    Raises OptionError if there is no such column, it holds no levels, or no group is in both tables.
    """
    codes, names = _codes(table, column)
    parts = {}
    for code, name in enumerate(names):
        masks = (codes[0] == code, codes[1] == code)
        if not (masks[0].any() and masks[1].any()):
            continue
        parts[name] = _part(table, column, masks)
    if not parts:
        raise OptionError(f"by names {column!r}, and no value of it is in both {table.names[0]} and {table.names[1]}")
    return parts


def unmatched(table: TablePair, column: str) -> list[str]:
    """One sentence for the groups that only one table has, if there are any; they are not compared.

    Raises as `by`.
    """
    codes, names = _codes(table, column)
    notes = []
    for side, (here, other) in enumerate(((0, 1), (1, 0))):
        only = [name for code, name in enumerate(names) if (codes[here] == code).any() and not (codes[other] == code).any()]
        if only:
            shown = ", ".join(repr(n) for n in only[:10]) + (f" and {len(only) - 10:,} more" if len(only) > 10 else "")
            word = "vanished" if side == 0 else "new"
            notes.append(f"{word} groups of {column!r}, only in {table.names[here]} and so not compared: {shown}")
    return notes


def _codes(table: TablePair, column: str) -> tuple[tuple[np.ndarray, np.ndarray], list[str]]:
    """The group number of each row of both tables, and the names of the groups."""
    found = [pair for pair in table.columns if pair.name == column]
    if not found:
        known = ", ".join(pair.name for pair in table.columns[:20])
        raise OptionError(f"by names {column!r}, which is no common column; there are {known}")
    pair = found[0]
    if pair.levels is None or pair.kind.ordered:
        raise OptionError(f"by names {column!r}, which is {pair.kind.value} and makes no groups: cut it into levels first")
    names = [*pair.levels, MISSING]
    codes = tuple(
        np.where(side.missing, len(pair.levels), side.values).astype(np.int64) for side in (pair.reference, pair.current)
    )
    return (codes[0], codes[1]), names


def _part(table: TablePair, column: str, masks: tuple[np.ndarray, np.ndarray]) -> TablePair:
    def rows(array: np.ndarray | None, side: int) -> np.ndarray | None:
        return None if array is None else array[masks[side]]

    columns = []
    for pair in table.columns:
        if pair.name == column:
            continue
        sides = [
            Column(side.values[mask], side.missing[mask])
            for side, mask in zip((pair.reference, pair.current), masks, strict=True)
        ]
        cut = replace(pair, reference=sides[0], current=sides[1])
        if cut.tested and _one_constant(cut):
            cut = replace(cut, tested=False, note="one equal constant in both tables of this group")
        columns.append(cut)
    return replace(
        table,
        columns=columns,
        rows_reference=int(masks[0].sum()),
        rows_current=int(masks[1].sum()),
        weights_reference=rows(table.weights_reference, 0),
        weights_current=rows(table.weights_current, 1),
        cluster_reference=rows(table.cluster_reference, 0),
        cluster_current=rows(table.cluster_current, 1),
        notes=[],
    )


def _one_constant(pair: ColumnPair) -> bool:
    """Whether both tables hold one and the same value throughout, or none at all."""
    gone = np.r_[pair.reference.missing, pair.current.missing]
    if gone.all():
        return True
    if gone.any():
        return False
    values = (pair.reference.values, pair.current.values)
    return bool(np.all(values[0] == values[0][0]) and np.all(values[1] == values[0][0]))
