"""What kind a column is: decided once, on the evidence of both tables, so that a kind never differs between them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from discrepancy.comparison.cells.instants import COMPACT, DAY_FIRST, INSTANT_FORMATS, MONTH_FIRST, InstantFormat
from discrepancy.comparison.cells.numbers import COMMA, GROUPED_POINT, NUMBER_FORMATS, POINT, SPACED_COMMA, NumberFormat
from discrepancy.comparison.cells.truths import is_boolean, truth_levels
from discrepancy.comparison.evidence import EXACT, Evidence
from discrepancy.comparison.model import Kind
from discrepancy.comparison.natures import KindConflict, natures, refuse_or_accept_as_text

FEWEST_FOR_IDENTIFIER = 20  # below so many rows, all values being distinct says little
# A name that says "this number names something". The last word of the name decides: zip_code, PULocationID, class.
_KEY_WORDS = frozenset(["id", "ids", "uuid", "guid", "key", "index", "rowid", "idx"])
_CODE_WORDS = _KEY_WORDS - {"index", "idx"} | {
    "code",
    "codes",
    "zip",
    "zipcode",
    "postcode",
    "postal",
    "plz",
    "sku",
    "isbn",
    "ean",
}
_CODE_WORDS |= {"label", "labels", "class", "cluster", "category", "type", "status"}


@dataclass(frozen=True)
class Side:
    """How the cells of one table are read: as numbers in a format, with a sign to drop, or as instants in one."""

    number: NumberFormat | None = None
    affix: str = ""
    instant: InstantFormat | None = None


@dataclass(frozen=True)
class Decision:
    """A column's kind in both tables, how each is read, what its numbers count, and what the reader of the report should know.

    `truths`: display names of false and true. `codes`: levels are whole numbers, to be named and ordered as such.
    `all_missing`: no cell in either table.
    """

    kind: Kind
    sides: tuple[Side, Side]
    unit: str = ""
    notes: tuple[str, ...] = ()
    truths: tuple[str, str] | None = None
    codes: bool = False
    all_missing: bool = False


def words_of(name: str) -> list[str]:
    """The words of a column name, in lower case: "PULocationID" is pu, location, id."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return [word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if word]


def _sides(pair: tuple[Evidence, Evidence], comma: tuple[bool, bool]) -> tuple[tuple[Side, Side], list[str]]:
    """The formats in which each table writes a column, with a note where several would fit or the tables differ."""
    sides, notes = [], []
    for evidence, prefers_comma, which in zip(pair, comma, ("reference", "current")):
        number, affix, instant = None, "", None
        if evidence.numbers is not None:
            formats = evidence.numbers.formats
            order = NUMBER_FORMATS
            ambiguous = POINT not in formats and GROUPED_POINT in formats and COMMA in formats
            if prefers_comma and not (evidence.numbers.whole and POINT in formats):
                # "1,234", and "1.234" too, among columns such as "0,5".
                order = (COMMA, SPACED_COMMA, *NUMBER_FORMATS)
            number = next((f for f in order if f in formats), None)
            affix = evidence.numbers.affix
            if ambiguous and number is not None:
                notes.append(f"{which}: values such as 1,234 were read with a {number.described()}")
        if evidence.instants is not None:
            formats = evidence.instants.formats
            instant = next((f for f in (*INSTANT_FORMATS, COMPACT) if f in formats), None)
        sides.append(Side(number, affix, instant))
    return (sides[0], sides[1]), notes


def _share_dates(sides: tuple[Side, Side], pair: tuple[Evidence, Evidence]) -> tuple[tuple[Side, Side], list[str]]:
    """One reading of 01/02/2024 for both tables where either settles it; a note where none does."""
    found = [e.instants.formats if e.instants is not None else None for e in pair]
    known = [f for f in found if f is not None and f & {MONTH_FIRST, DAY_FIRST}]
    if not known:
        return sides, []
    common = frozenset.intersection(*known) & {MONTH_FIRST, DAY_FIRST}
    if len(known) == 2 and len(common) == 1:
        form = next(iter(common))
        return (Side(instant=form), Side(instant=form)), []
    if len(common) == 2:
        return sides, ["dates such as 01/02/2024 fit month/day and day/month; they were read as month/day"]
    return sides, []


def decide(
    name: str, reference: Evidence, current: Evidence, override: Kind | None = None, comma: tuple[bool, bool] = (False, False)
) -> Decision:
    """The kind of a column from the evidence of both tables, or the user's; and how each table's cells are read.

    `comma`: whether a table is known to write a decimal comma, which settles "1,234" and "1.234".
    Raises KindConflict where one table holds numbers (or dates, or truth values) and the other does not, or where cells
    do not fit the kind that was asked for.
    """
    pair = (reference, current)
    sides, notes = _sides(pair, comma)
    sides, more = _share_dates(sides, pair)
    full = [e for e in pair if e.present]
    if not full:
        kind = override or Kind.CATEGORICAL
        return Decision(kind, sides, all_missing=True)
    if override is not None:
        return _overridden(name, pair, override, sides, notes + more)
    common = set.intersection(*(natures(e) for e in full))
    if any(e.declared for e in full) and not any(natures(e) == {"instant"} for e in full):
        common = {"text"}
    if "boolean" in common:
        words = frozenset().union(*(e.words or () for e in full))
        if is_boolean(words):
            truths = truth_levels(words)
            if len(words) > 2:
                notes.append(f"truth values are spelled in {len(words)} ways ({', '.join(sorted(words))}) and were read as one")
            return Decision(Kind.BOOLEAN, sides, notes=tuple(notes), truths=truths)
    if "instant" in common:
        return Decision(Kind.DATETIME, sides, "seconds", (*more, *_zones(full)))
    if "number" in common:
        return _of_numbers(name, pair, full, sides, notes)
    if "text" not in common:
        refuse_or_accept_as_text(name, pair)
        notes.append("text in one table, and only numbers or dates in the other, were compared as levels")
    return _of_text(name, full, sides, notes)


def _zones(full: list[Evidence]) -> list[str]:
    some = [e.zoned or (e.instants is not None and e.instants.some_zoned) for e in full]
    every = [e.zoned or (e.instants is not None and e.instants.all_zoned) for e in full]
    if not any(some):
        return []
    if not all(every):
        return ["times with zones were converted to UTC; those without one were taken as UTC"]
    # A typed column holds instants already; text had to be converted from whatever offsets it names.
    return ["times with zones were converted to UTC"] if any(e.instants is not None for e in full) else []


def _of_numbers(
    name: str, pair: tuple[Evidence, Evidence], full: list[Evidence], sides: tuple[Side, Side], notes: list[str]
) -> Decision:
    facts = [e.numbers for e in full if e.numbers is not None]
    affixes = {f.affix for f in facts}
    unit = affixes.pop() if len(affixes) == 1 else ""
    if affixes and unit == "":
        notes.append(
            f"numbers carry {' and '.join(repr(a) for a in sorted(affixes) if a)} in one table only; the sign was dropped"
        )
    unit = unit or next((e.unit for e in full if e.unit), "")
    forms = {s.number for s, e in zip(sides, pair) if e.present and "text" in e.families and s.number is not None}
    if len(forms) > 1:
        notes.append(
            f"numbers are written with {' in one table and with '.join(sorted(f.described() for f in forms))} in the other"
        )
    if {"float32", "float64"} <= {e.dtype for e in full}:
        notes.append("32-bit floats in one table and 64-bit ones in the other: rounding itself can show as a difference")
    whole = all(f.whole for f in facts)
    if not whole:
        return Decision(Kind.NUMERIC, sides, unit, tuple(notes))
    padded, words = any(f.padded for f in facts), words_of(name)
    last = words[-1] if words else ""
    huge = any(max(abs(e.low), abs(e.high)) >= EXACT for e in full if e.high >= e.low)
    distinct = all(e.all_distinct for e in full) and max(e.present for e in full) >= FEWEST_FOR_IDENTIFIER
    if distinct and (padded or huge or last in _KEY_WORDS or name.startswith(("column ", "Unnamed")) or all(map(_dense, full))):
        return Decision(Kind.IDENTIFIER, sides, codes=True)
    if last in _KEY_WORDS and max(e.levels / e.counted for e in full if e.counted) > 0.5 and max(e.present for e in full) >= 100:
        return Decision(Kind.IDENTIFIER, sides, codes=True)
    if padded:
        if not all(f.padded for f in facts):
            notes.append("codes have leading zeros in one table only")
        return Decision(Kind.CODE, sides, notes=tuple(notes))
    if huge:
        notes.append("whole numbers beyond 2^53, which no floating-point number can tell apart, were compared as codes")
        return Decision(Kind.CODE, sides, notes=tuple(notes), codes=True)
    if last in _CODE_WORDS:
        return Decision(Kind.CODE, sides, notes=tuple(notes), codes=True)
    return Decision(Kind.INTEGER, sides, unit, tuple(notes))


def _dense(evidence: Evidence) -> bool:
    """Whether distinct whole numbers fill their range at least half: a counter, not an amount."""
    return evidence.high - evidence.low + 1 <= 2 * evidence.present


def _of_text(name: str, full: list[Evidence], sides: tuple[Side, Side], notes: list[str]) -> Decision:
    for evidence in full:
        if 0.9 <= evidence.number_share < 1 or 0.9 <= evidence.instant_share < 1:
            what = "numbers" if evidence.number_share >= 0.9 else "dates"
            notes.append(
                f"nearly all cells are {what}, but not all, so that the column was compared as text; clean it or give its kind"
            )
            break
    if any(e.padded for e in full):
        notes.append("spaces around values were ignored")
    rows = max(e.present for e in full)
    share = max(e.levels / e.counted for e in full if e.counted)
    levels = max(e.levels for e in full)
    letters = sum(e.letters for e in full) / sum(e.present for e in full)
    blanks = sum(e.blanks for e in full) / sum(e.present for e in full)
    last = words_of(name)[-1:]
    sentences = blanks >= 3
    if rows >= FEWEST_FOR_IDENTIFIER and all(e.all_distinct for e in full) and not sentences:
        return Decision(Kind.IDENTIFIER, sides)
    if last and last[0] in _KEY_WORDS and share > 0.5 and rows >= 100:
        return Decision(Kind.IDENTIFIER, sides)
    if any(e.declared for e in full):
        return Decision(Kind.CATEGORICAL, sides, notes=tuple(notes))
    if (share > 0.5 and (levels > 50 or (sentences and levels > 5))) or (
        sentences and letters >= 40 and levels > 50 and share > 0.1
    ):
        return Decision(Kind.TEXT, sides, notes=tuple(notes))
    padded = all(e.numbers is not None for e in full)
    return Decision(Kind.CODE if padded else Kind.CATEGORICAL, sides, notes=tuple(notes))


def _overridden(name: str, pair: tuple[Evidence, Evidence], kind: Kind, sides: tuple[Side, Side], notes: list[str]) -> Decision:
    """The user's kind, if the cells allow it."""
    for i, evidence in enumerate(pair):
        if not evidence.present:
            continue
        expected = None
        number = evidence.numbers is not None or "boolean" in evidence.families
        if kind in (Kind.NUMERIC, Kind.INTEGER) and not number:
            expected = "number"
        elif kind is Kind.DATETIME and not (number or evidence.instants is not None or "instant" in evidence.families):
            expected = "instant"
        elif kind is Kind.BOOLEAN and evidence.words is None:
            expected = "truth value"
        if expected is not None:
            which = ("reference", "current")[i]
            raise KindConflict(
                f"column {name!r} was given the kind {kind.value}, which not all cells of the {which} table are", i, expected
            )
    whole = all(e.numbers is not None and e.numbers.whole and not e.numbers.padded for e in pair if e.present)
    truths = None
    if kind is Kind.BOOLEAN:
        truths = truth_levels(frozenset().union(*(e.words or () for e in pair)))
    unit = "seconds" if kind is Kind.DATETIME else next((e.numbers.affix for e in pair if e.numbers and e.numbers.affix), "")
    if kind is Kind.DATETIME:
        notes = notes + _zones([e for e in pair if e.present])
    codes = whole and kind in (Kind.CODE, Kind.CATEGORICAL)
    return Decision(kind, sides, unit if kind.ordered else "", tuple(notes), truths, codes)
