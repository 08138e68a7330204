"""Counting an ordered column as its values stream by, in memory that does not grow with them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from discrepancy.comparison.columns import choose_knots
from discrepancy.comparison.profile.ordered import MOST_DISTINCT, QUANTILES, OrderedCounts, empty
from discrepancy.comparison.profile.sketches import quantile_sketch


class OrderedTally:
    """Counts a column's values as they stream by: each distinct value up to 2,048 of them, then cells between knots.

    `knots` are used from the start where given (to match another profile's cells), `fallback` once there are too many
    distinct values. `sketch`: keep a KLL sketch too. O(log K) a value, O(K) memory.
    """

    def __init__(self, fallback: np.ndarray, knots: np.ndarray | None = None, *, sketch: bool = True) -> None:
        self._knots = fallback if knots is None else knots
        self._binned = knots is not None
        self._values, self._counts = np.empty(0), np.empty(0)
        self._mass, self._short = np.zeros(len(self._knots)), np.zeros(len(self._knots))
        self._over = self._over_sum = self._under = self._under_sum = self._at_low = 0.0
        self._low, self._high = np.inf, -np.inf
        self._below = self._above = self._missing = self._n = self._mean = self._square = 0.0
        self._sketch = quantile_sketch() if sketch else None

    def add(self, values: np.ndarray) -> None:
        """Count values (k,), NaN being missing."""
        gone = np.isnan(values)
        self._missing += int(gone.sum())
        self._below += int((values == -np.inf).sum())
        self._above += int((values == np.inf).sum())
        x = values[np.isfinite(values)]
        if not len(x):
            return
        x = x + 0.0  # -0.0 is 0.0
        if self._sketch is not None:
            self._sketch.update(np.ascontiguousarray(x))
        n, total = len(x), self._n + len(x)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float((x / n).sum())
            gap = mean - self._mean
            self._square += float(((x - mean) ** 2).sum()) + gap * gap * (self._n * n / total)
            self._mean += gap * (n / total)
        self._n = total
        if self._binned:
            self._bin(x, None)
            return
        values, counts = np.unique(x, return_counts=True)
        joined = np.concatenate([self._values, values])
        distinct, inverse = np.unique(joined, return_inverse=True)
        self._counts = np.bincount(inverse, np.concatenate([self._counts, counts]), minlength=len(distinct))
        self._values = distinct
        if len(distinct) > MOST_DISTINCT:
            self._binned = True
            self._bin(self._values, self._counts)
            self._values = self._counts = np.empty(0)

    def _bin(self, x: np.ndarray, counts: np.ndarray | None) -> None:
        ones = np.ones(len(x)) if counts is None else counts
        low = float(x.min())
        if low < self._low:
            self._low, self._at_low = low, 0.0
        self._at_low += float(ones[x == self._low].sum())
        self._high = max(self._high, float(x.max()))
        first, last = self._knots[0], self._knots[-1]
        under, over = x < first, x > last
        self._under += float(ones[under].sum())
        self._under_sum += float((ones[under] * (first - x[under])).sum())
        self._over += float(ones[over].sum())
        self._over_sum += float((ones[over] * (x[over] - last)).sum())
        keep = ~(under | over)
        x, ones = x[keep], ones[keep]
        cell = np.searchsorted(self._knots, x, side="left")
        self._mass += np.bincount(cell, ones, minlength=len(self._knots))
        self._short += np.bincount(cell, ones * (self._knots[cell] - x), minlength=len(self._knots))

    def finish(self) -> OrderedCounts:
        """What was counted."""
        if not self._n:
            return empty(self._missing) if not (self._below or self._above) else replace(
                empty(self._missing), below=self._below, above=self._above
            )  # fmt: skip
        if not self._binned:
            knots, mass, complete = self._values, self._counts.astype(np.float64), True
            short = np.zeros(len(knots))
        else:
            knots, mass, short, complete = self._knots, self._mass, self._short, False
            if self._under:
                # Cells (low, first) and the smallest value itself.
                inner = self._under - self._at_low
                gap = self._under_sum - self._at_low * (knots[0] - self._low)
                knots = np.concatenate([[self._low], knots])
                mass = np.concatenate([[self._at_low, inner + mass[0]], mass[1:]])
                short = np.concatenate([[0.0, max(gap, 0.0)], short[1:]])
            if self._over:
                knots = np.append(knots, self._high)
                mass = np.append(mass, self._over)
                short = np.append(short, max(0.0, self._over * (self._high - knots[-2]) - self._over_sum))
        zeros = np.zeros(len(knots))
        return OrderedCounts(
            knots, mass, short, zeros, zeros, complete, self._below, self._above, self._missing,
            float(self._mean), float(self._square), b"" if self._sketch is None else self._sketch.serialize(),
        )  # fmt: skip


def knots_of_sample(values: np.ndarray) -> np.ndarray:
    """Knots from a sample of a column's values: cosine-spaced quantiles and heavy values of what is finite in it."""
    finite = np.sort(values[np.isfinite(values)] + 0.0)
    return choose_knots(finite, most=QUANTILES, quantiles=QUANTILES) if len(finite) else np.zeros(1)
