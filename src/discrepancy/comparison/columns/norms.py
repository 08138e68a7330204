"""The members of a column's test: norms of the difference F - G of two distributions on common cells.

Ordered columns: W1 = sum |F - G| gap, A = sqrt(sum h (F - G)^2 / (H (1 - H))), KS = max |F - G|, and the share of each extra
cell. Level columns: TV = sum |p - q| / 2, M = max |p - q|, S = max |p - q| / sqrt(max(h (1 - h), 0.0025)). A difference is
one row (D,) of numbers: F - G at all knots but the last, or p - q at each level, then the shares of the extra cells.
Sources: Anderson and Darling (1952); Scholz and Stephens (1987); Kantorovich's W1 on the line.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from discrepancy.comparison.columns.counts import KnotCounts

RARE_VARIANCE = 0.0025  # below this h (1 - h), S measures a level's change in rows and no longer in its own deviations
DEFAULT_DELTA = {"W1": 0.02, "A": 0.015, "KS": 0.01, "TV": 0.01, "M": 0.01, "S": 0.07}
SHARE_DELTA = 0.01


class Norms(ABC):
    """The statistics of one column; the first is its distance. `tested` says which of them are members of the test."""

    def __init__(self, counts: KnotCounts) -> None:
        self.counts = counts

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The statistics, in the order of the values."""

    @property
    def tested(self) -> tuple[bool, ...]:
        """Which statistics are members of the test."""
        return (True,) * len(self.names)

    @abstractmethod
    def difference(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """F_a - F_b of masses a (r, C), b (r, C): (r, D). A table without rows to speak of differs by 0."""

    @abstractmethod
    def split(self, a: np.ndarray) -> np.ndarray:
        """The same for b = pooled - a, at half the cost: F_a - F_b = F_a (1/|a| + 1/|b|) - H / |b| in masses."""

    @abstractmethod
    def values(self, difference: np.ndarray) -> np.ndarray:
        """All statistics of differences (r, D): (r, S)."""

    @abstractmethod
    def deltas(self, size: float | None) -> np.ndarray:
        """The minimum effect of each statistic (S,), for a minimum effect in size units or the documented defaults."""

    @abstractmethod
    def deviations(self) -> np.ndarray:
        """The largest standard deviation of a linear functional in each norm's dual ball (S,), for independent rows."""

    def observed(self) -> np.ndarray:
        """F_n - G_m of the data (D,)."""
        reference, current = self.counts.sides
        return self.difference(reference.mass[None], current.mass[None])[0]

    def radius(self) -> float:
        """sqrt(1/n_eff + 1/m_eff): the size of the noise of a difference of two means of unit variance."""
        n, m = self.counts.effective()
        return float(np.sqrt(1 / n + 1 / m)) if n > 0 and m > 0 else float("inf")

    def share_radius(self) -> float:
        """The same for shares of all rows, those without a value included."""
        n, m = (side.effective() for side in self.counts.sides)
        return float(np.sqrt(1 / n + 1 / m)) if n > 0 and m > 0 else float("inf")


def _inverse(total: np.ndarray) -> np.ndarray:
    """1/total, and 0 where there is nothing to divide."""
    return np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)


class OrderedNorms(Norms):
    """W1, A, KS and the shares of the extra cells."""

    def __init__(self, counts: KnotCounts) -> None:
        super().__init__(counts)
        assert counts.line is not None
        pooled = counts.pooled
        inside = pooled[: counts.values]
        total = inside.sum()
        self._mass = np.cumsum(inside)
        H = self._mass[:-1] / total if total > 0 else np.zeros(counts.values - 1)
        h = inside[:-1] / total if total > 0 else H
        gaps = np.diff(counts.line.knots)
        # H (1 - H) >= 1/N - 1/N^2 at every knot but the last: the floor is no more than that.
        pull = h / np.maximum(H * (1 - H), 1 / max(total, 1.0))
        self.gaps = gaps  # v_{k+1} - v_k (K - 1,)
        self._pull = pull

    @property
    def names(self) -> tuple[str, ...]:
        return ("W1", "A", "KS", *self.counts.extras)

    @property
    def tested(self) -> tuple[bool, ...]:
        """All; of a column without any value in one table, the shares alone: there is no second distribution."""
        both = min(side.mass[: self.counts.values].sum() for side in self.counts.sides) > 0
        return (both, both, both, *(True for _ in self.counts.extras))

    def difference(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        K = self.counts.values
        F, G = np.cumsum(a[:, :K], axis=1), np.cumsum(b[:, :K], axis=1)
        one, two = _inverse(F[:, -1:]), _inverse(G[:, -1:])
        inside = F[:, :-1] * one
        inside -= G[:, :-1] * two
        return self._with_extras(inside, (one == 0) | (two == 0), a, b)

    def split(self, a: np.ndarray) -> np.ndarray:
        K = self.counts.values
        F = np.cumsum(a[:, :K], axis=1)
        one, two = _inverse(F[:, -1:]), _inverse(np.maximum(self._mass[-1] - F[:, -1:], 0.0))
        inside = F[:, :-1]
        inside *= one + two
        inside -= self._mass[:-1] * two
        return self._with_extras(inside, (one == 0) | (two == 0), a, None)

    def _with_extras(self, inside: np.ndarray, void: np.ndarray, a: np.ndarray, b: np.ndarray | None) -> np.ndarray:
        """Appends the differences of the extra cells' shares; rows of `void` (r, 1) have no distribution to compare."""
        inside[void[:, 0]] = 0.0
        if not self.counts.extras:
            return inside
        K = self.counts.values
        rest = self.counts.pooled - a if b is None else b
        shares = a[:, K:] * _inverse(a.sum(1, keepdims=True)) - rest[:, K:] * _inverse(rest.sum(1, keepdims=True))
        return np.concatenate([inside, shares], axis=1)

    def values(self, difference: np.ndarray) -> np.ndarray:
        knots = self.counts.values - 1
        size = np.abs(difference)
        inside = size[:, :knots]
        out = np.empty((len(difference), 3 + len(self.counts.extras)))
        out[:, 0] = inside @ self.gaps
        out[:, 2] = inside.max(1, initial=0.0)
        out[:, 3:] = size[:, knots:]
        np.multiply(inside, inside, out=inside)
        out[:, 1] = np.sqrt(inside @ self._pull)
        return out

    def deltas(self, size: float | None) -> np.ndarray:
        assert self.counts.line is not None
        times = 1.0 if size is None else size / DEFAULT_DELTA["W1"]
        own = [DEFAULT_DELTA["W1"] * self.counts.line.scale, DEFAULT_DELTA["A"], DEFAULT_DELTA["KS"]]
        return times * np.array([*own, *[SHARE_DELTA] * len(self.counts.extras)])

    def deviations(self) -> np.ndarray:
        assert self.counts.line is not None
        r, share = self.radius(), self.share_radius()
        return np.array([r * self.counts.line.spread, r * np.sqrt(0.5), r / 2, *[share / 2] * len(self.counts.extras)])


class LevelNorms(Norms):
    """TV, M, S; and the share of missing rows, which is followed but not a member, since missing is a level."""

    def __init__(self, counts: KnotCounts) -> None:
        super().__init__(counts)
        pooled = counts.pooled
        total = pooled.sum()
        h = pooled / total if total > 0 else pooled
        self._scale = 1 / np.sqrt(np.maximum(h * (1 - h), RARE_VARIANCE))

    @property
    def names(self) -> tuple[str, ...]:
        return ("TV", "M", "S", *(("missing",) if self.counts.missing_cell is not None else ()))

    @property
    def tested(self) -> tuple[bool, ...]:
        return (True, True, True, *((False,) if self.counts.missing_cell is not None else ()))

    def difference(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        one, two = _inverse(a.sum(1, keepdims=True)), _inverse(b.sum(1, keepdims=True))
        out = a * one - b * two
        out[((one == 0) | (two == 0))[:, 0]] = 0.0
        return out

    def split(self, a: np.ndarray) -> np.ndarray:
        return self.difference(a, self.counts.pooled - a)

    def values(self, difference: np.ndarray) -> np.ndarray:
        size = np.abs(difference)
        out = np.empty((len(difference), len(self.names)))
        out[:, 0] = size.sum(1) / 2
        out[:, 1] = size.max(1, initial=0.0)
        if self.counts.missing_cell is not None:
            out[:, 3] = size[:, self.counts.missing_cell]
        size *= self._scale
        out[:, 2] = size.max(1, initial=0.0)
        return out

    def deltas(self, size: float | None) -> np.ndarray:
        times = 1.0 if size is None else size / DEFAULT_DELTA["TV"]
        own = [DEFAULT_DELTA["TV"], DEFAULT_DELTA["M"], DEFAULT_DELTA["S"]]
        return times * np.array([*own, *[SHARE_DELTA] * (len(self.names) - 3)])

    def deviations(self) -> np.ndarray:
        r = self.radius()
        return np.array([r / 2, r / 2, r, *[r / 2] * (len(self.names) - 3)])


def norms_of(counts: KnotCounts) -> Norms:
    """The statistics for these cells."""
    return OrderedNorms(counts) if counts.ordered else LevelNorms(counts)
