"""The report in GitHub's Markdown, for a pull request or a ticket."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from discrepancy.comparison import wording
from discrepancy.comparison.model import ColumnResult, JointResult
from discrepancy.comparison.render.numbers import figures, interval, p_value, printable, row_count, share

if TYPE_CHECKING:
    from discrepancy.comparison.report import ComparisonReport

_SPECIAL = re.compile(r"([\\`*_\[\]#!|~$@]|^[-+=])")
_MOST = 200  # rows of a Markdown table that a person would scroll through
_MARKS = {"drift": "🔴", "small": "🟠", "equivalent": "🟢", "undecided": "⚪", "out": "·"}


def escape(text: object, limit: int = 120) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, no table break, no mention."""
    plain = printable(text, limit).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", plain)


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [_row(head), _row(["---"] * len(head)), *map(_row, rows)]


def _column(group: str | None, c: ColumnResult, grouped: bool) -> list[str]:
    shade = wording.tone(c)
    cells = [escape(group)] if grouped else []
    size = figures(c.size) + (f" ({interval(c.size_low, c.size_high)})" if c.size_high is not None else "")
    return [
        *cells,
        escape(c.name),
        f"{_MARKS[shade]} {wording.WORDS[shade]}",
        escape(wording.what_changed(c), 200),
        escape(wording.how_far(c)),
        size,
        wording.how_sure(c),
    ]


def _joint(result: JointResult) -> list[str]:
    lines = [escape(wording.joint_sentence(result), 500), ""]
    if result.pairs:
        rows = [
            [
                " × ".join(escape(n) for n in p["columns"]),
                figures(p["reference"]),
                figures(p["current"]),
                p_value(p.get("p_value")),
            ]
            for p in result.pairs[:20]
        ]
        lines += ["Pairs whose dependence changed:", "", *_table(["pair", "correlation before", "after", "p"], rows), ""]
    if result.shares:
        rows = [[escape(s["column"]), share(s["share"])] for s in result.shares[:10]]
        lines += ["What carries the joint difference:", "", *_table(["column", "share"], rows), ""]
    return lines


def markdown(report: ComparisonReport) -> str:
    """The report as Markdown text."""
    head = wording.headline(report)
    names = [escape(n, 300) for n in report.names]
    lines = [
        f"## {escape(head.title, 400)}",
        "",
        f"{escape(head.detail, 400)} {escape(report.error_rate, 500)}",
        "",
        f"Reference: {names[0]} ({row_count(report.rows[0])}). Current: {names[1]} ({row_count(report.rows[1])}).",
        "",
    ]
    rows = sorted(report.everything(), key=lambda pair: wording.rank(pair[1]))
    grouped = bool(report.groups)
    titles = ["column", "verdict", "what changed", "how far (95 % interval)", "size (95 %)", "p, corrected"]
    lines += _table((["group"] if grouped else []) + titles, [_column(g, c, grouped) for g, c in rows[:_MOST]])
    if len(rows) > _MOST:
        lines += ["", f"{len(rows) - _MOST:,} further columns, none with a larger change, are in the JSON and csv exports."]
    for group, result in report.joints():
        lines += ["", "### Jointly" if group is None else f"### Jointly, in {escape(group)}", "", *_joint(result)]
    notes = [*report.notes, *(f"{c.name}: {c.note}" for _, c in report.everything()[:_MOST] if c.note)]
    if notes:
        lines += ["", "### Notes", "", *(f"- {escape(note, 400)}" for note in notes)]
    if report.left_out:
        left = list(report.left_out.items())
        lines += ["", "### Left out", "", *(f"- {escape(name)}: {escape(why, 300)}" for name, why in left[:_MOST])]
        if len(left) > _MOST:
            lines.append(f"- and {len(left) - _MOST:,} more")
    o = report.options
    lines += ["", f"discrepancy {report.version}, level {figures(o.level)}, correction {o.correction}, seed {o.seed}."]
    return "\n".join(lines) + "\n"
