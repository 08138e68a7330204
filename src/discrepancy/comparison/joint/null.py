"""The null distribution of a difference of unit means: by permuting units, or by multipliers inside each table.

The draws are a function of (seed, number of draws so far) only, so every member of the joint test sees the same ones,
however its columns are blocked, and more draws extend fewer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from discrepancy.comparison.streams import stream

_DRAWS_AT_ONCE = 250
_EXACT_BELOW = 400  # units in all: there float64 is used, so that ties of equal splits are seen as ties


@dataclass(frozen=True)
class Null:
    """How to draw: `sizes` (units_ref + units_cur,) the weight of each unit, the first `count_reference` from reference."""

    sizes: np.ndarray
    count_reference: int
    kind: Literal["permutation", "multiplier"]
    draws: int
    seed: int

    def means(self, sums: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Draws of the means of a quantity with unit sums (units, p) in both tables, each (draws at once, p).

        Permutation: units change tables, `sum over A / size of A` and the same of the rest. Multiplier: inside each table
        exponential multipliers g_u replace the units' weights.
        """
        dtype = np.float64 if len(self.sizes) <= _EXACT_BELOW else np.float32
        sums = np.ascontiguousarray(sums, dtype=dtype)
        sizes = self.sizes
        total, mass = sums.sum(0, dtype=np.float64), sizes.sum()
        k = self.count_reference
        random = stream(self.seed, "joint", "null")
        for start in range(0, self.draws, _DRAWS_AT_ONCE):
            r = min(_DRAWS_AT_ONCE, self.draws - start)
            if self.kind == "permutation":
                chosen = np.zeros((r, len(sizes)), dtype=dtype)
                for row in chosen:
                    row[random.permutation(len(sizes))[:k]] = 1
                size = (chosen @ sizes)[:, None]
                first = (chosen @ sums).astype(np.float64)
                yield first / size, (total - first) / (mass - size)
            else:
                g = random.standard_exponential((r, len(sizes))).astype(dtype)
                first, second = (
                    (g[:, part] @ sums[part]).astype(np.float64) / (g[:, part] @ sizes[part])[:, None]
                    for part in (slice(None, k), slice(k, None))
                )
                yield first, second

    def centre(self, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the draws of `means` scatter about: nothing for permutations, each table's own mean for multipliers."""
        k = self.count_reference
        if self.kind == "permutation":
            return np.zeros(sums.shape[1]), np.zeros(sums.shape[1])
        return tuple(sums[p].sum(0, dtype=np.float64) / self.sizes[p].sum() for p in (slice(None, k), slice(k, None)))  # type: ignore[return-value]

    def differences(self, sums: np.ndarray) -> Iterator[np.ndarray]:
        """Draws of mean_ref - mean_cur, less that of the data where the null is by multipliers: (draws at once, p).

        The sums should be centred near zero, for the sake of float32.
        """
        first, second = self.centre(sums)
        for a, b in self.means(sums):
            yield (a - first) - (b - second)
