"""One column of both tables, from raw cells to a `ColumnPair` (several for text, none for an identifier)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from discrepancy.comparison.cells.instants import INSTANT_FORMATS
from discrepancy.comparison.cells.numbers import NUMBER_FORMATS
from discrepancy.comparison.cells.truths import truth
from discrepancy.comparison.conversion import level_cells, ordered_column, pooled_levels
from discrepancy.comparison.derived import derived_pairs
from discrepancy.comparison.errors import DataError, OptionError
from discrepancy.comparison.evidence import Evidence
from discrepancy.comparison.kinds import Decision, decide
from discrepancy.comparison.model import Column, ColumnPair, Kind, Options
from discrepancy.comparison.natures import KindConflict
from discrepancy.comparison.reading.table import RawColumn

_FEWEST_IN_TIME = 5  # rows a table below which an order in time is chance


@dataclass
class Pairing:
    """What all columns of a pair of tables share while they are paired: options, names, how numbers are written."""

    options: Options
    names: tuple[str, str]
    comma: tuple[bool, bool]
    taken: set[str]
    _embed: list[Callable[[Sequence[str]], np.ndarray]] = field(default_factory=list)

    def pair(
        self, name: str, raws: tuple[RawColumn, RawColumn], evidence: tuple[Evidence, Evidence]
    ) -> tuple[list[ColumnPair], str | None]:
        """The columns to compare, or the reason why this one is left out.

        Raises DataError where the tables' kinds differ or cells do not fit the kind asked for, with row and cell.
        """
        try:
            decision = decide(name, *evidence, self.options.kinds.get(name), self.comma)
        except KindConflict as conflict:
            raise self._located(name, raws, conflict) from None
        if name == self.options.by:
            decision = _grouping(name, decision)
        if decision.kind is Kind.IDENTIFIER:
            asked = name in self.options.kinds
            return [], "identifier" + ("" if asked else ": (nearly) every row has a value of its own")
        note = "; ".join(decision.notes) or None
        if note:
            note = note[0].upper() + note[1:] + "."
        if decision.all_missing:
            return [_nothing(name, decision.kind, raws)], None
        if decision.kind.ordered:
            sides = [ordered_column(raw, side, decision.kind) for raw, side in zip(raws, decision.sides)]
            made = ColumnPair(name, decision.kind, sides[0], sides[1], unit=decision.unit, note=note)
        else:
            cells = (level_cells(raws[0], decision.sides[0], decision), level_cells(raws[1], decision.sides[1], decision))
            missing = (raws[0].missing, raws[1].missing)
            if decision.kind is Kind.TEXT:
                return [_examined(p) for p in derived_pairs(name, cells, missing, self.taken, note, self._embedding())], None
            levels, columns = pooled_levels(cells, missing, decision, (raws[0].levels, raws[1].levels))
            made = ColumnPair(name, decision.kind, *columns, levels=levels, unit="share of rows", note=note)
        return [_examined(made)], None

    def _embedding(self) -> Callable[[Sequence[str]], np.ndarray] | None:
        if self.options.embedding is None:
            return None
        if not self._embed:
            from discrepancy.comparison.embedding import load_embedding

            self._embed.append(load_embedding(self.options.embedding))
        return self._embed[0]

    def _located(self, name: str, raws: tuple[RawColumn, RawColumn], conflict: KindConflict) -> DataError:
        """The conflict with the first cell that does not fit, and the way out."""
        remedy = f"clean it, or say what the column is with --kind {name}=categorical"
        raw, where = raws[conflict.side], self.names[conflict.side]
        odd = _first_odd(raw, conflict.expected)
        if odd is None:
            return DataError(f"{conflict}: give it one type in both, or compare it as levels with --kind {name}=categorical")
        row, cell = odd
        shown = cell if len(cell) <= 40 else cell[:37] + "..."
        return DataError(f"{conflict}: {where} has {shown!r} in row {row}; {remedy}")


def _grouping(name: str, decision: Decision) -> Decision:
    """The column to compare inside of: levels, whatever its numbers might mean."""
    if decision.kind is Kind.INTEGER:
        return replace(decision, kind=Kind.CODE, unit="", codes=True)
    if decision.kind in (Kind.NUMERIC, Kind.DATETIME, Kind.TEXT, Kind.IDENTIFIER):
        raise OptionError(
            f"by names the column {name!r}, which is {decision.kind.value} and makes no groups: cut it into levels first"
        )
    return decision


def _cells(raw: RawColumn) -> Iterator[tuple[int, str]]:
    """Row (from 1) and text of the present cells, a few thousand at a time."""
    for start in range(0, raw.rows, 4096):
        piece = raw.take(np.arange(start, min(start + 4096, raw.rows)))
        for i, cell in enumerate(piece.texts()):
            if not piece.missing[i]:
                yield start + i + 1, cell


def _first_odd(raw: RawColumn, expected: str) -> tuple[int, str] | None:
    """The first cell that is not what was expected, with its row."""
    if expected == "number":
        fits = [f.pattern.fullmatch for f in NUMBER_FORMATS]
    elif expected == "instant":
        fits = [f.read for f in INSTANT_FORMATS]
    elif expected == "truth value":
        fits = [truth]
    else:
        return None
    return next(((row, cell) for row, cell in _cells(raw) if all(fit(cell) is None for fit in fits)), None)


def _nothing(name: str, kind: Kind, raws: tuple[RawColumn, RawColumn]) -> ColumnPair:
    """A column without a value in either table: shown, not tested."""
    ordered = kind.ordered
    sides = [
        Column(np.full(raw.rows, np.nan) if ordered else np.full(raw.rows, -1, dtype=np.int64), np.ones(raw.rows, dtype=bool))
        for raw in raws
    ]
    kind = Kind.CATEGORICAL if kind is Kind.TEXT else kind
    return ColumnPair(name, kind, *sides, levels=None if ordered else (), tested=False, note="No value in either table.")


def _examined(pair: ColumnPair) -> ColumnPair:
    """The pair with its place in the family: out if it is one constant in both tables, or a time that simply moved on."""
    one, two = pair.reference.values[~pair.reference.missing], pair.current.values[~pair.current.missing]
    whole = len(one) == pair.reference.rows and len(two) == pair.current.rows
    if whole and len(one) and len(two) and (one == one[0]).all() and (two == one[0]).all():
        return _untested(pair, "The same constant in both tables.")
    if pair.kind is Kind.DATETIME and min(len(one), len(two)) >= _FEWEST_IN_TIME:
        if one.max() < two.min() or two.max() < one.min():
            return _untested(pair, "Moves with time: the periods of the two tables do not overlap, so a difference says nothing.")
        if _monotone(one) and _monotone(two):
            return _untested(pair, "Moves with time: it runs in one direction through both tables, so a difference says nothing.")
    return pair


def _untested(pair: ColumnPair, why: str) -> ColumnPair:
    return replace(pair, tested=False, note=why if pair.note is None else f"{why} {pair.note}")


def _monotone(values: np.ndarray) -> bool:
    steps = np.diff(values)
    return bool(values[0] != values[-1] and ((steps >= 0).all() or (steps <= 0).all()))
