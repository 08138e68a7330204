"""The report on a terminal: the verdict first, then a table; plain aligned text when it goes to a file or a pipe."""

from __future__ import annotations

import sys
from typing import IO, TYPE_CHECKING

from discrepancy.comparison import wording
from discrepancy.comparison.render.numbers import count, figures, interval, printable, share

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from discrepancy.comparison.report import ComparisonReport

_STYLES: dict[wording.Tone, str] = {
    "drift": "bold red",
    "small": "yellow",
    "equivalent": "green",
    "undecided": "default",
    "out": "dim",
}
_MARKS: dict[wording.Tone, str] = {"drift": "●", "small": "◐", "equivalent": "○", "undecided": "?", "out": "·"}
_MOST = 60  # rows that a person would read on a terminal
_PLAIN_WIDTH = 200


def console(file: IO[str] | None = None, *, color: bool = True) -> Console:
    """A console that is plain and wide when its output is not a terminal."""
    from rich.console import Console

    stream = sys.stdout if file is None else file
    terminal = bool(getattr(stream, "isatty", lambda: False)())
    return Console(
        file=stream,
        no_color=not color or None,
        width=None if terminal else _PLAIN_WIDTH,
        highlight=False,
        markup=False,
        emoji=False,
    )


def _table(report: ComparisonReport, plain: bool) -> tuple[Table, int]:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    if report.groups:
        table.add_column("group", overflow="fold", max_width=20)
    table.add_column("column", overflow="fold", max_width=32)
    table.add_column("verdict", overflow="fold")
    table.add_column("what changed", overflow="fold", ratio=None if plain else 2)
    table.add_column("how far (95 % interval)", overflow="fold")
    table.add_column("size", justify="right")
    table.add_column("95 %", justify="right", no_wrap=True)
    table.add_column("p, corrected", justify="right")
    rows = sorted(report.everything(), key=lambda pair: wording.rank(pair[1]))
    for group, c in rows[:_MOST]:
        shade = wording.tone(c)
        cells = [Text(printable(group, 40))] if report.groups else []
        table.add_row(
            *cells,
            Text(printable(c.name, 80), style=_STYLES[shade]),
            Text(f"{_MARKS[shade]} {wording.WORDS[shade]}", style=_STYLES[shade]),
            Text(wording.what_changed(c)),
            Text(wording.how_far(c)),
            Text(figures(c.size)),
            Text(interval(c.size_low, c.size_high) if c.size_high is not None else ""),
            Text(wording.how_sure(c)),
        )
    return table, max(0, len(rows) - _MOST)


def show(report: ComparisonReport, file: IO[str] | None = None, *, color: bool = True) -> None:
    """Print the report."""
    from rich.text import Text

    out = console(file, color=color)
    plain = not out.is_terminal
    head = wording.headline(report)
    sides = " → ".join(f"{printable(n, 120)} ({count(r)} rows)" for n, r in zip(report.names, report.rows, strict=True))
    out.print(Text(sides, style="dim"))
    out.print()
    out.print(Text(head.title, style=_STYLES[head.tone] if head.tone != "undecided" else "bold"))
    out.print(Text(head.detail))
    out.print()
    table, further = _table(report, plain)
    out.print(table)
    if further:
        out.print(Text(f"{further:,} further columns, none with a larger change: --html, --json or --csv has them all."))
    for group, result in report.joints():
        out.print()
        where = "" if group is None else f"In {printable(group, 60)}: "
        out.print(Text(where + wording.joint_sentence(result), style=_STYLES["drift" if result.drift else "undecided"]))
        for pair in result.pairs[:5]:
            a, b = (printable(n, 40) for n in pair["columns"])
            out.print(Text(f"  {a} × {b}: correlation {figures(pair['reference'])} → {figures(pair['current'])}"))
        if result.drift and result.shares:
            carried = ", ".join(f"{printable(s['column'], 30)} {share(s['share'])}" for s in result.shares[:4])
            out.print(Text(f"  carried by {carried}"))
    out.print()
    out.print(Text(printable(report.error_rate, 600)))
    for note in report.notes:
        out.print(Text(f"Note: {printable(note, 600)}"))
    if report.left_out:
        names = list(report.left_out.items())
        listed = "; ".join(f"{printable(n, 40)}: {printable(why, 100)}" for n, why in names[:8])
        more = f"; and {len(names) - 8:,} more" if len(names) > 8 else ""
        out.print(Text(f"Left out. {listed}{more}."))
