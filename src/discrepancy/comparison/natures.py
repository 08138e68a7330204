"""What the cells of one table could be, and the refusal of a column that is one thing in one table and another in the other."""

from __future__ import annotations

from discrepancy.comparison.errors import DataError
from discrepancy.comparison.evidence import Evidence


class KindConflict(DataError):
    """A column is of one kind in one table and of another in the other, or not of the kind that was asked for.

    `side` (0 or 1) is the table whose cells do not fit `expected` ("number", "instant", "truth value").
    """

    def __init__(self, message: str, side: int, expected: str) -> None:
        super().__init__(message)
        self.side, self.expected = side, expected


def natures(evidence: Evidence) -> set[str]:
    """What the cells of one table could all be: number, instant, boolean, text; nothing where all are missing."""
    if not evidence.present:
        return set()
    if evidence.declared:
        return {"text"}
    if "instant" in evidence.families:
        return {"instant"}
    can: set[str] = set()
    if evidence.words is not None:
        can.add("boolean")
    if "boolean" in evidence.families:
        return can
    if evidence.instants is not None:
        can.add("instant")
    if evidence.numbers is not None:
        can.add("number")
    # Numbers and dates are no text, or each would match every word; but leading zeros are the spelling of a code.
    plain = evidence.numbers is not None and not evidence.numbers.padded
    if "text" in evidence.families and not plain and evidence.instants is None:
        can.add("text")
    return can


def refuse_or_accept_as_text(name: str, pair: tuple[Evidence, Evidence]) -> None:
    """Raise KindConflict unless a table of mixed codes meets one whose few cells all happen to be numbers."""
    can = [natures(e) for e in pair]
    for side in (0, 1):
        other = can[1 - side]
        if "text" not in can[side]:
            continue
        for nature, share in (("number", pair[side].number_share), ("instant", pair[side].instant_share)):
            if nature in other and 0.05 < share < 0.9:
                return
        expected = next((n for n in ("number", "instant", "boolean") if n in other), "")
        raise KindConflict(_sentence(name, can, side), side, "truth value" if expected == "boolean" else expected)
    raise KindConflict(_sentence(name, can, 1), 1, "")


_WORDS = {"number": "numbers", "instant": "dates or times", "boolean": "truth values", "text": "text"}


def _sentence(name: str, can: list[set[str]], side: int) -> str:
    said = [_WORDS[next(n for n in ("text", "instant", "number", "boolean") if n in c)] for c in can]
    return f"column {name!r} holds {said[0]} in the reference and {said[1]} in the current table"
