"""A cost matrix as the exact solver reads it: rows in blocks, single entries, never a whole copy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

_BLOCK = 1 << 19  # entries that a block of converted or gathered rows may hold: 4 MB, which stay in the cache


@dataclass(frozen=True)
class CostMatrix:
    """The costs `values` (n, m) between the chosen `rows` (n',) and `columns` (m',), int64; None chooses all.

    `forbidden=True` reads the matrix as 1 where the cost is +inf and 0 elsewhere. Memory-mapped arrays work: a pass reads
    them once, front to back.
    """

    values: np.ndarray
    rows: np.ndarray | None = None
    columns: np.ndarray | None = None
    forbidden: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """(n', m')."""
        n, m = self.values.shape
        return (n if self.rows is None else len(self.rows), m if self.columns is None else len(self.columns))

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """(number of the first row, block (r, m')) over all rows, contiguous float32 or float64.

        One block, the array itself, where that is what `values` holds; else blocks of 4 MB.
        """
        n, m = self.shape
        values = np.asarray(self.values)
        whole = self.rows is None and self.columns is None and not self.forbidden
        if whole and values.flags.c_contiguous and values.dtype in (np.float32, np.float64):
            yield 0, values
            return
        step = max(1, _BLOCK // m)
        for first in range(0, n, step):
            chosen = slice(first, first + step) if self.rows is None else self.rows[first : first + step]
            yield first, self._read(values[chosen] if self.columns is None else values[chosen][:, self.columns])

    def at(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """The costs of the pairs (i, j), (k,) float64."""
        i = i if self.rows is None else self.rows[i]
        j = j if self.columns is None else self.columns[j]
        return self._read(self.values[i, j]).astype(np.float64, copy=False)

    def part(self, i: np.ndarray, j: np.ndarray | None = None) -> np.ndarray:
        """The costs between rows i and columns j (None: all), a new contiguous array (len(i), len(j))."""
        i = i if self.rows is None else self.rows[i]
        if j is None:
            return self._read(self.values[i] if self.columns is None else self.values[i][:, self.columns])
        return self._read(self.values[np.ix_(i, j if self.columns is None else self.columns[j])])

    def chosen_rows(self, i: np.ndarray) -> CostMatrix:
        """The matrix of the rows i alone, still unread."""
        return replace(self, rows=i if self.rows is None else self.rows[i])

    def _read(self, entries: np.ndarray) -> np.ndarray:
        if self.forbidden:
            return (entries == np.inf).astype(np.float32)
        if entries.dtype not in (np.float32, np.float64):
            entries = entries.astype(np.float64)
        return np.ascontiguousarray(entries)


__all__ = ["CostMatrix"]
