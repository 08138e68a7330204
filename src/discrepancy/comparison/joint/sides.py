"""The rows that the joint test works on: each table's rows in the order of their units, with weights of mean one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from discrepancy.comparison.model import Options, TablePair, Units
from discrepancy.comparison.streams import stream
from discrepancy.comparison.units import coarsen

UNITS_ABOVE = 1_000  # units in the smaller table beyond which the joint test joins them into 500 random groups
GROUPS = 500
MOST_UNITS = 10_500  # in both tables together; a larger table is then sampled
_MOST_COPIES = 4_000_000  # rows that frequency weights may expand to, in both tables together


@dataclass(frozen=True)
class Side:
    """One table: `rows` (k,) its row numbers sorted by unit, `unit` (k,) ids 0..count-1, `weight` (k,) of mean one."""

    rows: np.ndarray
    unit: np.ndarray
    weight: np.ndarray | None
    count: int

    def sizes(self) -> np.ndarray:
        """The weight of each unit, (count,)."""
        return np.bincount(self.unit, weights=self.weight, minlength=self.count).astype(float)

    def sums(self, width: int, values: Callable[[np.ndarray], np.ndarray], chunk: int) -> np.ndarray:
        """Weighted sums over each unit of `values(rows)` (k, width), reading `chunk` rows at a time: (count, width)."""
        total = np.zeros((self.count, width), dtype=np.float32 if self.count * width > 4_000_000 else np.float64)
        for start in range(0, len(self.rows), chunk):
            part = slice(start, start + chunk)
            block = values(self.rows[part])
            if self.weight is not None:
                block = block * self.weight[part, None].astype(block.dtype)
            ids = self.unit[part]
            first = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]])
            total[ids[first]] += block if len(first) == len(ids) else np.add.reduceat(block, first, axis=0)
        return total

    def keep(self, chosen: np.ndarray) -> Side:
        """The side reduced to the units marked in the mask `chosen` (count,), renumbered."""
        number = np.cumsum(chosen) - 1
        rows = chosen[self.unit]
        weight = None if self.weight is None else self.weight[rows]
        return Side(self.rows[rows], number[self.unit[rows]], weight, int(chosen.sum()))

    def some_rows(self, most: int, random: np.random.Generator) -> np.ndarray:
        """Positions into `rows` of a uniform sample of at most `most` of them, in order."""
        k = len(self.rows)
        return np.arange(k) if k <= most else np.sort(random.choice(k, most, replace=False))


def sides(
    table: TablePair, units: Units, options: Options, weights: tuple[np.ndarray | None, np.ndarray | None]
) -> tuple[Side, Side, list[str]]:
    """Both tables' rows by unit, with what was sampled in words.

    More than 1,000 units in the smaller table become 500 random groups of one size, which leaves the test exact and its
    statistic that of all rows; a table of far more units than the other is sampled uniformly, to 20 times the other's
    or 10,000, whichever is more.
    """
    notes: list[str] = []
    rows = (np.arange(table.rows_reference), np.arange(table.rows_current))
    if options.frequency_weights and units.kind in ("rows", "groups"):
        rows, note = _expanded(rows, weights, options)
        weights = (None, None)
        units = replace(
            units, count_reference=len(rows[0]), count_current=len(rows[1]), reference=None, current=None, kind="rows"
        )
        notes += [note] if note else []
    counts = (units.count_reference, units.count_current)
    small, total = min(counts), sum(counts)
    if small > UNITS_ABOVE or (total > MOST_UNITS and small > GROUPS):
        units = coarsen(units, options.seed, above=0, groups=GROUPS)
    built = [
        _side(index, unit, count, weight)
        for index, unit, count, weight in zip(
            rows,
            (units.reference, units.current),
            (units.count_reference, units.count_current),
            weights,
            strict=True,
        )
    ]
    most = max(20 * min(built[0].count, built[1].count), MOST_UNITS - 500)
    for i, name in enumerate(table.names):
        side = built[i]
        if side.count > most:
            chosen = np.zeros(side.count, dtype=bool)
            chosen[stream(options.seed, "joint", "sample", str(i)).choice(side.count, most, replace=False)] = True
            built[i] = side.keep(chosen)
            notes.append(
                f"the joint test uses a uniform sample of {len(built[i].rows):,} rows of {name}, 20 times the other table"
            )
    return built[0], built[1], notes


def _side(rows: np.ndarray, unit: np.ndarray | None, count: int, weight: np.ndarray | None) -> Side:
    if unit is None:
        unit, order = np.arange(len(rows)), slice(None)
    else:
        order = np.argsort(unit, kind="stable")
        unit = unit[order]
    if weight is not None:
        weight = np.asarray(weight, dtype=float)[rows]
        weight = (weight * (len(weight) / weight.sum()))[order]
    return Side(rows[order], unit, weight, count)


def _expanded(
    rows: tuple[np.ndarray, np.ndarray], weights: tuple[np.ndarray | None, np.ndarray | None], options: Options
) -> tuple[tuple[np.ndarray, np.ndarray], str | None]:
    """Each row as often as its frequency weight says; beyond 4 million copies a uniform sample of the copies."""
    counts = [
        np.ones(len(r), dtype=np.int64) if w is None else np.rint(np.asarray(w, dtype=float)).astype(np.int64)
        for r, w in zip(rows, weights, strict=True)
    ]
    total = int(counts[0].sum() + counts[1].sum())
    note = None
    if total > _MOST_COPIES:
        for i, count in enumerate(counts):
            draw = int(_MOST_COPIES * (count.sum() / total))
            random = stream(options.seed, "joint", "copies", str(i))
            counts[i] = random.multivariate_hypergeometric(count, max(draw, 1), method="marginals")
        note = f"the joint test uses a uniform sample of {_MOST_COPIES:,} of the {total:,} rows that the frequency weights count"
    return (np.repeat(rows[0], counts[0]), np.repeat(rows[1], counts[1])), note
