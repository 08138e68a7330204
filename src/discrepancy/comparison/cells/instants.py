"""Dates and times in text, to seconds since 1970-01-01T00:00Z as float64 (exact to about a microsecond this century)."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

_CLOCK = (
    r"(?:(?:T|t| +|, *)(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<part>\d{1,9})\d*)?)?"
    r"(?: ?(?P<half>[AaPp])\.?[Mm]\.?)?(?: ?(?P<zone>Z|z|UTC|GMT|[+-]\d{2}(?::?\d{2})?))?)?"
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = rf"(?P<month>(?:{'|'.join(_MONTHS)})[a-z]*)\.?"
_EPOCH = dt.datetime(1970, 1, 1)


@dataclass(frozen=True, eq=False)  # compared by identity, as the formats of numbers are
class InstantFormat:
    """One way to write dates, with or without a clock time and a zone."""

    name: str
    expression: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "_match", re.compile(self.expression + _CLOCK, re.ASCII | re.IGNORECASE).fullmatch)

    def read(self, cell: str) -> tuple[float, bool] | None:
        """Seconds since the epoch in UTC, and whether the cell named a zone; None where it is no such date."""
        match: Callable[[str], re.Match[str] | None] = self._match  # type: ignore[attr-defined]
        found = match(cell)
        if found is None:
            return None
        year, month, day = found["year"], found["month"], found["day"]
        number = _MONTHS.index(month[:3].lower()) + 1 if month[0].isalpha() else int(month)
        hour = int(found["hour"] or 0)
        if found["half"]:
            if not 1 <= hour <= 12:
                return None
            hour = hour % 12 + (12 if found["half"] in "pP" else 0)
        day_over = hour == 24 and not int(found["minute"]) and not int(found["second"] or 0)  # ISO's end of day
        leap_second = found["second"] == "60"
        try:
            moment = dt.datetime(
                int(year), number, int(day), 0 if day_over else hour, int(found["minute"] or 0),
                59 if leap_second else int(found["second"] or 0),
            )  # fmt: skip
        except ValueError:
            return None
        span = moment - _EPOCH
        seconds = span.days * 86_400 + span.seconds + 86_400 * day_over + leap_second
        zone = found["zone"]
        if zone and zone[0] in "+-":
            digits = zone[1:].replace(":", "").ljust(4, "0")
            seconds -= (1 if zone[0] == "+" else -1) * (int(digits[:2]) * 3600 + int(digits[2:]) * 60)
        return seconds + (float("0." + found["part"]) if found["part"] else 0.0), zone is not None

    def fits(self, cells: Iterable[str]) -> bool:
        """Whether every cell is such a date; stops at the first that is not."""
        return all(self.read(cell) is not None for cell in cells)


ISO = InstantFormat("year-month-day", r"(?P<year>\d{4})-(?P<month>\d{1,2})-(?P<day>\d{1,2})")
SLASHED = InstantFormat("year/month/day", r"(?P<year>\d{4})[/.](?P<month>\d{1,2})[/.](?P<day>\d{1,2})")
MONTH_FIRST = InstantFormat("month/day/year", r"(?P<month>\d{1,2})(?P<mark>[/.-])(?P<day>\d{1,2})(?P=mark)(?P<year>\d{4})")
DAY_FIRST = InstantFormat("day/month/year", r"(?P<day>\d{1,2})(?P<mark>[/.-])(?P<month>\d{1,2})(?P=mark)(?P<year>\d{4})")
NAMED = InstantFormat("day month year", rf"(?:[a-z]{{3,9}},? )?(?P<day>\d{{1,2}})[ -]{_MONTH}[ -](?P<year>\d{{4}})")
NAMED_FIRST = InstantFormat("month day, year", rf"(?:[a-z]{{3,9}},? )?{_MONTH} (?P<day>\d{{1,2}}),? (?P<year>\d{{4}})")
COMPACT = InstantFormat("yyyymmdd", r"(?P<year>(?:1[89]|20)\d{2})(?P<month>\d{2})(?P<day>\d{2})")
# COMPACT is not among them: eight digits are a number unless the column's name says otherwise.
INSTANT_FORMATS = (ISO, SLASHED, MONTH_FIRST, DAY_FIRST, NAMED, NAMED_FIRST)


@dataclass(frozen=True)
class InstantFacts:
    """What a column of text is as dates: the formats that fit all cells, and whether some or all cells name a zone."""

    formats: frozenset[InstantFormat]
    some_zoned: bool = False
    all_zoned: bool = True


def instant_facts(values: np.ndarray, formats: Sequence[InstantFormat] = INSTANT_FORMATS) -> InstantFacts | None:
    """The facts of present text cells, or None if they are not all dates of one format."""
    if fast_iso(values) is not None:
        return InstantFacts(frozenset([ISO]), False, False)
    cells = _distinct(values)
    fitting = frozenset(f for f in formats if f.fits(cells))
    if not fitting:
        return None
    form = next(iter(fitting))
    zoned = {pair[1] for cell in cells if (pair := form.read(cell)) is not None}
    return InstantFacts(fitting, True in zoned, False not in zoned)


def merge_instants(a: InstantFacts | None, b: InstantFacts | None) -> InstantFacts | None:
    """The facts of two runs of cells together; None where no one format fits both."""
    if a is None or b is None or not a.formats & b.formats:
        return None
    return InstantFacts(a.formats & b.formats, a.some_zoned or b.some_zoned, a.all_zoned and b.all_zoned)


def read_instants(values: np.ndarray, form: InstantFormat) -> np.ndarray:
    """Present text cells as seconds since the epoch (UTC), NaN where a cell is no such date.

    A plain ISO column is converted without a Python loop; otherwise about two microseconds a distinct cell.
    """
    if form is ISO:
        fast = fast_iso(values)
        if fast is not None:
            return fast
    cells: Sequence[str] = values.astype("U").tolist() if values.dtype.kind == "S" else values.tolist()
    known = {cell: pair[0] if (pair := form.read(cell)) is not None else np.nan for cell in dict.fromkeys(cells)}
    return np.fromiter((known[cell] for cell in cells), dtype=np.float64, count=len(cells))


def _distinct(values: np.ndarray) -> list[str]:
    cells = values.astype("U").tolist() if values.dtype.kind == "S" else values.tolist()
    return list(dict.fromkeys(cells))


# What may stand at each place of YYYY-MM-DD HH:MM:SS.ffffff; everything else takes the careful way.
_DIGITS = [*b"0123456789"]
_PLACES = [_DIGITS] * 4 + [[45]] + [_DIGITS] * 2 + [[45]] + [_DIGITS] * 2
_PLACES += [[84, 32]] + [_DIGITS] * 2 + [[58]] + [_DIGITS] * 2 + [[58]] + [_DIGITS] * 2 + [[46]] + [_DIGITS] * 6
_ALLOWED = np.zeros((len(_PLACES), 256), dtype=bool)
for _place, _bytes in enumerate(_PLACES):
    _ALLOWED[_place, _bytes] = True
    if _place >= 10:
        _ALLOWED[_place, 0] = True


def fast_iso(values: np.ndarray) -> np.ndarray | None:
    """Seconds of a bytes column in ISO form without a zone, or None where a cell is anything else."""
    if values.dtype.kind != "S" or not len(values) or not 10 <= values.dtype.itemsize <= len(_PLACES):
        return None
    rows = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)
    if not _ALLOWED[np.arange(rows.shape[1]), rows].all():
        return None
    try:
        return values.astype("datetime64[us]").astype(np.int64) / 1e6
    except ValueError:
        return None
