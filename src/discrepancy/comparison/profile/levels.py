"""A column of levels in little memory: exact counts up to 10,000 levels, a frequent-items sketch beyond."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from discrepancy.comparison.profile.sketches import datasketches, item_sketch, restored

MOST_LEVELS = 10_000  # levels up to which each is counted
LISTED = 1_000  # levels that are listed beyond, the most frequent ones
_CLEAR = 10  # a listed level has at least so many times the counting error
OTHER = "(other levels)"


@dataclass(frozen=True)
class LevelCounts:
    """Levels with their counts, (L,) each, in display order; `other` cells of levels that are not listed; `missing` cells.

    `error`: how many more cells than counted each listed level may have, all of them among `other`; 0 where every level is
    counted. `sketch`: the serialized item sketch, empty where there is none.
    """

    names: tuple[str, ...]
    counts: np.ndarray
    other: float
    missing: float
    error: float = 0.0
    sketch: bytes = b""

    @property
    def count(self) -> float:
        """How many cells with a level."""
        return float(self.counts.sum()) + self.other

    @property
    def rows(self) -> float:
        """How many rows."""
        return self.count + self.missing

    @property
    def exact(self) -> bool:
        """Whether every level is listed with its count."""
        return not self.sketch

    def as_mapping(self) -> dict[str, float]:
        """Level to count."""
        return dict(zip(self.names, self.counts.tolist(), strict=True))


def ordered_levels(names: Iterable[str], first: Sequence[str] = ()) -> tuple[str, ...]:
    """Levels in display order: those of `first` in their order, then numbers by size where all are numbers, else by text."""
    from discrepancy.comparison.cells.numbers import POINT

    seen = set(names)
    if seen and all(POINT.pattern.fullmatch(name) for name in seen):
        rest = sorted(seen, key=lambda name: (float(name), name))
    else:
        rest = sorted(seen)
    return tuple(name for name in dict.fromkeys([*first, *rest]) if name in seen)


def _listed(sketch: object, missing: float, first: Sequence[str]) -> LevelCounts:
    """The clear levels of an item sketch, each with the least that it can have."""
    kind = datasketches().frequent_items_error_type.NO_FALSE_POSITIVES
    items = sketch.get_frequent_items(kind, 0)  # type: ignore[attr-defined]
    error = float(max((upper - lower for _, _, lower, upper in items), default=0))
    found = [(name, float(lower)) for name, _, lower, _ in items if lower >= _CLEAR * error]
    found = sorted(found, key=lambda item: (-item[1], item[0]))[:LISTED]
    counted = dict(found)
    names = ordered_levels(counted, first)
    counts = np.array([counted[name] for name in names])
    total = float(sketch.total_weight)  # type: ignore[attr-defined]
    return LevelCounts(names, counts, total - float(counts.sum()), missing, error, sketch.serialize())  # type: ignore[attr-defined]


def settled(counts: dict[str, float], missing: float, first: Sequence[str] = (), sketch: bytes = b"") -> LevelCounts:
    """Counts as they are where there are few levels and no sketch; else all of it as a sketch."""
    if not sketch and len(counts) <= MOST_LEVELS:
        names = ordered_levels(counts, first)
        return LevelCounts(names, np.array([float(counts[name]) for name in names]), 0.0, missing)
    items = restored("items", sketch) if sketch else item_sketch()
    for name in sorted(counts):
        if counts[name] > 0:
            items.update(name, int(counts[name]))
    return _listed(items, missing, first)


def merged(a: LevelCounts, b: LevelCounts) -> LevelCounts:
    """Two columns' rows together; exact while both are and their levels are few."""
    missing = a.missing + b.missing
    first = a.names if len(a.names) <= 2 else ()  # truth values keep false before true
    if a.exact and b.exact:
        counts = Counter(a.as_mapping())
        counts.update(b.as_mapping())
        return settled(dict(counts), missing, first)
    if a.sketch and b.sketch:
        items = restored("items", a.sketch)
        items.merge(restored("items", b.sketch))
        return _listed(items, missing, first)
    whole, part = (a, b) if a.exact else (b, a)
    return settled(whole.as_mapping(), missing, first, part.sketch)


class LevelTally:
    """Counts a column's levels as they stream by; beyond 10,000 of them by an item sketch. Memory O(levels)."""

    def __init__(self, first: Sequence[str] = ()) -> None:
        self._first = tuple(first)
        self._counts: Counter[str] = Counter()
        self._missing = 0
        self._sketch: object | None = None

    def add(self, cells: Sequence[str], missing: np.ndarray) -> None:
        """Count cells, "" where `missing` (k,)."""
        gone = int(missing.sum())
        self._missing += gone
        self._counts.update(cells if not gone else (c for c, m in zip(cells, missing.tolist(), strict=True) if not m))
        if self._sketch is None and len(self._counts) <= MOST_LEVELS:
            return
        if self._sketch is None:
            self._sketch = item_sketch()
        for name in sorted(self._counts):
            self._sketch.update(name, self._counts[name])  # type: ignore[attr-defined]
        self._counts.clear()

    def finish(self) -> LevelCounts:
        """What was counted."""
        if self._sketch is not None:
            return _listed(self._sketch, float(self._missing), self._first)
        return settled({name: float(count) for name, count in self._counts.items()}, float(self._missing), self._first)
