"""A metric graph as plain arrays: what the solvers of flows read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class Network:
    """n vertices and edges tail -> head (E,) int64 with lengths l (E,) > 0 and measures w (E,) > 0 in float64.

    A flow J (E,) is positive along the edge; it delivers (A J)_i = sum over edges into i minus sum over edges out of i.
    """

    n: int
    tail: np.ndarray
    head: np.ndarray
    lengths: np.ndarray
    measures: np.ndarray

    @cached_property
    def components(self) -> np.ndarray:
        """The component (n,) of each vertex, numbered from 0. O(n + E)."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        ones = np.ones(len(self.tail), np.int8)
        return connected_components(coo_array((ones, (self.tail, self.head)), shape=(self.n, self.n)), directed=False)[1]

    @cached_property
    def count(self) -> int:
        """The number of components."""
        return int(self.components.max(initial=-1)) + 1

    def delivered(self, flow: np.ndarray) -> np.ndarray:
        """A J (n,): what a flow (E,) brings to each vertex."""
        return np.bincount(self.head, flow, self.n) - np.bincount(self.tail, flow, self.n)

    def slopes(self, f: np.ndarray) -> np.ndarray:
        """(f_head - f_tail) / l, (E,)."""
        return (f[self.head] - f[self.tail]) / self.lengths

    def centred(self, f: np.ndarray) -> np.ndarray:
        """f (n,) with mean zero on every component."""
        sums, sizes = np.bincount(self.components, f, self.count), np.bincount(self.components, minlength=self.count)
        return f - (sums / sizes)[self.components]

    def energy_root(self, slopes: np.ndarray, p: float) -> float:
        """(sum_e w_e |slope_e|^p)^(1/p), the largest slope for p = inf; no power over- or underflows."""
        size = np.abs(slopes)
        top = float(size.max(initial=0.0))
        if top == 0.0 or np.isinf(p):
            return top
        return top * float(self.measures @ (size / top) ** p) ** (1 / p)


@dataclass(frozen=True, eq=False)
class Flow:
    """What a solver hands back for one signed measure: a potential (n,), a flow (E,) that delivers it, and how it went."""

    potential: np.ndarray
    flow: np.ndarray
    iterations: int
    converged: bool
    rung: str


__all__ = ["Flow", "Network"]
