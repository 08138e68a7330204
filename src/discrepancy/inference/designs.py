"""What may change places under the null hypothesis: rows, rows inside strata, whole blocks, or partners of a pair.

A design knows how many arrangements there are, draws them uniformly and lists them all. An arrangement is a boolean
row over the pooled sample (x first, then y): true where a row counts as x.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrangements = NDArray[np.bool_]  # (count, n + m)

_COUNTED = 10**9  # beyond this an exact count of arrangements serves nobody
_KEY_BYTES = 2**21  # random keys held at once: they are read three times and should stay in the cache


class Design(ABC):
    """A set of equally likely arrangements of the pooled rows, the observed one among them."""

    words: str

    @property
    @abstractmethod
    def size(self) -> float:
        """How many arrangements there are; infinity stands for more than 1e9."""

    @abstractmethod
    def observed(self) -> Arrangements:
        """The arrangement of the data, (1, n + m)."""

    @abstractmethod
    def draw(self, count: int, rng: np.random.Generator) -> Arrangements:
        """`count` independent uniform arrangements, (count, n + m); the same stream whatever the chunks."""

    @abstractmethod
    def every(self) -> Iterator[NDArray[np.bool_]]:
        """All arrangements one after the other, each (n + m,)."""


class Splits(Design):
    """Units change sample inside their stratum; each stratum keeps its number of units in x.

    unit (N,) is the unit of each pooled row, in_x (U,) whether a unit belongs to x, stratum (U,) its stratum.
    """

    def __init__(self, unit: NDArray[np.int64], in_x: NDArray[np.bool_], stratum: NDArray[np.int64], words: str) -> None:
        self.unit, self.in_x, self.words = unit, in_x, words
        self._rows_are_units = len(in_x) == len(unit)
        order = np.argsort(stratum, kind="stable")
        edges = np.flatnonzero(np.diff(stratum[order])) + 1
        self.strata = np.split(order, edges)

    @property
    def size(self) -> float:
        count = 1
        for members in self.strata:
            count *= _choose(len(members), int(self.in_x[members].sum()))
            if count > _COUNTED:
                return math.inf
        return count

    def _rows(self, units: Arrangements) -> Arrangements:
        return units if self._rows_are_units else units[:, self.unit]

    def observed(self) -> Arrangements:
        return self._rows(self.in_x[None, :])

    def draw(self, count: int, rng: np.random.Generator) -> Arrangements:
        units = np.empty((count, len(self.in_x)), dtype=np.bool_)
        step = max(1, _KEY_BYTES // (8 * len(self.in_x)))
        for start in range(0, count, step):
            block = units[start : start + step]
            # The k units with the smallest of independent 64-bit keys are a uniform subset of k; a tie (probability
            # 1e-15 a row even for 10,000 units) would enlarge the subset, so such rows are drawn again.
            block[:] = self._smallest_keys(len(block), rng)
            while (tied := np.flatnonzero(block.sum(1) != self.in_x.sum())).size:
                block[tied] = self._smallest_keys(len(tied), rng)
        return self._rows(units)

    def _smallest_keys(self, count: int, rng: np.random.Generator) -> Arrangements:
        keys = rng.integers(0, 2**64, size=(count, len(self.in_x)), dtype=np.uint64)
        chosen = np.zeros(keys.shape, dtype=np.bool_)
        for members in self.strata:
            k = int(self.in_x[members].sum())
            if k == 0:
                continue
            part = keys if len(self.strata) == 1 else keys[:, members]
            smallest = part <= np.partition(part, k - 1, axis=1)[:, k - 1 : k]
            if len(self.strata) == 1:
                return smallest
            chosen[:, members] = smallest
        return chosen

    def every(self) -> Iterator[NDArray[np.bool_]]:
        subsets = (itertools.combinations(members.tolist(), int(self.in_x[members].sum())) for members in self.strata)
        for choice in itertools.product(*(list(s) for s in subsets)):
            units = np.zeros(len(self.in_x), dtype=np.bool_)
            units[list(itertools.chain.from_iterable(choice))] = True
            yield units if self._rows_are_units else units[self.unit]


class Swaps(Design):
    """The partners of a pair change places, pair by pair or block of pairs by block.

    unit (n,) is the block of each pair; the pooled rows are x_1..x_n, y_1..y_n.
    """

    def __init__(self, unit: NDArray[np.int64], words: str) -> None:
        self.unit, self.words = unit, words
        self.units = int(unit.max()) + 1

    @property
    def size(self) -> float:
        return 2**self.units if self.units < 30 else math.inf

    def _rows(self, swapped: Arrangements) -> Arrangements:
        moved = swapped[:, self.unit]
        return np.concatenate([~moved, moved], axis=1)

    def observed(self) -> Arrangements:
        return self._rows(np.zeros((1, self.units), dtype=np.bool_))

    def draw(self, count: int, rng: np.random.Generator) -> Arrangements:
        bits = np.empty((count, self.units), dtype=np.bool_)
        step = max(1, _KEY_BYTES // (8 * self.units))
        for start in range(0, count, step):
            block = bits[start : start + step]
            block[:] = rng.integers(0, 2**64, size=block.shape, dtype=np.uint64) >> np.uint64(63)
        return self._rows(bits)

    def every(self) -> Iterator[NDArray[np.bool_]]:
        for bits in itertools.product((False, True), repeat=self.units):
            yield self._rows(np.array([bits]))[0]


def _choose(n: int, k: int) -> int:
    """Binomial coefficient, or the first partial product above the count that anybody needs."""
    result = 1
    for i in range(min(k, n - k)):
        result = result * (n - i) // (i + 1)
        if result > _COUNTED:
            return result
    return result


def make_design(n: int, m: int, *, strata: Any = None, blocks: Any = None, paired: bool = False) -> Design:
    """The design of a permutation test on n rows of x and m rows of y.

    strata, blocks: a pair (of x, of y) of label arrays of lengths n and m. A stratum has the same label in both samples;
    a block lies in one sample (equal labels in x and y name different blocks) and inside one stratum. With paired=True,
    n = m and `blocks` is one array (n,) of labels a pair. Raises ValueError, naming the argument, otherwise.
    """
    if paired:
        if n != m:
            raise ValueError(f"paired=True needs as many rows in y as in x, got {n} and {m}")
        if strata is not None:
            raise ValueError("paired=True already keeps every exchange inside its pair: leave strata out")
        unit = np.arange(n) if blocks is None else _codes(_labels(blocks, n, "blocks"))
        return Swaps(unit, "swaps within pairs" if blocks is None else "swaps of whole blocks of pairs")
    in_x = np.arange(n + m) < n
    unit, words = np.arange(n + m), "rows"
    if blocks is not None:
        block_x, block_y = (_codes(v) for v in _label_pair(blocks, n, m, "blocks"))
        unit = np.concatenate([block_x, block_y + block_x.max() + 1])
        in_x = np.arange(unit.max() + 1) <= block_x.max()
        words = "whole blocks"
    stratum = np.zeros(len(in_x), dtype=np.int64)
    if strata is not None:
        label_x, label_y = _label_pair(strata, n, m, "strata")
        label = _codes(np.concatenate([label_x, label_y]))
        stratum[unit] = label
        split = np.flatnonzero(stratum[unit] != label)
        if split.size:
            raise ValueError(f"a block must lie in one stratum, the block of pooled row {split[0]} lies in two")
        words += " within strata"
    return Splits(unit, in_x, stratum, words)


def _label_pair(labels: Any, n: int, m: int, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    if not isinstance(labels, tuple | list) or len(labels) != 2:
        raise ValueError(f"{name} must be a pair of label arrays, one for x and one for y: {name}=(of_x, of_y)")
    return _labels(labels[0], n, f"{name}[0]"), _labels(labels[1], m, f"{name}[1]")


def _labels(labels: Any, length: int, name: str) -> NDArray[Any]:
    values = np.asarray(labels)
    if values.shape != (length,):
        raise ValueError(f"{name} must have one label for each of the {length} rows, got shape {values.shape}")
    if values.dtype == object:
        values = values.astype(str)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError(f"{name} has missing labels: give those rows a label of their own")
    return values


def _codes(labels: NDArray[Any]) -> NDArray[np.int64]:
    return np.unique(labels, return_inverse=True)[1].astype(np.int64).reshape(-1)
