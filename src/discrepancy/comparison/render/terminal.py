"""The report on a terminal: the verdict first, then a table; plain aligned text when it goes to a file or a pipe."""

from __future__ import annotations

import sys
from typing import IO, TYPE_CHECKING, Any

from discrepancy.comparison import wording
from discrepancy.comparison.render.numbers import figures, interval, printable, row_count, share

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table
    from rich.text import Text

    from discrepancy.comparison.model import ColumnResult
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
_NARROW = 72  # characters below which a table breaks words; a list does not
_SENTENCE = 36  # characters of a line that suffice for a sentence


def console(file: IO[str] | None = None, *, color: bool = True) -> Console:
    """A console that is plain and wide when its output is not a terminal."""
    from rich.console import Console

    class Piped(Console):
        """As rich's, but a reader that closes the pipe early is told to the caller, who knows what it means."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    stream = sys.stdout if file is None else file
    terminal = bool(getattr(stream, "isatty", lambda: False)())
    return Piped(
        file=stream,
        no_color=not color or None,
        width=None if terminal else _PLAIN_WIDTH,
        highlight=False,
        markup=False,
        emoji=False,
    )


def _rows(report: ComparisonReport) -> tuple[list[tuple[str | None, ColumnResult]], int]:
    """What a person would read, the largest changes first, and how many more there are."""
    rows = sorted(report.everything(), key=lambda pair: wording.rank(pair[1]))
    return rows[:_MOST], max(0, len(rows) - _MOST)


def _verdict(result: ColumnResult) -> Text:
    from rich.text import Text

    shade = wording.tone(result)
    return Text(f"{_MARKS[shade]} {wording.WORDS[shade]}", style=_STYLES[shade])


def _size_interval(result: ColumnResult) -> str:
    return interval(result.size_low, result.size_high) if result.size_high is not None else ""


def _table(report: ComparisonReport, rows: list[tuple[str | None, ColumnResult]], *, plain: bool, whole: bool) -> Table:
    """The table; without the intervals unless it is `whole`."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    if report.groups:
        table.add_column("group", overflow="fold", max_width=20)
    table.add_column("column", overflow="fold", max_width=32 if whole else 20)
    table.add_column("verdict", overflow="fold", max_width=None if whole else 19)
    table.add_column("what changed", overflow="fold")
    if whole:
        table.add_column("how far (95 % interval)", overflow="fold")
    table.add_column("size", justify="right", no_wrap=True)
    if whole:
        table.add_column("95 %", justify="right", no_wrap=True)
    table.add_column("p, corrected", justify="right", no_wrap=True)
    for group, c in rows:
        table.add_row(
            *([Text(printable(group, 40))] if report.groups else []),
            Text(printable(c.name, 80), style=_STYLES[wording.tone(c)]),
            _verdict(c),
            Text(wording.what_changed(c)),
            *([Text(wording.how_far(c))] if whole else []),
            Text(figures(c.size)),
            *([Text(_size_interval(c))] if whole else []),
            Text(wording.how_sure(c)),
        )
    return table


def _list(rows: list[tuple[str | None, ColumnResult]]) -> Group:
    """The same for a narrow terminal: two or three lines a column."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    parts: list[Any] = []
    for group, c in rows:
        name = printable(c.name, 80) if group is None else f"{printable(group, 40)}: {printable(c.name, 80)}"
        parts.append(Text.assemble((name, _STYLES[wording.tone(c)]), "  ", _verdict(c)))
        parts.append(Padding(Text(wording.what_changed(c)), (0, 0, 0, 2)))
        if wording.tone(c) != "out":
            numbers = f"size {figures(c.size)} ({_size_interval(c)})" if c.size_high is not None else f"size {figures(c.size)}"
            parts.append(Padding(Text(f"{numbers}, corrected p {wording.how_sure(c)}"), (0, 0, 0, 2)))
    return Group(*parts)


def _columns(out: Console, report: ComparisonReport) -> tuple[Table | Group, int]:
    """All columns in as much detail as the width of the terminal holds, and how many more there are."""
    rows, further = _rows(report)
    if not out.is_terminal:
        return _table(report, rows, plain=True, whole=True), further
    if out.width < _NARROW:
        return _list(rows), further
    whole = _table(report, rows, plain=False, whole=True)
    # What changed may take a second line; numbers broken over lines cannot be read.
    longest = max((len(wording.what_changed(c)) for _, c in rows), default=0)
    natural = out.measure(whole, options=out.options.update(max_width=10_000)).maximum
    fits = natural - max(0, longest - _SENTENCE) <= out.width
    return whole if fits else _table(report, rows, plain=False, whole=False), further


def show(report: ComparisonReport, file: IO[str] | None = None, *, color: bool = True) -> None:
    """Print the report."""
    from rich.text import Text

    out = console(file, color=color)
    head = wording.headline(report)
    sides = " → ".join(f"{printable(n, 120)} ({row_count(r)})" for n, r in zip(report.names, report.rows, strict=True))
    out.print(Text(sides, style="dim"))
    out.print()
    out.print(Text(head.title, style=_STYLES[head.tone] if head.tone != "undecided" else "bold"))
    out.print(Text(head.detail))
    out.print()
    columns, further = _columns(out, report)
    out.print(columns)
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
