"""The words of a verdict: one sentence for the whole, one for each column. Every rendering says the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from discrepancy.comparison import facts
from discrepancy.comparison.model import ColumnResult, JointResult, Kind
from discrepancy.comparison.render.numbers import (
    NONE,
    SECONDS,
    SHARE,
    figures,
    interval,
    moment,
    p_value,
    printable,
    quantity,
    share,
    signed,
)

if TYPE_CHECKING:
    from discrepancy.comparison.report import ComparisonReport

Tone = Literal["drift", "small", "equivalent", "undecided", "out"]

# The tone of a verdict -> what is written. A drift that is shown to be below the margin is both, and is worded as both.
WORDS: dict[Tone, str] = {
    "drift": "drift",
    "small": "drift, and shown to be small",
    "equivalent": "within the margin",
    "undecided": "undecided",
    "out": "left out",
}
MEANINGS: dict[Tone, str] = {
    "drift": "changed by more than the minimum effect, after correction for all tests",
    "small": "changed by more than the minimum effect, and by less than the equivalence margin",
    "equivalent": "any change is smaller than the equivalence margin, with 95 % confidence",
    "undecided": "neither a change nor its absence could be shown at these row counts",
    "out": "shown, not tested",
}
_ORDER: tuple[Tone, ...] = ("drift", "small", "undecided", "equivalent", "out")
_DRIVERS = {
    "W1": "distance between values",
    "A": "distribution, tails included",
    "KS": "cumulative share",
    "TV": "shares of levels",
    "M": "share of one level",
    "S": "a rare level",
    "missing": "missingness",
    "+inf": "share of +infinity",
    "-inf": "share of −infinity",
}


@dataclass(frozen=True)
class Headline:
    """The verdict on the whole: its tone, a title, and one sentence that a reader needs to trust it."""

    tone: Tone
    title: str
    detail: str


def tone(result: ColumnResult) -> Tone:
    """The verdict of a column as one of five tones."""
    if not result.tested or result.verdict in (None, "left out"):
        return "out"
    if result.verdict == "drift":
        return "small" if result.small else "drift"
    return "equivalent" if result.verdict == "equivalent" else "undecided"


def rank(result: ColumnResult) -> tuple[int, float]:
    """Sort key: drift first, the largest size first within a verdict; a change in missing cells counts as its share."""
    size = result.size if result.size is not None else -1.0
    gone, come = result.missing.get("reference"), result.missing.get("current")
    if gone is not None and come is not None:
        size = max(size, abs(come - gone))
    return (_ORDER.index(tone(result)), -size)


def _plural(n: int, one: str) -> str:
    return f"{n:,} {one}" if n == 1 else f"{n:,} {one}s"


def _names(results: list[tuple[str | None, ColumnResult]], groups: int, most: int = 4) -> str:
    """The columns of some results, each once, in order; with groups, in how many of them or in which one."""
    where: dict[str, list[str]] = {}
    for group, r in results:
        where.setdefault(printable(r.name, 40), []).append("" if group is None else printable(group, 20))
    labels = list(where)
    if groups:
        labels = [f"{name} ({in_[0] if len(in_) == 1 else f'{len(in_)} of {groups} groups'})" for name, in_ in where.items()]
    shown = labels[:most]
    if len(labels) > most:
        return ", ".join(shown) + f" and {len(labels) - most:,} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]


def headline(report: ComparisonReport) -> Headline:
    """The verdict on the whole report."""
    rows = sorted(report.everything(), key=lambda pair: rank(pair[1]))
    tested = [(g, r) for g, r in rows if tone(r) != "out"]
    flagged = [(g, r) for g, r in tested if r.verdict == "drift"]
    joint = [j for _, j in report.joints() if j.drift]
    cleared = [1 for _, r in tested if tone(r) == "equivalent"]
    open_ = [1 for _, r in tested if tone(r) == "undecided"]
    one = "column comparison" if report.groups else "column"
    what = one if len(tested) == 1 else f"{one}s"
    if report.drift and flagged:
        all_small = all(r.small for _, r in flagged) and not joint
        kind = "Drift, and shown to be small," if all_small else "Drift"
        title = f"{kind} in {len(flagged):,} of {len(tested):,} {what}: {_names(flagged, len(report.groups))}"
        return Headline("small" if all_small else "drift", title, _rest(report, len(cleared), len(open_)))
    if report.drift:
        title = "Drift in the joint distribution, in no column by itself"
        detail = _rest(report, len(cleared), len(open_)).replace(" too", "")
        return Headline("drift", title, detail)
    if not tested:
        return Headline("out", "Nothing could be tested", "Every column was left out of the tests, for the reasons given.")
    if len(cleared) == len(tested):
        each = f"each of {_plural(len(tested), one)}" if len(tested) > 1 else f"the one {one}"
        title = f"No drift: {each} is shown to differ by less than its margin"
        return Headline("equivalent", title, "No change beyond the minimum effect was found, jointly or in any column.")
    if cleared:
        title = f"No drift found; {len(cleared):,} of {len(tested):,} {what} shown to be within their margin"
        return Headline("undecided", title, f"{_plural(len(open_), one)} undecided: more rows would settle them.")
    which = f"none of {_plural(len(tested), one)}" if len(tested) > 1 else f"the one {one} is not"
    title = f"No drift found; {which} shown to be within its margin"
    return Headline(
        "undecided", title, "These row counts cannot tell a change below the margin from none: more rows would settle it."
    )


def _rest(report: ComparisonReport, cleared: int, undecided: int) -> str:
    """What the title leaves out: the joint test, and the columns that were not flagged."""
    parts = []
    joints = [j for _, j in report.joints() if j.verdict != "left out"]
    changed = sum(bool(j.drift) for j in joints)
    if joints and len(joints) == 1:
        parts.append("the joint distribution changed too" if changed else "the joint distribution shows no change")
    elif joints:
        parts.append(f"the joint distribution changed in {changed} of {len(joints)} groups")
    if cleared:
        parts.append(f"{cleared:,} shown to be within the margin")
    if undecided:
        parts.append(f"{undecided:,} undecided")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else "Nothing else was compared."


def driver(name: str | None) -> str:
    """The member that led a verdict, in words."""
    return "" if name is None else _DRIVERS.get(name, printable(name, 60))


def what_changed(result: ColumnResult) -> str:
    """What is different in a column, in a few words: medians, the level that moved most, missing cells."""
    if tone(result) == "out":
        return printable(result.note or "not tested")
    parts: list[str] = []
    gone, come = result.missing.get("reference"), result.missing.get("current")
    if result.driver == "missing" and gone is not None and come is not None:
        parts.append(f"missing {share(gone)} → {share(come)}")
        if not result.low:  # the values themselves may not have changed at all
            return parts[0]
    ordered, levels = facts.ordered(result), facts.levels(result)
    if ordered is not None:
        parts += _moved(result, ordered)
    elif levels is not None:
        parts += _leveled(result, levels)
    if result.driver in ("+inf", "-inf"):
        member = next((m for m in result.members if m.name == result.driver), None)
        if member is not None:
            parts.insert(0, f"{driver(result.driver)} moved by {share(member.value)} of rows")
    return "; ".join(parts[:2]) or NONE


def _moved(result: ColumnResult, seen: facts.OrderedFacts) -> list[str]:
    a, b = seen.median(0), seen.median(1)
    if a is None or b is None:
        return []
    clock = result.kind is Kind.DATETIME
    one, other = seen.moments
    # A median that explains little of the distance is not what changed; a spread that did change is.
    aside = result.distance is None or abs(b - a) < 0.25 * result.distance
    if aside and one.sd and other.sd and abs(other.sd / one.sd - 1) > 0.02:
        return [f"spread × {figures(other.sd / one.sd)}"]
    if a != b and clock and abs(b - a) < 10 * 86400:
        return [f"median {signed(b - a, 's')}"]
    if a != b:
        return [f"median {moment(a, abs(b - a))} → {moment(b, abs(b - a))}" if clock else f"median {figures(a)} → {figures(b)}"]
    if one.mean is not None and other.mean is not None and one.mean != other.mean and not clock:
        return [f"mean {figures(one.mean)} → {figures(other.mean)}"]
    return ["same median"]


def _leveled(result: ColumnResult, seen: facts.LevelFacts) -> list[str]:
    """The levels that moved most; a rare level first where a rare level led the verdict."""
    found: list[tuple[bool, float, str]] = []
    for level in seen.levels:
        name = printable(level.name, 24)
        if level.name in seen.novel:
            more = f" (and {seen.novel_count - 1:,} more)" if seen.novel_count > 1 else ""
            found.append((result.driver == "S", abs(level.change), f"new: {name} {share(level.current)}{more}"))
        elif level.name in seen.vanished:
            more = f" (and {seen.vanished_count - 1:,} more)" if seen.vanished_count > 1 else ""
            found.append((result.driver == "S", abs(level.change), f"gone: {name} {share(level.reference)}{more}"))
        elif level.change:
            found.append((False, abs(level.change), f"{name} {share(level.reference)} → {share(level.current)}"))
    return [text for _, _, text in sorted(found, key=lambda entry: entry[:2], reverse=True)] or ["same shares"]


def how_far(result: ColumnResult) -> str:
    """Distance with its interval, in the column's own unit."""
    if result.distance is None:
        return NONE
    text = quantity(result.distance, result.unit)
    if result.low is None and result.high is None:
        return f"{text} (no interval)"
    inner = result.unit if result.unit in SECONDS or result.unit.startswith(SHARE) else ""  # these choose their own unit
    return f"{text} ({interval(result.low, result.high, inner)})"


def how_sure(result: ColumnResult) -> str:
    """The corrected p-value; none for what is no member of the family."""
    return NONE if tone(result) == "out" else p_value(result.p_adjusted)


def joint_changed(result: JointResult) -> str:
    """What is different jointly, in a few words: the pair of columns whose dependence changed most, or what carries it."""
    if result.pairs:
        pair = result.pairs[0]
        names = " × ".join(printable(name, 30) for name in pair["columns"])
        return f"{names}: correlation {figures(pair['reference'])} → {figures(pair['current'])}"
    if result.shares:
        return "carried by " + ", ".join(f"{printable(s['column'], 30)} {share(s['share'])}" for s in result.shares[:2])
    return "where the rows lie"


def joint_sentence(result: JointResult) -> str:
    """The joint verdict in one sentence."""
    if result.verdict == "left out" or result.p_value is None:
        return printable(result.note or "The joint distribution was not tested.", 400)
    found = "changed" if result.drift else "shows no change beyond the minimum effect"
    where = f"distance {figures(result.distance)}"
    if result.low is not None or result.high is not None:
        where += f" ({interval(result.low, result.high)})"
    how = "" if result.driver is None or not result.drift else (
        ", led by the dependence between columns" if "pair" in result.driver.lower() else ", led by where the rows lie"
    )  # fmt: skip
    return f"The joint distribution {found}: {where}, corrected p {p_value(result.p_adjusted)}{how}."
