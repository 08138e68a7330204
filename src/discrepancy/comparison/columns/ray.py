"""Intervals by test inversion along the ray t (F_n - G_m), t >= 0.

If the true difference were t times the observed one, the statistic would be T*_t = ||t (F_n - G_m) + B||, B the noise. The
interval holds the t for which the observed T is not extreme, with all of the error on the low side near t = 0, where an
error on the other side is impossible, and half of it far away. Source of the idea: Feldman and Cousins 1998.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

PATHS = 400
_COARSE = 9
_BISECTIONS = 3
_REACH = 8.0  # deviations below T at which the grid begins, when that is above 0


@dataclass
class Ray:
    """The statistics along the ray: `simulate(t)` gives (paths, S) draws of those whose observed values are (S,).

    Evaluations are kept: the coarse grid {0} and nine points around T, and those that bisection adds to it.
    """

    simulate: Callable[[float], np.ndarray]
    observed: np.ndarray
    _kept: dict[float, np.ndarray] = field(default_factory=dict)
    _grid: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        T = float(self.observed[0])
        if not T > 0:
            raise ValueError(f"a ray needs a positive statistic to begin with, got {T!r}")
        sd = float(self._at(1.0)[:, 0].std())
        if sd <= 1e-12 * T:
            # Noise may vanish at t = 1 alone (disjoint levels); if it is nowhere, the observed difference is the true one.
            still = float(self._at(0.5)[:, 0].std()) <= 1e-12 * T
            self._grid = [1.0] if still else np.linspace(0.0, 1.0, _COARSE).tolist()
            return
        start = max(0.0, 1 - _REACH * sd / T)
        self._grid = sorted({0.0, 1.0, *np.linspace(start, 1 + 5 * sd / T, _COARSE).tolist()})

    def _at(self, t: float) -> np.ndarray:
        if t not in self._kept:
            self._kept[t] = self.simulate(t)
        return self._kept[t]

    def _not_below(self, t: float, s: int) -> float:
        """P(T*_t >= T); equality up to rounding counts."""
        return float((self._at(t)[:, s] >= self.observed[s] * (1 - 1e-9)).mean())

    def _not_above(self, t: float, s: int) -> float:
        return float((self._at(t)[:, s] <= self.observed[s] * (1 + 1e-9)).mean())

    def one_sidedness(self, t: float, s: int = 0) -> float:
        """rho(t) = min(1, 2 P(T*_0 >= median T*_t)): 1 at zero, 0 far from it."""
        return min(1.0, 2 * float((self._at(0.0)[:, s] >= np.median(self._at(t)[:, s]) * (1 - 1e-9)).mean()))

    def low(self, s: int = 0, level: float = 0.95) -> float:
        """The smallest t with P(T*_t >= T) >= (1 - level)/2 (1 + rho(t))."""
        half = (1 - level) / 2
        return self._first(lambda t: self._not_below(t, s) - half * (1 + self.one_sidedness(t, s)))

    def high(self, s: int = 0, level: float = 0.95) -> float:
        """The largest t with P(T*_t <= T) >= (1 - level)/2 (1 - rho(t))."""
        half = (1 - level) / 2
        return self._last(lambda t: self._not_above(t, s) - half * (1 - self.one_sidedness(t, s)))

    def median(self, s: int = 0) -> float:
        """The t at which the median of T*_t is the observed T: 0 if T lies below the null median."""
        return self._first(lambda t: float(np.median(self._at(t)[:, s])) - self.observed[s] * (1 - 1e-12))

    def _first(self, f: Callable[[float], float]) -> float:
        """The smallest t with f >= 0, linear between neighbours once the grid is fine enough there."""
        before = None
        for t in self._grid:
            if f(t) >= 0:
                return t if before is None else self._crossing(f, before, t)
            before = t
        return self._grid[-1]

    def _last(self, f: Callable[[float], float]) -> float:
        after = None
        for t in reversed(self._grid):
            if f(t) >= 0:
                return t if after is None else self._crossing(lambda u: -f(u), t, after)
            after = t
        return 0.0

    def _crossing(self, f: Callable[[float], float], left: float, right: float) -> float:
        for _ in range(_BISECTIONS):
            middle = (left + right) / 2
            left, right = (left, middle) if f(middle) >= 0 else (middle, right)
        below, above = f(left), f(right)
        return float(right if above <= below else left + (right - left) * -below / (above - below))
