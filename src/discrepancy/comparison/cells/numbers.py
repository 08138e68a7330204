"""Numbers in text: decimal point or comma, thousands grouped or not, percent and currency signs, infinities."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

_EXPONENT = r"(?:[eE][+-]?\d+)?"
_INFINITE = r"[iI]nf(?:inity)?|INF(?:INITY)?"
AFFIXES = "%$€£¥"
_SPACES = " \u00a0\u202f\u2009'’"


@dataclass(frozen=True, eq=False)  # there are five, each compared by identity: tables of 10,000 columns ask often
class NumberFormat:
    """One way to write numbers: the decimal mark, and the marks that may group thousands ("" where none may)."""

    decimal: str
    group: str

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """What a whole cell must look like."""
        mark = re.escape(self.decimal)
        plain = rf"(?:\d+(?:{mark}\d*)?|{mark}\d+){_EXPONENT}"
        if not self.group:
            return re.compile(rf"[+-]?(?:{plain}|{_INFINITE})", re.ASCII)
        marks = re.escape(self.group)
        # Groups of three; the Indian way groups by two above the first thousand.
        grouped = rf"[1-9]\d{{0,2}}(?:(?:[{marks}]\d{{3}})+|(?:[{marks}]\d{{2}})+[{marks}]\d{{3}})(?:{mark}\d*)?"
        return re.compile(rf"[+-]?(?:{grouped}|{plain}|{_INFINITE})", re.ASCII)

    def fits(self, cells: Iterable[str]) -> bool:
        """Whether every cell reads as a number this way; stops at the first that does not."""
        match = self.pattern.fullmatch
        return all(match(cell) is not None for cell in cells)

    def plain(self, cell: str) -> str:
        """The cell as Python's `float` reads it."""
        for mark in self.group:
            cell = cell.replace(mark, "")
        return cell if self.decimal == "." else cell.replace(self.decimal, ".")

    def described(self) -> str:
        """In words, for notes."""
        decimal = "decimal point" if self.decimal == "." else "decimal comma"
        groups = {"": "", ",": ", thousands grouped by commas", ".": ", thousands grouped by points"}
        return decimal + groups.get(self.group, ", thousands grouped by spaces or apostrophes")


POINT = NumberFormat(".", "")
GROUPED_POINT = NumberFormat(".", ",")
SPACED_POINT = NumberFormat(".", _SPACES)
COMMA = NumberFormat(",", ".")
SPACED_COMMA = NumberFormat(",", _SPACES)
# In order of preference where several fit.
NUMBER_FORMATS = (POINT, GROUPED_POINT, COMMA, SPACED_POINT, SPACED_COMMA)
ALL_FORMATS = frozenset(NUMBER_FORMATS)
_POINT_FORMATS = frozenset([POINT, GROUPED_POINT, SPACED_POINT])


@dataclass(frozen=True)
class NumberFacts:
    """What a column of text is as numbers: the formats that fit all cells, a common sign, how whole numbers are written.

    `whole`: no decimal mark or exponent anywhere; `padded`: some have leading zeros ("00123"); `digits`: the most digits;
    `binary`: all are 0 or 1 (of whole numbers only).
    """

    formats: frozenset[NumberFormat]
    affix: str = ""
    whole: bool = False
    padded: bool = False
    digits: int = 0
    binary: bool = False


def _byte_rows(values: np.ndarray) -> np.ndarray:
    """Fixed-width bytes (n,) as a matrix (n, width)."""
    return np.ascontiguousarray(values).view(np.uint8).reshape(len(values), values.dtype.itemsize)


def number_facts(values: np.ndarray, *, plain: bool = False) -> NumberFacts | None:
    """The facts of a column of present text cells (bytes or strings), or None if they are not all numbers.

    `plain`: the cells are known to be digits, sign, point and exponent only (`RawColumn.plain`), and are looked at without
    a Python loop; other spellings are matched cell by cell until one fails, so a column of words costs one match a format.
    """
    if plain:
        return _plain_facts(values)
    cells: Sequence[str] = values.astype("U").tolist() if values.dtype.kind == "S" else values.tolist()
    affix = ""
    if cells and (sign := next((s for s in AFFIXES if s in cells[0]), "")):
        stripped = [_without(cell, sign) for cell in cells]
        if not any(cell is None for cell in stripped):
            affix, cells = sign, [cell for cell in stripped if cell is not None]
    formats = frozenset(f for f in NUMBER_FORMATS if f.fits(cells))
    if not formats:
        return None
    chosen = next(f for f in NUMBER_FORMATS if f in formats)
    bare = [chosen.plain(cell).lstrip("+-") for cell in cells]
    # The width of the whole number, not of its spelling: "1,234" has four digits.
    whole = not affix and all(cell.isdigit() for cell in bare)
    return NumberFacts(
        formats,
        affix,
        whole,
        whole and any(len(cell) > 1 and cell[0] == "0" for cell in bare),
        max((len(cell) for cell in bare), default=0) if whole else 0,
        whole and set(bare) <= {"0", "1"} and not any(cell[:1] == "-" for cell in cells),
    )


def _without(cell: str, sign: str) -> str | None:
    """The cell without one leading or trailing sign; None where it has none or several."""
    if cell.count(sign) != 1:
        return None
    minus = "-" if cell.startswith("-") and sign != "%" else ""
    rest = cell[len(minus) :]
    if rest.startswith(sign) and sign != "%":
        return minus + rest[1:].lstrip()
    return cell[:-1].rstrip() if cell.endswith(sign) else None


def _plain_facts(values: np.ndarray) -> NumberFacts:
    """Facts of present cells that use digits, sign, point and exponent only."""
    rows = _byte_rows(values)
    formats = ALL_FORMATS
    if (rows == 46).any():
        cells = _lazily(values)
        formats = _POINT_FORMATS | {COMMA} if COMMA.fits(cells) else _POINT_FORMATS
        return NumberFacts(formats)
    if (rows >= 69).any():  # an exponent
        return NumberFacts(formats)
    first, width = rows[:, 0], rows.shape[1]
    signed = first < 48
    digits = width - (rows == 0).sum(axis=1) - signed
    padded = binary = False
    if width > 1:
        leading = np.where(signed, rows[:, 1], first)
        padded = bool(((leading == 48) & (digits > 1)).any())
    else:
        binary = bool((first <= 49).all())
    return NumberFacts(formats, "", True, padded, int(digits.max()), binary)


def _lazily(values: np.ndarray) -> Iterable[str]:
    for start in range(0, len(values), 4096):
        yield from values[start : start + 4096].astype("U").tolist()


def merge_numbers(a: NumberFacts | None, b: NumberFacts | None) -> NumberFacts | None:
    """The facts of two runs of cells together; None where no one format fits both."""
    if a is None or b is None or a.affix != b.affix or not a.formats & b.formats:
        return None
    return NumberFacts(
        a.formats & b.formats, a.affix, a.whole and b.whole, a.padded or b.padded, max(a.digits, b.digits), a.binary and b.binary
    )


def read_numbers(values: np.ndarray, form: NumberFormat, affix: str = "") -> np.ndarray:
    """Present text cells as float64, NaN where a cell is not a number in this format. Linear, 0.2-1 microseconds a cell."""
    cells: Sequence[str] = values.astype("U").tolist() if values.dtype.kind == "S" else values.tolist()
    match, out = form.pattern.fullmatch, np.full(len(cells), np.nan)
    for i, cell in enumerate(cells):
        bare = _without(cell, affix) if affix else cell
        if bare is not None and match(bare):
            out[i] = float(form.plain(bare))
    return out
