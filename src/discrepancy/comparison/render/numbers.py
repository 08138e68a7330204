"""Numbers as people read them: three figures, shares in per cent, p-values with a floor, spans of time in a fitting unit."""

from __future__ import annotations

import math
import unicodedata
from datetime import UTC, datetime, timedelta

NONE = "–"  # an en dash stands for what does not exist

# Units of time, largest first; a span is shown in the largest unit that leaves at least 1.5 of it.
_SPANS = (
    ("years", 365.2425 * 86400),
    ("days", 86400.0),
    ("hours", 3600.0),
    ("minutes", 60.0),
    ("seconds", 1.0),
    ("milliseconds", 1e-3),
    ("microseconds", 1e-6),
)
SHARE = "share"  # "share of rows", "share of characters": shown in per cent
SECONDS = ("s", "second", "seconds")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BIDI = {*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F}


def figures(x: float | None, digits: int = 3) -> str:
    """A number in `digits` significant figures, thousands grouped, powers of ten beyond 1e9 and below 1e-4."""
    if x is None:
        return NONE
    if not math.isfinite(x):
        return "∞" if x > 0 else "−∞" if x < 0 else NONE
    if x == 0:
        return "0"
    size = abs(x)
    if size >= 1e9 or size < 1e-4:
        mantissa, _, power = f"{x:.{digits - 1}e}".partition("e")
        if "." in mantissa:
            mantissa = mantissa.rstrip("0").rstrip(".")
        return f"{mantissa}e{int(power)}".replace("-", "−")
    if size >= 10 ** (digits - 1):
        return f"{x:,.0f}".replace("-", "−")
    places = digits - 1 - math.floor(math.log10(size))
    text = f"{x:.{places}f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return text.replace("-", "−")


def count(n: int | float | None) -> str:
    """A whole number with its thousands grouped."""
    return NONE if n is None else f"{n:,.0f}"


def row_count(n: int) -> str:
    """How many rows, in words."""
    return f"{count(n)} row" if n == 1 else f"{count(n)} rows"


def share(x: float | None) -> str:
    """A share of rows in per cent; 0 % and 100 % are written only where they are exact."""
    if x is None or not math.isfinite(x):
        return NONE
    if x == 0:
        return "0 %"
    if x == 1:
        return "100 %"
    per_cent = 100 * x
    if abs(per_cent) < 0.01:
        return "<0.01 %"
    if 99.95 <= per_cent < 100:
        return ">99.9 %"
    return f"{figures(per_cent, 2 if abs(per_cent) < 1 else 3)} %"


def p_value(p: float | None) -> str:
    """A p-value with two figures, never as 0."""
    if p is None or not math.isfinite(p):
        return NONE
    if p < 1e-4:
        return "<0.0001"
    if p >= 0.995:
        return "1"
    return f"{p:.2f}" if p >= 0.1 else f"{p:.3f}" if p >= 0.01 else f"{p:.4f}"


def span_unit(seconds: float) -> tuple[str, float]:
    """The unit of time that suits a span, and its length in seconds."""
    for name, length in _SPANS:
        if abs(seconds) >= 1.5 * length:
            return name, length
    return _SPANS[-1] if seconds else _SPANS[4]


def quantity(x: float | None, unit: str = "") -> str:
    """A value in its unit: seconds become a fitting unit of time, shares per cent, other units follow the number."""
    if x is None:
        return NONE
    if unit in SECONDS:
        name, length = span_unit(x)
        return f"{figures(x / length)} {name}"
    if unit.startswith(SHARE):
        return share(x)
    return f"{figures(x)} {printable(unit, 40)}".rstrip()


def interval(low: float | None, high: float | None, unit: str = "") -> str:
    """An interval "low to high" in one common unit, which follows the larger end."""
    if low is None and high is None:
        return NONE
    if unit in SECONDS:
        name, length = span_unit(max(abs(low or 0.0), abs(high or 0.0)))
        low, high, unit = (None if low is None else low / length), (None if high is None else high / length), name
    if unit.startswith(SHARE):
        return f"{share(low).removesuffix(' %')} to {share(high)}"
    return f"{figures(low)} to {figures(high)} {printable(unit, 40)}".rstrip()


def moment(seconds: float | None, span: float = 0.0) -> str:
    """A point in time (seconds since 1970, UTC) as a date, with the time of day where a span of under ten days needs it."""
    if seconds is None or not math.isfinite(seconds):
        return NONE
    try:
        when = _EPOCH + timedelta(seconds=seconds)
    except OverflowError:  # outside the years 1 to 9999
        return f"{figures(seconds)} s"
    if span and span < 120:
        return when.strftime("%H:%M:%S")
    if span and span < 10 * 86400:
        return when.strftime("%m-%d %H:%M")
    if not span and (when.hour or when.minute or when.second):
        return f"{when.year:04d}-" + when.strftime("%m-%d %H:%M")
    return f"{when.year:04d}-" + when.strftime("%m-%d")


def printable(text: object, limit: int = 200) -> str:
    """A name or a cell without control characters, direction overrides and lone surrogates, cut at `limit` characters.

    Escape sequences in a column name could repaint a terminal; a surrogate could not be written as UTF-8.
    """
    out: list[str] = []
    for c in str(text)[: limit + 1]:
        point = ord(c)
        if unicodedata.category(c) in ("Cc", "Cs") or point in _BIDI:
            out.append(" " if c in "\n\r\t" else f"\\x{point:02x}" if point < 256 else f"\\u{point:04x}")
        else:
            out.append(c)
    if len(out) > limit:
        out[limit:] = ["…"]
    return "".join(out)


def signed(x: float, unit: str = "") -> str:
    """A change with its sign: "+3.2 days", "−0.4"."""
    return ("+" if x > 0 else "") + quantity(x, unit)
