"""The report as one page that needs no network: the template filled with escaped text and inline figures."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from discrepancy.comparison import facts, wording
from discrepancy.comparison.model import ColumnResult, JointResult, Kind
from discrepancy.comparison.render import svg
from discrepancy.comparison.render.methods import citations, methods
from discrepancy.comparison.render.numbers import (
    NONE,
    count,
    figures,
    interval,
    moment,
    p_value,
    printable,
    quantity,
    row_count,
    share,
)

if TYPE_CHECKING:
    import jinja2

    from discrepancy.comparison.report import ComparisonReport

MOST_FIGURES = 120  # columns with figures of their own; with more, the others are in the table only
MOST_ROWS = 10_000  # rows of the table


@cache
def _asset(name: str) -> str:
    return resources.files("discrepancy.comparison.render").joinpath("templates", name).read_text(encoding="utf-8")


@cache
def _template() -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_asset("report.html.j2"))


def _tight(text: str) -> str:
    """Text whose numbers keep their per cent sign and whose arrows do not begin a line."""
    return text.replace(" %", "\u00a0%").replace(" →", "\u00a0→")


def _sort_key(x: float | None) -> str:
    return "" if x is None else f"{x:.6g}"


def _row(number: int, group: str | None, c: ColumnResult, top: float, linked: bool) -> dict[str, Any]:
    shade = wording.tone(c)
    gone, come = c.missing.get("reference") or 0.0, c.missing.get("current") or 0.0
    return {
        "id": f"c{number}" if linked else None,
        "name": printable(c.name, 120),
        "group": None if group is None else printable(group, 60),
        "kind": c.kind.value,
        "source": None if c.source is None else printable(c.source, 60),
        "tone": shade,
        "word": wording.WORDS[shade],
        "rank": wording.rank(c)[0],
        "changed": _tight(wording.what_changed(c)),
        "far": quantity(c.distance, c.unit) if c.distance is not None else NONE,
        "range": interval(c.low, c.high, c.unit) if c.high is not None else "",
        "distance": _sort_key(c.distance),
        "size": _sort_key(c.size),
        "size_text": figures(c.size),
        "size_range": interval(c.size_low, c.size_high) if c.size_high is not None else "",
        "strip": svg.strip(c.size, c.size_low, c.size_high, c.margin, top),
        "p": _sort_key(c.p_adjusted),
        "p_text": wording.how_sure(c),
        "missing": "" if not gone and not come else share(come) if gone == come else f"{share(gone)} → {share(come)}",
        "missing_key": _sort_key(abs(come - gone)),
    }


def _moments(c: ColumnResult, seen: facts.OrderedFacts) -> list[tuple[str, str, str]]:
    clock = c.kind is Kind.DATETIME
    a, b = seen.moments

    def cell(x: float | None, span: bool = False) -> str:
        return (quantity(x, "s") if span else moment(x)) if clock else figures(x, 4)

    return [
        ("mean", cell(a.mean), cell(b.mean)),
        ("standard deviation", cell(a.sd, True), cell(b.sd, True)),
        ("smallest", cell(a.low), cell(b.low)),
        ("median", cell(seen.median(0)), cell(seen.median(1))),
        ("largest", cell(a.high), cell(b.high)),
        ("values", count(a.count), count(b.count)),
    ]


def _numbers(c: ColumnResult) -> list[tuple[str, str]]:
    """The figures of one column for its card, in the order of importance."""
    pairs = [
        ("distance", wording.how_far(c)),
        ("size", f"{figures(c.size)} ({interval(c.size_low, c.size_high)})" if c.size_high is not None else figures(c.size)),
        ("p, corrected", p_value(c.p_adjusted)),
        ("p", f"{p_value(c.p_value)} (any change at all: {p_value(c.p_any)})"),
        ("led by", wording.driver(c.driver)),
        ("noise alone would show", quantity(c.noise, c.unit)),
        ("minimum effect, margin", f"{figures(c.delta)}, {figures(c.margin)} in size units"),
    ]
    if c.missing.get("reference") or c.missing.get("current"):
        text = f"{share(c.missing.get('reference'))} → {share(c.missing.get('current'))}"
        low, high = c.missing.get("low"), c.missing.get("high")
        pairs.append(("missing", text + (f" (change {interval(low, high, 'share')})" if high is not None else "")))
    if c.js and c.js.get("value") is not None:
        pairs.append(("Jensen-Shannon", f"{figures(c.js['value'])} nats ({interval(c.js.get('low'), c.js.get('high'))})"))
    if tuple(round(n) for n in c.n_eff) != c.rows:
        pairs.append(("effective rows", " and ".join(count(n) for n in c.n_eff)))
    return [(name, text) for name, text in pairs if text]


def _card(number: int, group: str | None, c: ColumnResult) -> dict[str, Any]:
    ordered, levels = facts.ordered(c), facts.levels(c)
    shade = wording.tone(c)
    clock = c.kind is Kind.DATETIME
    return {
        "id": f"c{number}",
        "name": printable(c.name, 120),
        "group": None if group is None else printable(group, 60),
        "kind": c.kind.value,
        "tone": shade,
        "word": wording.WORDS[shade],
        "changed": _tight(wording.what_changed(c)),
        "density": None if ordered is None else svg.density(ordered, clock=clock, unit=c.unit),
        "shift": None if ordered is None else svg.shift(ordered, clock=clock),
        "bars": None if levels is None else svg.bars(levels),
        "moments": [] if ordered is None else _moments(c, ordered),
        "numbers": _numbers(c),
        "note": None if c.note is None or shade == "out" else printable(c.note, 500),
    }


def _cell(value: object) -> str:
    return figures(value, 6) if isinstance(value, float) else NONE if value is None else printable(value, 60)


def _joint(group: str | None, result: JointResult) -> dict[str, Any]:
    typical = {}
    for side, rows in result.typical.items():
        names = list(rows[0]["values"])[:12] if rows else []
        cells = [(row["row"] + 1, [_cell(row["values"].get(n)) for n in names]) for row in rows]
        typical[side] = {"names": [printable(n, 40) for n in names], "rows": cells}
    return {
        "group": None if group is None else printable(group, 60),
        "tone": "drift" if result.drift else "undecided",
        "sentence": wording.joint_sentence(result),
        "changed": _tight(wording.joint_changed(result)),
        "size": f"{figures(result.size)}" + (f" ({interval(result.low, result.high)})" if result.high is not None else ""),
        "note": printable(result.note, 500) if result.note and result.verdict != "left out" else None,
        "pairs": [
            {
                "names": [printable(n, 60) for n in pair["columns"]],
                "before": figures(pair["reference"]),
                "after": figures(pair["current"]),
                "figure": svg.correlations(pair["reference"], pair["current"]),
                "p": p_value(pair.get("p_value")),
            }
            for pair in result.pairs[:30]
        ],
        "further_pairs": max(0, len(result.pairs) - 30),
        "shares": [
            {
                "name": printable(s["column"], 60),
                "share": share(s["share"]),
                "width": f"{100 * max(0.0, min(1.0, s['share'])):.1f}",
            }
            for s in result.shares[:12]
            if s["share"] is not None
        ],
        "typical": typical if result.drift else {},
    }


def _groups(report: ComparisonReport) -> list[dict[str, Any]]:
    out = []
    for group in report.groups:
        tones = [wording.tone(c) for c in group.columns]
        out.append(
            {
                "value": printable(group.value, 60),
                "rows": " → ".join(count(n) for n in group.rows),
                "tone": "drift" if group.drift else "undecided" if "undecided" in tones else "equivalent",
                "drift": ", ".join(printable(c.name, 40) for c in group.columns if c.drift) or NONE,
                "joint": NONE if group.joint is None else p_value(group.joint.p_adjusted),
                "notes": "; ".join(printable(n, 300) for n in group.notes),
            }
        )
    return out


def _view(report: ComparisonReport) -> dict[str, Any]:
    ranked = sorted(report.everything(), key=lambda pair: wording.rank(pair[1]))
    shown = [c for _, c in ranked if wording.tone(c) != "out"]
    top = max([c.size_high or c.size or 0.0 for c in shown] + [2 * (c.margin or 0.0) for c in shown] + [0.0])
    tones = [wording.tone(c) for _, c in ranked]
    drawn = len(ranked) if len(ranked) <= MOST_FIGURES else min(MOST_FIGURES, len(ranked))
    rows = [_row(k, g, c, top, k < drawn) for k, (g, c) in enumerate(ranked[:MOST_ROWS])]
    found = methods(report)
    cut = []
    if len(ranked) > drawn:
        cut.append(f"Figures are drawn for the {drawn:,} columns that rank first.")
    if len(ranked) > MOST_ROWS:
        cut.append(f"The table holds the first {MOST_ROWS:,} of {len(ranked):,} columns; --json and --csv hold all.")
    return {
        "head": wording.headline(report),
        "error_rate": printable(report.error_rate, 600),
        "names": [printable(n, 200) for n in report.names],
        "rows_text": [row_count(n) for n in report.rows],
        "tally": [
            (tone, tones.count(tone), wording.WORDS[tone], wording.MEANINGS[tone]) for tone in wording.WORDS if tone in tones
        ],
        "total": len(ranked),
        "rows": rows,
        "movers": [row for row in rows[:6] if row["tone"] in ("drift", "small")],
        "cards": [_card(k, g, c) for k, (g, c) in enumerate(ranked[:drawn])],
        "cut": cut,
        "any_missing": any(row["missing"] for row in rows),
        "grouped": bool(report.groups),
        "groups": _groups(report),
        "joints": [_joint(g, j) for g, j in report.joints()],
        "notes": [printable(n, 600) for n in report.notes],
        "left_out": [(printable(n, 120), printable(why, 300)) for n, why in list(report.left_out.items())[:500]],
        "left_out_count": len(report.left_out),
        "methods": found,
        "citations": citations(found),
        "options": report.options,
        "units": report.units,
        "version": report.version,
        "seconds": None if report.seconds is None else figures(report.seconds, 2),
    }


def html(report: ComparisonReport) -> str:
    """The whole page as text. Under a strict content policy: no network, and no script but the page's own."""
    script = _asset("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:; base-uri 'none'"
    return _template().render(
        _view(report),
        style=Markup(_asset("report.css")),
        script=Markup(script),
        policy=policy,
    )


def fragment(report: ComparisonReport, most: int = 30) -> str:
    """The verdict and the first rows of the table, for a notebook cell."""
    head = wording.headline(report)
    ranked = sorted(report.everything(), key=lambda pair: wording.rank(pair[1]))
    lines = [
        f"<div><p><strong>{escape(head.title)}</strong><br>{escape(head.detail)}</p><table><thead><tr>",
        "".join(
            f"<th>{h}</th>" for h in ("column", "verdict", "what changed", "how far (95 % interval)", "size", "p, corrected")
        ),
        "</tr></thead><tbody>",
    ]
    for group, c in ranked[:most]:
        name = printable(c.name, 80) if group is None else f"{printable(group, 40)}: {printable(c.name, 80)}"
        cells = (
            name,
            wording.WORDS[wording.tone(c)],
            wording.what_changed(c),
            wording.how_far(c),
            figures(c.size),
            wording.how_sure(c),
        )
        lines.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    more = f"<p>and {len(ranked) - most:,} more columns</p>" if len(ranked) > most else ""
    lines.append(f"</tbody></table>{more}<p><small>{escape(printable(report.error_rate, 600))}</small></p></div>")
    return "".join(lines)
