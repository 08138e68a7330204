"""An ordered column in little memory: counts and mean positions between knots, exact at the knots, bounded between them.

With F the number of finite values <= v, a profile knows at each knot v_k the count F(v_k), and between two knots the
integral of F, from the sum of the distances to the right knot: the integral of F over (v_{k-1}, v_k) is
F(v_{k-1}) (v_k - v_{k-1}) + sum over the cell of (v_k - x). So W1 between two columns on the same knots is exact but for
cells in which F - G changes sign.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from discrepancy.comparison.columns import cosine_probabilities
from discrepancy.comparison.profile.sketches import ranks, restored

MOST_DISTINCT = 2048  # distinct values up to which every one is a knot
QUANTILES = 1024  # knots beyond
_SHARED = 256  # knots in common that are enough to compare two columns on


@dataclass(frozen=True)
class OrderedCounts:
    """The finite values of a column by cell, and the cells beside them.

    `knots` (K,) increasing, from the smallest value to the largest; `mass` (K,) values in (v_{k-1}, v_k] (the first cell is
    the smallest value alone); `short` (K,) the sum of v_k - x over the cell. `error` (K,) bounds |F - estimate| at each
    knot, in rows, and `blur` (K,) that of the integral of F over each cell, in rows times units: both 0 where rows were
    counted. `complete`: every distinct value is a knot. `below`, `above`, `missing`: -inf, +inf and missing cells. `mean`,
    `square`: mean and sum of squared deviations. `sketch`: a serialized KLL sketch, empty where none was kept.
    """

    knots: np.ndarray
    mass: np.ndarray
    short: np.ndarray
    error: np.ndarray
    blur: np.ndarray
    complete: bool
    below: float
    above: float
    missing: float
    mean: float
    square: float
    sketch: bytes

    @property
    def count(self) -> float:
        """How many finite values."""
        return float(self.mass.sum())

    @property
    def rows(self) -> float:
        """How many rows."""
        return self.count + self.below + self.above + self.missing

    @property
    def exact(self) -> bool:
        """Whether all counts at the knots are those of the rows."""
        return not self.error.any()

    def integral(self) -> np.ndarray:
        """The integral of F from the smallest value to each knot (K,)."""
        F = np.cumsum(self.mass)
        return np.cumsum(np.concatenate([[0.0], F[:-1] * np.diff(self.knots) + self.short[1:]]))[: len(self.knots)]


def empty(missing: float = 0.0) -> OrderedCounts:
    """A column without a value."""
    none = np.empty(0)
    return OrderedCounts(none, none, none, none, none, True, 0.0, 0.0, missing, 0.0, 0.0, b"")


@dataclass(frozen=True)
class _Reading:
    """F and its integral at some points (W,), with bounds: low <= F <= high, and the integral to within `off`."""

    F: np.ndarray
    low: np.ndarray
    high: np.ndarray
    area: np.ndarray
    off: np.ndarray
    between: np.ndarray


def _read(c: OrderedCounts, w: np.ndarray) -> _Reading:
    """What is known of F and its integral at `w`.

    Inside a cell of mass f and width g the model is f (t/g)^p with the p that has the cell's integral; F itself is only known
    to be monotone with that integral, which bounds it by min(f, short/(g - t)) above and (short - f (g - t))/t below, and
    errors at the knots widen both.
    """
    F, A = np.cumsum(c.mass), c.integral()
    spread = np.cumsum(c.blur)
    k = np.searchsorted(c.knots, w, side="left")
    last = len(c.knots) - 1
    at = np.minimum(k, last)
    on = (k <= last) & (c.knots[at] == w)
    out, left = k > last, (k == 0) & ~on
    inside = ~on & ~out & ~left
    j = np.where(inside, at, min(1, last))
    previous = np.maximum(j - 1, 0)
    f, s = c.mass[j], c.short[j]
    g = np.where(inside, c.knots[j] - c.knots[previous], 1.0)
    t = np.where(inside, w - c.knots[previous], 0.0)
    x = t / g
    base = F[previous]
    if c.complete:
        f, s = np.zeros_like(f), np.zeros_like(s)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        p = np.where(s > 0, f * g / s - 1, np.inf)
        step = np.where(f > 0, f * x ** np.maximum(p, 0.0), 0.0)
        partial = np.where(s > 0, s * x ** (np.maximum(p, 0.0) + 1), 0.0)
        # The rise above the estimate at the left knot may begin at -before and end at f + after; it is monotone, and its
        # integral over the cell is s up to the blur.
        before, after, most, least = c.error[previous], f + c.error[j], s + c.blur[j], s - c.blur[j]
        top = np.minimum(after, np.where(x < 1, (most + before * t) / (g - t), after))
        bottom = np.maximum(-before, np.where(t > 0, (least - after * (g - t)) / t, -before))
    wrong = np.maximum(
        partial - np.maximum(-before * t, least - after * (g - t)), np.minimum(t * top, most + before * (g - t)) - partial
    )
    loose = inside & ((f > 0) | (before + c.error[j] + c.blur[j] > 0)) & (not c.complete)
    reading = _Reading(
        np.where(inside, base + step, F[at]),
        np.where(inside, base + bottom, F[at] - c.error[at]),
        np.where(inside, base + top, F[at] + c.error[at]),
        np.where(inside, A[previous] + base * t + partial, A[at] + np.where(out, (w - c.knots[-1]) * F[-1], 0.0)),
        np.where(inside, spread[previous] + np.maximum(wrong, 0.0), spread[at]),
        loose,
    )
    zero = np.where(left, 0.0, 1.0)
    return replace(
        reading,
        F=reading.F * zero,
        low=reading.low * zero,
        high=reading.high * zero,
        area=reading.area * zero,
        off=reading.off * zero,
    )


def rebinned(c: OrderedCounts, knots: np.ndarray) -> OrderedCounts:
    """The same column on other knots (W,), which must reach from its smallest value to its largest or beyond.

    At its own knots nothing is lost; between them F is interpolated, or read from the sketch where that bounds it better,
    and `error` and `blur` say by how much that may be wrong. O((K + W) log K).
    """
    if len(c.knots) == len(knots) and (c.knots == knots).all():
        return c
    if not len(c.knots):
        zeros = np.zeros(len(knots))
        return replace(c, knots=knots, mass=zeros, short=zeros, error=zeros, blur=zeros)
    r = _read(c, knots)
    F, low, high = r.F, r.low, r.high
    if r.between.any() and c.sketch:
        share, epsilon = ranks(c.sketch, knots)
        if epsilon > 0:
            n = c.count
            better = r.between & (epsilon * n < np.maximum(high - F, F - low))
            F = np.where(better, share * n, F)
            low, high = np.where(better, F - epsilon * n, low), np.where(better, F + epsilon * n, high)
    # Whole rows, in order: half a row more of error where it was interpolated.
    steady = np.maximum.accumulate(np.where(r.between, np.round(F), F))
    error = np.maximum(np.maximum(high - steady, steady - low), 0.0)
    mass = np.diff(steady, prepend=0.0)
    width = np.diff(knots)
    area = np.diff(r.area)
    short = np.concatenate([[0.0], np.clip(area - steady[:-1] * width, 0.0, mass[1:] * width)])
    found = short[1:] + steady[:-1] * width
    # The integral of a monotone function lies between its ends times the width.
    most = np.maximum(width * np.maximum(high[1:], 0.0) - found, found - width * np.maximum(low[:-1], 0.0))
    own = r.off
    moved = np.abs(found - area)
    partial = np.where(r.between, own - _spread_at(c, knots), 0.0)
    known = np.diff(_spread_at(c, knots)) + partial[1:] + partial[:-1] + moved
    exact = (known <= 0) | ~(r.between[1:] | r.between[:-1])
    blur = np.where(exact, np.maximum(known, 0.0), np.minimum(np.maximum(known, 0.0), np.maximum(most, 0.0)))
    if c.complete:  # every value is known: what is left is rounding
        error, blur = np.zeros(len(knots)), np.zeros(len(knots) - 1)
    complete = c.complete and not r.between.any() and bool(np.isin(c.knots, knots).all())
    return replace(c, knots=knots, mass=mass, short=short, error=error, blur=np.concatenate([[0.0], blur]), complete=complete)


def _spread_at(c: OrderedCounts, w: np.ndarray) -> np.ndarray:
    """The blur of all whole cells left of each point."""
    total = np.concatenate([[0.0], np.cumsum(c.blur)])
    k = np.searchsorted(c.knots, w, side="left")
    on = (k < len(c.knots)) & (c.knots[np.minimum(k, len(c.knots) - 1)] == w)
    return total[np.where(on, k + 1, np.where(k == len(c.knots), k, np.maximum(k, 0)))]


def common_knots(a: OrderedCounts, b: OrderedCounts, most: int | None = None) -> np.ndarray:
    """The knots on which to see two columns together, from the smallest value to the largest.

    All of both where each has all its distinct values, and those of the other where one has; the knots that both have, with
    the two ends, where these are 256 or all of one (then no count is interpolated); else the union, which costs each column
    an interpolation at the other's. `most` thins a union to about so many quantiles.
    """
    if not len(a.knots) or not len(b.knots):
        return a.knots if len(a.knots) else b.knots
    union = np.union1d(a.knots, b.knots)
    if a.complete and b.complete and len(union) <= (most or 2 * MOST_DISTINCT):
        return union
    shared = np.intersect1d(a.knots, b.knots)
    ends = union[[0, -1]]
    if a.complete != b.complete:
        return np.union1d(b.knots if a.complete else a.knots, ends)
    if len(shared) >= min(_SHARED, len(a.knots), len(b.knots)):
        return np.union1d(shared, ends)
    if most is None or len(union) <= most:
        return union
    F = np.cumsum(rebinned(a, union).mass + rebinned(b, union).mass)
    at = np.searchsorted(F / F[-1], cosine_probabilities(QUANTILES) - 1e-12)
    return np.union1d(union[np.minimum(at, len(union) - 1)], ends)


def merged(a: OrderedCounts, b: OrderedCounts) -> OrderedCounts:
    """Two columns' rows together, on common knots (at most 2,048): counts, errors and blurs add."""
    knots = common_knots(a, b, MOST_DISTINCT)
    x, y = rebinned(a, knots), rebinned(b, knots)
    n, m = a.count, b.count
    mean, square = a.mean, a.square
    if m > 0:
        gap = b.mean - a.mean
        mean = a.mean + gap * (m / (n + m))
        square = a.square + b.square + gap * gap * (n * m / (n + m))
    sketch = a.sketch if m == 0 else b.sketch if n == 0 else b""
    if n > 0 and m > 0 and a.sketch and b.sketch:
        both = restored("quantiles", a.sketch)
        both.merge(restored("quantiles", b.sketch))
        sketch = both.serialize()
    return OrderedCounts(
        knots, x.mass + y.mass, x.short + y.short, x.error + y.error, x.blur + y.blur,
        a.complete and b.complete and x.complete and y.complete,
        a.below + b.below, a.above + b.above, a.missing + b.missing, mean, square, sketch,
    )  # fmt: skip
