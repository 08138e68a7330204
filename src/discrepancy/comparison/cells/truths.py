"""Truth values in text: true/false, yes/no, y/n, t/f, on/off, 1/0, in any case."""

from __future__ import annotations

from collections.abc import Iterable

_PAIRS = (("false", "true"), ("no", "yes"), ("off", "on"), ("n", "y"), ("f", "t"), ("0", "1"))
FALSE = frozenset(pair[0] for pair in _PAIRS)
TRUE = frozenset(pair[1] for pair in _PAIRS)


def truth(cell: str) -> bool | None:
    """What a cell says, or None if it is no truth value."""
    word = cell.casefold()
    return True if word in TRUE else False if word in FALSE else None


def truth_words(cells: Iterable[str]) -> frozenset[str] | None:
    """The distinct spellings in a column if all are truth values, else None; stops at the first that is not."""
    words: set[str] = set()
    for cell in cells:
        if cell not in words:
            if cell.casefold() not in TRUE and cell.casefold() not in FALSE:
                return None
            words.add(cell)
    return frozenset(words)


def is_boolean(words: frozenset[str]) -> bool:
    """Whether spellings pooled over both tables make a boolean column.

    Both truths must occur, and a single letter or digit must occur with its own partner: {"F", "T"} is boolean and
    {"n", "t"} is not. The words true and false are boolean alone.
    """
    folded = {word.casefold() for word in words}
    for low, high in _PAIRS:
        if len(high) == 1 and len(folded & {low, high}) == 1 and not folded & {"true", "false", "yes", "no"}:
            return False
    return bool(folded & TRUE and folded & FALSE) or bool(folded & {"true", "false"})


def truth_levels(words: frozenset[str]) -> tuple[str, str]:
    """Display names (false, true): the spelling used if there is one for each, else the plain words."""
    low = [word for word in words if word.casefold() in FALSE]
    high = [word for word in words if word.casefold() in TRUE]
    if len(low) == 1 and len(high) == 1:
        return low[0], high[0]
    return "false", "true"
