"""The csv export: one line a column, inert in a spreadsheet."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from discrepancy.comparison.model import ColumnResult
from discrepancy.comparison.render.numbers import printable
from discrepancy.comparison.wording import WORDS, tone, what_changed

if TYPE_CHECKING:
    from discrepancy.comparison.report import ComparisonReport

HEADER = (
    *("group", "column", "kind", "verdict", "drift", "what_changed", "distance", "low", "high", "unit"),
    *("size", "size_low", "size_high", "p_value", "p_adjusted", "delta", "margin", "equivalent", "driver"),
    *("missing_reference", "missing_current", "rows_reference", "rows_current", "note"),
)

# What makes a spreadsheet read a cell as a formula, in ASCII and in full width.
_FORMULA = tuple("=+-@＝＋－＠|%\t\r\n")


def inert(text: str) -> str:
    """A text cell that no spreadsheet runs: an apostrophe goes before what could start a formula."""
    cell = printable(text, 1000)
    return f"'{cell}" if cell.lstrip().startswith(_FORMULA) or text.startswith(_FORMULA) else cell


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(float(value))
    return str(value) if isinstance(value, int) else inert(str(value))


def _line(group: str | None, c: ColumnResult) -> list[str]:
    cells: list[object] = [group, c.name, c.kind.value, WORDS[tone(c)], bool(c.drift), what_changed(c)]
    cells += [c.distance, c.low, c.high, c.unit, c.size, c.size_low, c.size_high]
    cells += [c.p_value, c.p_adjusted, c.delta, c.margin, c.equivalent, c.driver]
    cells += [c.missing.get("reference"), c.missing.get("current"), c.rows[0], c.rows[1], c.note]
    return [_cell(cell) for cell in cells]


def table_csv(report: ComparisonReport) -> str:
    """The table of all columns as csv (RFC 4180 quoting, line feeds), in the order of the data."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(_line(group, result) for group, result in report.everything())
    return out.getvalue()
