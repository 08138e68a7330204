"""Two columns that are known by counts, as the cells that the column statistics work on, with the error of each statistic.

Every member of the test is a norm of F - G, so by the triangle inequality it is off by no more than the norm of the two
error bounds; they are added, not squared and added, since a bound is not a variance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from discrepancy.comparison.columns import Facts, KnotCounts, Line, Side
from discrepancy.comparison.columns.norms import RARE_VARIANCE
from discrepancy.comparison.model import Kind
from discrepancy.comparison.profile.figures import level_figures, ordered_figures
from discrepancy.comparison.profile.levels import OTHER, LevelCounts
from discrepancy.comparison.profile.ordered import OrderedCounts, common_knots, rebinned
from discrepancy.comparison.profile.profile import ColumnProfile

_SQRT_PI_HALF = math.sqrt(math.pi) / 2
_EXTREME = 1e100
_MOST_ROWS = 900_000_000  # of both tables together, for the draws of tables with fixed margins
_MISSING = "missing"


@dataclass(frozen=True)
class CountedPair:
    """One column of both tables, ready for `compare_counts`."""

    counts: KnotCounts
    facts: Facts
    summary: dict[str, Any]


def counted_pair(a: ColumnProfile, b: ColumnProfile) -> CountedPair:
    """The cells of two aligned columns. O(K log K) for K knots, or linear in the levels."""
    notes = [n for n in dict.fromkeys((a.note, b.note)) if n]
    kind = a.kind if a.kind is b.kind else Kind.NUMERIC if a.kind.ordered else Kind.CATEGORICAL
    if isinstance(a.counts, OrderedCounts) and isinstance(b.counts, OrderedCounts):
        counts, summary = _ordered(a.counts, b.counts, kind)
    else:
        assert isinstance(a.counts, LevelCounts)
        assert isinstance(b.counts, LevelCounts)
        counts, summary = _levels(a.counts, b.counts)
    total = sum(side.total for side in counts.sides)
    if total > _MOST_ROWS:
        # Fewer rows than there are can only widen the interval and raise the p-value.
        times = _MOST_ROWS / total
        counts = replace(counts, reference=_shrunk(counts.reference, times), current=_shrunk(counts.current, times))
        notes.append(f"Tested as if there were {_MOST_ROWS:,} rows in all, which is on the safe side.")
    tested, why = _tested(a, b)
    rows = (round(a.counts.rows), round(b.counts.rows))
    note = " ".join([*([why] if why else []), *notes]) or None
    return CountedPair(counts, Facts(a.name, kind, a.unit or b.unit, tested, rows, rows, note, a.source or b.source), summary)


def _shrunk(side: Side, times: float) -> Side:
    mass = np.diff(np.round(np.cumsum(side.mass) * times), prepend=0.0)
    return Side(mass, mass, round(float(mass.sum())))


def _tested(a: ColumnProfile, b: ColumnProfile) -> tuple[bool, str | None]:
    """Whether a column is in the family, by the rules of a comparison of rows."""
    one, two = a.counts, b.counts
    if one.rows == one.missing and two.rows == two.missing:
        return False, "No value in either table."
    if isinstance(one, OrderedCounts) and isinstance(two, OrderedCounts):
        whole = one.count == one.rows and two.count == two.rows
        if whole and len(one.knots) == len(two.knots) == 1 and one.knots[0] == two.knots[0]:
            return False, "The same constant in both tables."
        if a.kind is Kind.DATETIME and min(one.count, two.count) >= 5:
            if one.knots[-1] < two.knots[0] or two.knots[-1] < one.knots[0]:
                return False, "Moves with time: the periods of the two tables do not overlap, so a difference says nothing."
            if a.moves and b.moves:
                return False, "Moves with time: it runs in one direction through both tables, so a difference says nothing."
        return True, None
    assert isinstance(one, LevelCounts)
    assert isinstance(two, LevelCounts)
    alone = one.exact and two.exact and not one.missing and not two.missing and len(one.names) == len(two.names) == 1
    if alone and one.names == two.names:
        return False, "The same constant in both tables."
    return True, None


def _side(mass: np.ndarray) -> Side:
    return Side(mass, mass, round(float(mass.sum())))


def _ordered(a: OrderedCounts, b: OrderedCounts, kind: Kind) -> tuple[KnotCounts, dict[str, Any]]:
    knots = common_knots(a, b)
    extras = tuple(
        name for name, key in (("-inf", "below"), ("+inf", "above"), (_MISSING, "missing")) if getattr(a, key) or getattr(b, key)
    )
    beside = [np.array([getattr(c, {"-inf": "below", "+inf": "above"}.get(e, e)) for e in extras]) for c in (a, b)]
    if len(knots):
        sides = (rebinned(a, knots), rebinned(b, knots))
        size = max(abs(float(knots[0])), abs(float(knots[-1])))
        factor = 1.0
        if size > _EXTREME or 0 < size < 1 / _EXTREME:
            factor = 2.0 ** min(max(math.floor(math.log2(size)), -1000), 1000)
        line, off = _line(sides, factor)
        errors = _knot_errors(sides, line)
        masses = [c.mass for c in sides]
    else:
        line, factor, errors, off = Line(np.zeros(1), math.nan, 0.0, 0.0), 1.0, {}, 0.0
        masses = [np.zeros(1), np.zeros(1)]
    # Rounding is not an error of the sketch.
    if off > 1e-12 * (abs(float(line.knots[0])) + abs(float(line.knots[-1]))):
        errors["distance"] = off + errors.get("W1", 0.0)
    K = len(masses[0])
    counts = KnotCounts(
        ordered=True,
        values=K,
        extras=extras,
        reference=_side(np.concatenate([masses[0], beside[0]])),
        current=_side(np.concatenate([masses[1], beside[1]])),
        line=line,
        missing_cell=K + extras.index(_MISSING) if _MISSING in extras else None,
        errors=errors,
        factor=factor,
    )
    summary = ordered_figures((a, b), kind)
    summary["sketch_error"] = errors.get("distance", 0.0) * factor
    return counts, summary


def _knot_errors(sides: tuple[OrderedCounts, OrderedCounts], line: Line) -> dict[str, float]:
    """How far W1, A and KS on the knots may be from those of the rows: the norms of the error bounds of F and G."""
    total = np.zeros(len(line.knots))
    for c in sides:
        if c.count > 0:
            total += c.error / c.count
    if not total.any():
        return {}
    e = np.minimum(total[:-1], 1.0)
    pooled = sides[0].mass + sides[1].mass
    N = pooled.sum()
    H = np.cumsum(pooled)[:-1] / N
    pull = (pooled[:-1] / N) / np.maximum(H * (1 - H), 1 / max(N, 1.0))
    return {"W1": float(e @ np.diff(line.knots)), "A": math.sqrt(float(e**2 @ pull)), "KS": float(e.max(initial=0.0))}


def _line(sides: tuple[OrderedCounts, OrderedCounts], factor: float) -> tuple[Line, float]:
    """W1, scale and spread of two columns on common knots, and how far that W1 may be from the one of the rows.

    The integral I of F - G over a cell is known, so the cell adds |I|, exactly, unless F - G may change sign in it. Then it
    lies in [a, b] with a < 0 < b, and of all functions there with that integral the one that jumps between a and b has the
    largest integral of its absolute value; the smallest is |I|.
    """
    knots = sides[0].knots / factor
    spread = _spread(sides, factor)
    if any(c.count <= 0 for c in sides):
        only = next(c for c in sides if c.count > 0)
        F = np.cumsum(only.mass)[:-1] / only.count
        area_of_one = np.diff(only.integral()) / factor / only.count
        return Line(
            knots, math.nan, _SQRT_PI_HALF * 2 * _variation(area_of_one, F, only.mass[1:] / only.count, np.diff(knots)), spread
        ), 0.0
    gaps = np.diff(knots)
    F, G = (np.cumsum(c.mass) / c.count for c in sides)
    step = [c.mass[1:] / c.count for c in sides]
    area = [np.diff(c.integral()) / factor / c.count for c in sides]
    error = [c.error / c.count for c in sides]
    blur = sum(c.blur[1:] / factor / c.count for c in sides)
    net = area[0] - area[1]
    left, right = F[:-1] - G[:-1], F[1:] - G[1:]
    # Inside a cell each distribution function lies between its values at the two ends (the right one not yet reached where
    # every value is a knot).
    jump = [np.where(c.complete, 0.0, s) for c, s in zip(sides, step, strict=True)]
    slack = error[0][:-1] + error[0][1:] + error[1][:-1] + error[1][1:]
    low, high = left - jump[1] - slack, left + jump[0] + slack
    mean = np.divide(net, gaps, out=np.zeros_like(net), where=gaps > 0)
    sure = (low >= 0) | (high <= 0)
    smooth = _absolute(left, right if not all(c.complete for c in sides) else left) * gaps
    inside = np.clip(mean, low, high)
    weight = np.divide(high - inside, high - low, out=np.zeros_like(mean), where=high > low)
    most = (weight * np.abs(low) + (1 - weight) * np.abs(high)) * gaps
    value = np.where(sure, np.abs(net), np.clip(smooth, np.abs(net), np.maximum(most, np.abs(net))))
    off = np.where(sure, 0.0, np.maximum(most - value, value - np.abs(net))) + blur
    H = (F + G) / 2
    scale = _SQRT_PI_HALF * 2 * _variation((area[0] + area[1]) / 2, H[:-1], (jump[0] + jump[1]) / 2, gaps)
    return Line(knots, float(value.sum()), scale, spread), float(off.sum())


def _absolute(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The mean of |linear| from a to b."""
    crosses = a * b < 0
    size = np.abs(a) + np.abs(b)
    return np.where(crosses, (a * a + b * b) / (2 * np.where(size > 0, size, 1.0)), size / 2)


def _variation(area: np.ndarray, H: np.ndarray, step: np.ndarray, gaps: np.ndarray) -> float:
    """The integral of H (1 - H): that of H from the cells' known areas, that of its square by a power law inside a cell.

    H rises by `step` s in a cell as s x^p, with the p that gives the mean rise m: the mean of its square is s^2 m / (2 s - m).
    """
    mean = np.divide(area, gaps, out=H.copy(), where=gaps > 0)
    rise = np.clip(mean - H, 0.0, step)
    curved = np.divide(step**2 * rise, 2 * step - rise, out=np.zeros_like(rise), where=step > 0)
    squared = gaps * (H**2 + 2 * H * rise + curved)
    return float(np.maximum(area - squared, 0.0).sum())


def _spread(sides: tuple[OrderedCounts, OrderedCounts], factor: float) -> float:
    """The standard deviation of the pooled column, from the moments; from the cells where those left the range of numbers."""
    n = sum(c.count for c in sides)
    if n <= 0:
        return 0.0
    if all(math.isfinite(c.square) and math.isfinite(c.mean) for c in sides) and factor == 1.0:
        mean = sum(c.count * c.mean for c in sides) / n
        return math.sqrt(sum(c.square + c.count * (c.mean - mean) ** 2 for c in sides) / n)
    mass = sides[0].mass + sides[1].mass
    short = (sides[0].short + sides[1].short) / factor
    at = sides[0].knots / factor - np.divide(short, mass, out=np.zeros_like(mass), where=mass > 0)
    centred = at - float(mass @ at) / n
    return math.sqrt(float(mass @ centred**2) / n)


def _levels(a: LevelCounts, b: LevelCounts) -> tuple[KnotCounts, dict[str, Any]]:
    listed = a.as_mapping(), b.as_mapping()
    names = tuple(dict.fromkeys([*a.names, *b.names]))
    rest = []
    for own, other in ((a, b), (b, a)):
        # A level that only this table lists, where the other one's list is cut, cannot be told from the rest there.
        rest.append(set(own.names) - set(other.names) if not other.exact else set())
    joined = rest[0] | rest[1]
    kept = tuple(name for name in names if name not in joined)
    masses = []
    for side, counted in zip((a, b), listed, strict=True):
        inside = [counted.get(name, 0.0) for name in kept]
        masses.append(np.array([*inside, side.other + sum(counted.get(name, 0.0) for name in joined)]))
    cut = joined or a.other or b.other
    if not cut:
        masses = [m[:-1] for m in masses]
    else:
        kept = (*kept, OTHER)
    missing = bool(a.missing or b.missing)
    both = [np.append(m, side.missing) if missing else m for m, side in zip(masses, (a, b), strict=True)]
    if not len(both[0]):
        both = [np.zeros(1), np.zeros(1)]
    per = sum(side.error / max(side.rows, 1.0) for side in (a, b))
    errors = {}
    if per > 0:
        # Each listed level may hold up to `error` cells more, all from the rest.
        moved = sum(min(side.error * len(side.names), side.other) / max(side.rows, 1.0) for side in (a, b))
        worst = max(per, moved)  # of one cell: the rest gives up what all listed levels may have more
        errors = {"TV": min(1.0, moved), "M": worst, "S": worst / math.sqrt(RARE_VARIANCE)}
    counts = KnotCounts(
        ordered=False,
        values=len(both[0]),
        extras=(),
        reference=_side(both[0]),
        current=_side(both[1]),
        missing_cell=len(both[0]) - 1 if missing else None,
        errors=errors,
    )
    summary = level_figures(kept, (masses[0], masses[1]), (a, b))
    summary["sketch_error"] = errors.get("TV", 0.0)
    return counts, summary
