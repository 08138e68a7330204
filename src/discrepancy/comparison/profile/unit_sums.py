"""Random features of rows summed over units: what a profile keeps of the joint distribution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from discrepancy.comparison.profile.frozen_map import FrozenMap
from discrepancy.comparison.profile.plan import Read
from discrepancy.comparison.streams import row_keys
from discrepancy.comparison.units import GROUPS

MOST_FEATURED = 1_000_000  # rows whose features are summed; a larger table is thinned to about so many
_ALONE = 1_000  # rows up to which each is a unit of its own
_MOST_UNITS = 10_000
_FEATURE_ROWS = 10_000  # rows whose features exist at one time


@dataclass(frozen=True)
class UnitSums:
    """Random features of rows summed over units, (U, 768), with the rows in each, (U,), under one frozen map."""

    map: FrozenMap
    sums: np.ndarray
    sizes: np.ndarray


class UnitTally:
    """Sums of features over units of about one size, to which rows are assigned by counter-based random numbers.

    Up to 1,000 rows each is a unit; else there are 500, or as many as make them as large as those of `like`.
    """

    def __init__(self, map_: FrozenMap, rows: int, seed: int, label: str, like: UnitSums | None) -> None:
        self._map, self._seed, self._label = map_, seed, label
        self._share = min(1.0, MOST_FEATURED / max(rows, 1))
        used = round(rows * self._share)
        self._alone = rows <= _ALONE
        self._count = rows if self._alone else GROUPS
        if like is not None:
            size = float(like.sizes.mean())
            wanted = round(used / size)
            if size == 1.0 and rows <= _MOST_UNITS:
                self._alone, self._count = True, rows
            elif size > 1.0 and 2 <= wanted <= _MOST_UNITS:
                self._alone, self._count = False, wanted
        self._sums = np.zeros((self._count, map_.features.width), dtype=np.float64)
        self._sizes = np.zeros(self._count)

    def add(self, columns: dict[str, Read], start: int, rows: int) -> None:
        """Add rows `start` to `start + rows`."""
        if self._alone:
            unit, keep = np.arange(start, start + rows), np.arange(rows)
        else:
            unit = (row_keys(rows, self._seed, "units", self._label, start=start) % np.uint64(self._count)).astype(np.int64)
            keep = np.arange(rows)
            if self._share < 1:
                coin = row_keys(rows, self._seed, "thinned", self._label, start=start)
                keep = np.flatnonzero(coin < np.uint64(int(self._share * 2.0**63) * 2))
        keep = keep[np.argsort(unit[keep], kind="stable")]
        for begin in range(0, len(keep), _FEATURE_ROWS):
            part = keep[begin : begin + _FEATURE_ROWS]
            block = {name: _taken(column, part) for name, column in columns.items()}
            ids = unit[part]
            first = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]])
            self._sums[ids[first]] += np.add.reduceat(self._map(block, len(part)), first, axis=0)
            self._sizes += np.bincount(ids, minlength=self._count)

    def finish(self) -> UnitSums:
        """The sums of the units that have rows."""
        full = self._sizes > 0
        return UnitSums(self._map, self._sums[full].astype(np.float32), self._sizes[full])


def _taken(column: Read, rows: np.ndarray) -> Read:
    values = column.values[rows] if isinstance(column.values, np.ndarray) else [column.values[i] for i in rows.tolist()]
    return column._replace(values=values, missing=column.missing[rows])
