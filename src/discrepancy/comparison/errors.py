"""The two ways in which a comparison is refused before it starts: the data, or what was asked of them."""

from __future__ import annotations

from collections.abc import Iterable


class DataError(ValueError):
    """Data that cannot be read or compared: one sentence that names the file, the place and the remedy (exit 3)."""


class OptionError(ValueError):
    """An option that no comparison, or not this one, can use: names the option, the value and the rule (exit 2)."""


def listed(names: Iterable[str], most: int = 6) -> str:
    """Names for a sentence: quoted, at most `most` of them, then how many more."""
    names = list(names)
    shown = ", ".join(repr(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def closest(name: str, known: Iterable[str]) -> str:
    """ " (did you mean 'x'?)" where a known name resembles this one, else nothing."""
    import difflib

    match = difflib.get_close_matches(name, list(known)[:5_000], n=1, cutoff=0.7)
    return f" (did you mean {match[0]!r}?)" if match else ""
