"""Random subsets and multipliers, drawn once and shared by all columns of a comparison.

A permutation is a subset of the pooled rows (or units) that plays the smaller table. The subsets depend on the user's seed
and the two counts only, so a column's p-value does not change when another is left out; what a column draws for itself
(fixed-margin tables, interval noise) comes from its own stream, named by the column.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import combinations

import numpy as np

from discrepancy.comparison.model import Units
from discrepancy.comparison.streams import stream

CHUNK = 200  # draws a chunk: each has its own stream, so that the first R draws are the same for every R
_KEYS_BELOW = 256  # rows up to which subsets come from a sort of random keys
_SPARSE = 0.02  # share of the rows below which a subset is drawn row by row


class Draws:
    """The shared random numbers of one comparison; kept in memory up to `memory` GiB, else drawn again when asked for.

    Same seed, same draws, in whatever order the columns ask.
    """

    def __init__(self, seed: int = 0, memory: float = 0.25) -> None:
        self.seed = seed
        self._room = int(memory * 2**30)
        self._kept: dict[tuple[object, ...], np.ndarray] = {}
        self._units: list[tuple[Units, Units]] = []

    def remembered(self, units: Units, make: Callable[[], Units]) -> Units:
        """What `make` gives for these units, made once."""
        for known, made in self._units:
            if known is units:
                return made
        self._units.append((units, make()))
        return self._units[-1][1]

    def subsets(self, total: int, size: int, draws: int) -> Iterator[np.ndarray]:
        """Uniformly random `size`-subsets of range(total) as index arrays (r, size), in chunks, `draws` in all.

        If there are no more than `draws` different ones, each once instead: see `enumerable`.
        """
        if enumerable(total, size, draws):
            yield self._keep(("all", total, size), lambda: np.array(list(combinations(range(total), size)), dtype=np.int32))
            return
        for start in range(0, draws, CHUNK):
            key = ("subsets", total, size, start // CHUNK)
            yield self._keep(key, lambda key=key: self._subsets(total, size, key))[: draws - start]

    def multipliers(self, table: str, count: int, draws: int) -> Iterator[np.ndarray]:
        """Standard exponential multipliers (r, count) of the rows or units of one table, float32, in chunks."""
        for start in range(0, draws, CHUNK):
            key = ("multipliers", table, count, start // CHUNK)

            def draw(key: tuple[object, ...] = key) -> np.ndarray:
                return self._stream(key).standard_exponential((CHUNK, count), dtype=np.float32)

            yield self._keep(key, draw)[: draws - start]

    def _stream(self, key: tuple[object, ...]) -> np.random.Generator:
        return stream(self.seed, *map(str, key))

    def _keep(self, key: tuple[object, ...], make: Callable[[], np.ndarray]) -> np.ndarray:
        if key in self._kept:
            return self._kept[key]
        made = make()
        if made.nbytes <= self._room:
            self._room -= made.nbytes
            self._kept[key] = made
        return made

    def _subsets(self, total: int, size: int, key: tuple[object, ...]) -> np.ndarray:
        rng = self._stream(key)
        if total <= _KEYS_BELOW:
            return np.argsort(rng.random((CHUNK, total)), axis=1)[:, :size].astype(np.int32)
        out = np.empty((CHUNK, size), dtype=np.int32 if total < 2**31 else np.int64)
        for row in out:
            row[:] = _subset(rng, total, size)
        return out


def enumerable(total: int, size: int, draws: int) -> bool:
    """Whether all splits together are no more than the draws asked for: then each is taken once and the p-value is exact."""
    return total <= 64 and math.comb(total, size) <= draws


def _subset(rng: np.random.Generator, total: int, size: int) -> np.ndarray:
    """One uniformly random subset.

    Rows that pass an independent coin form, given their number, a uniformly random subset; so does what remains when
    uniformly random ones of them are dropped. That is several times as fast as drawing row by row.
    """
    share = size / total
    if share < _SPARSE:
        return rng.choice(total, size, replace=False, shuffle=False)
    coin = min(1.0, share + 4 * math.sqrt(share * (1 - share) / total) + 2**-16)
    threshold = math.ceil(coin * 65536)
    while True:
        if threshold >= 65536:
            passed = np.arange(total)
        else:
            passed = np.flatnonzero(rng.integers(0, 65536, total, dtype=np.uint16) < threshold)
        extra = len(passed) - size
        if extra < 0:
            continue
        if extra:
            keep = np.ones(len(passed), dtype=bool)
            keep[rng.choice(len(passed), extra, replace=False, shuffle=False)] = False
            passed = passed[keep]
        return passed
