"""What is settled before rows are counted: each column's kind and how its cells are read. And the reading itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from discrepancy.comparison.conversion import level_cells, ordered_column
from discrepancy.comparison.derived import text_statistics
from discrepancy.comparison.errors import DataError, OptionError, closest
from discrepancy.comparison.evidence import Evidence
from discrepancy.comparison.kinds import Decision, decide
from discrepancy.comparison.model import Column, Kind
from discrepancy.comparison.natures import KindConflict, natures
from discrepancy.comparison.profile.scan import Scan
from discrepancy.comparison.reading import RawColumn

_NOTHING = Evidence(0, 0)


@dataclass(frozen=True)
class Planned:
    """One raw column: how it is read, what it could be (for a word on a clash of kinds), and a note for the report.

    `side`: which of the decision's two ways of reading is this table's.
    """

    name: str
    decision: Decision
    natures: tuple[str, ...]
    note: str | None = None
    side: int = 0


class Read(NamedTuple):
    """One column to count, of some rows: numbers, or levels as text with "" where missing."""

    name: str
    kind: Kind
    unit: str
    source: str | None
    values: np.ndarray | Sequence[str]
    missing: np.ndarray


def sentence(notes: Sequence[str]) -> str | None:
    """Notes on a column as one sentence."""
    text = "; ".join(notes)
    return text[0].upper() + text[1:] + "." if text else None


def plan(scan: Scan, kinds: dict[str, Kind]) -> tuple[list[Planned], dict[str, str]]:
    """The columns of a table of its own, and what is left out: identifiers, by the same rules as in a comparison.

    A kind is decided on all cells of the table, or given in `kinds`. Raises OptionError for a column that does not exist,
    DataError where cells do not fit the kind that was asked for.
    """
    for name in kinds:
        if name not in scan.evidence and name not in scan.left_out:
            raise OptionError(
                f"kinds names the column {name!r}, which {scan.sample.name} does not have{closest(name, scan.evidence)}"
            )
    planned, left_out = [], dict(scan.left_out)
    for name, evidence in scan.evidence.items():
        try:
            decision = decide(name, evidence, _NOTHING, kinds.get(name), (scan.comma, scan.comma))
        except KindConflict as conflict:
            raise DataError(f"{scan.sample.name}: {conflict}: clean it, or name another kind") from None
        if decision.kind is Kind.IDENTIFIER:
            left_out[name] = "identifier" + ("" if name in kinds else ": (nearly) every row has a value of its own")
            continue
        planned.append(Planned(name, decision, tuple(sorted(natures(evidence))), sentence(decision.notes)))
    return planned, left_out


def plan_like(
    scan: Scan, columns: dict[str, tuple[Kind, tuple[str, ...], tuple[str, str] | None, bool]], origin: str
) -> tuple[list[Planned], dict[str, str]]:
    """The columns of a table that is to be compared with a profile: the profile's kinds, each as this table writes it.

    columns: raw column -> (kind, natures, names of the truth values, whether levels are whole numbers). Columns that the
    profile does not know are left out. Raises DataError where a column's cells do not fit the profile's kind.
    """
    planned, left_out = [], dict(scan.left_out)
    for name, evidence in scan.evidence.items():
        if name not in columns:
            left_out[name] = f"not in {origin}"
            continue
        kind, could_be, truths, codes = columns[name]
        can = natures(evidence)
        remedy = f"make a new profile, or give its kind to both with --kind {name}=categorical"
        if could_be and can and not can & set(could_be):
            raise DataError(
                f"column {name!r} holds {_words(could_be)} in {origin} and {_words(can)} in {scan.sample.name}: {remedy}"
            )
        override = kind if could_be else None  # a column without a value in the profile has no kind yet
        try:
            decision = decide(name, evidence, _NOTHING, override, (scan.comma, scan.comma))
        except KindConflict:
            raise DataError(
                f"column {name!r} is {kind.value} in {origin}, which not all of its cells in {scan.sample.name} are: {remedy}"
            ) from None
        if decision.kind is Kind.IDENTIFIER:
            left_out[name] = "identifier: (nearly) every row has a value of its own"
            continue
        if truths is not None:
            decision = replace(decision, truths=truths)
        elif not kind.ordered and override is not None:
            decision = replace(decision, codes=codes and evidence.numbers is not None)
        planned.append(Planned(name, decision, tuple(sorted(can)), sentence(decision.notes)))
    return planned, left_out


def _words(can: Sequence[str] | set[str]) -> str:
    said = {"number": "numbers", "instant": "dates or times", "boolean": "truth values", "text": "text"}
    return said[next(n for n in ("text", "instant", "number", "boolean") if n in can)]


def read(planned: Planned, raw: RawColumn | None, rows: int, taken: set[str]) -> list[Read]:
    """A run of rows of one column as what is counted: numbers, levels, or for text the columns derived from it. Linear.

    `taken`: names of all raw columns, which a derived column must not use.
    """
    decision, name = planned.decision, planned.name
    if raw is None:
        raw = RawColumn(np.zeros(rows, dtype="S1"), np.ones(rows, dtype=bool))
    side = decision.sides[planned.side]
    if decision.kind.ordered:
        column: Column = ordered_column(raw, side, decision.kind)
        return [Read(name, decision.kind, decision.unit, None, column.values, column.missing)]
    cells = level_cells(raw, side, decision)
    if decision.kind is not Kind.TEXT:
        return [Read(name, decision.kind, "share of rows", None, cells, raw.missing)]
    found = []
    for statistic, column in text_statistics(cells, raw.missing).items():
        length = statistic == "length"
        kind, unit = (Kind.INTEGER, "characters") if length else (Kind.NUMERIC, "share of characters")
        label = f"{name}: {statistic}"
        while label in taken:
            label += "'"
        found.append(Read(label, kind, unit, name, column.values, column.missing))
    return found
