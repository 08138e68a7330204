"""Which pairs of columns changed their dependence: correlations of normal scores, one table against the other.

Scores are ranks inside each table, so that a change of margins alone moves no pair. Source: Klaassen and Wellner (1997)
for the normal-scores correlation; Westfall and Young (1993) for the maximum over pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from discrepancy.comparison.joint.null import Null
from discrepancy.comparison.joint.scores import Representation
from discrepancy.comparison.joint.sides import Side
from discrepancy.comparison.streams import stream

SCREENED_ABOVE = 200  # coordinates beyond which the pairs are chosen on a random tenth of the rows
KEPT_PAIRS = 20_000
_SCREEN_ROWS = 2_000
_ONE = 1 - 1e-6  # correlations are cut here: atanh(1) is infinite, and two copies of one column have r = 1 in both tables


@dataclass(frozen=True)
class PairChanges:
    """The pairs (i, j) of coordinates, what they were and are, and how surprising that is.

    `first`, `second` (p,) coordinates; `before`, `after` (p,) correlations in reference and current; `change` (p,) the
    absolute difference (of atanh r for two scores) and `error` (p,) its standard error; `draws` (R,) the null maxima of
    change / error; `spread` the largest standard deviation of a pair's noise in units of its error (at most 1).
    """

    first: np.ndarray
    second: np.ndarray
    before: np.ndarray
    after: np.ndarray
    change: np.ndarray
    error: np.ndarray
    draws: np.ndarray
    spread: float

    def excess(self, delta: float) -> np.ndarray:
        """(change - delta)/error of each pair, (p,): the member of the joint test is its maximum."""
        return (self.change - delta) / self.error


def pair_changes(representation: Representation, both: tuple[Side, Side], null: Null) -> PairChanges | None:
    """All pairs of coordinates from different columns, or the 20,000 that look most changed where there are over 200.

    Screening reads a random tenth of the units and the test the rest, so the choice costs no error. Time O(rows x pairs +
    R x units x pairs), memory at most some 300 MB. None where no pair can be formed.
    """
    usable, moments = _usable(representation, both)
    if len(usable) < 2:
        return None
    source = np.array([_source(representation, c) for c in representation.owner()])
    if len(usable) <= SCREENED_ABOVE:
        i, j = np.triu_indices(len(usable), 1)
        first, second = usable[i], usable[j]
    else:
        held, both, null = _split(both, null)
        if held is None:
            return None
        first, second = _screen(representation, held, usable, moments, source, null.seed)
        moments = _moments(representation, both)
        varies = (moments[0].spread > 0) & (moments[1].spread > 0)
        keep = varies[first] & varies[second]
        first, second = first[keep], second[keep]
    keep = source[first] != source[second]
    first, second = first[keep], second[keep]
    if len(first) == 0:
        return None
    scores = np.array([c.level is None for c in representation.coordinates])
    gaps = any(m.gaps for m in moments)
    block = max(1, 200_000_000 // (4 * len(null.sizes) * 4))
    parts = []
    for start in range(0, len(first), block):
        chosen = slice(start, start + block)
        parts.append(_changes(representation, both, moments, first[chosen], second[chosen], scores, null, gaps))
    alive = np.concatenate([p.error > 0 for p in parts])
    if not alive.any():
        return None
    joined = {
        name: np.concatenate([getattr(p, name) for p in parts])[alive]
        for name in ("first", "second", "before", "after", "change", "error")
    }
    draws = np.max([p.draws for p in parts], axis=0)
    return PairChanges(**joined, draws=draws, spread=max(p.spread for p in parts))


def _source(representation: Representation, column: int) -> str:
    pair = representation.columns[column]
    return f"derived from {pair.source}" if pair.source is not None else f"column {pair.name}"


@dataclass(frozen=True)
class _Moments:
    """Mean and standard deviation of each coordinate in one table, over the cells present; `gaps`: some are not."""

    mean: np.ndarray
    spread: np.ndarray
    gaps: bool


def _moments(representation: Representation, both: tuple[Side, Side]) -> tuple[_Moments, _Moments]:
    d = representation.width
    found = []
    for current, side in ((False, both[0]), (True, both[1])):
        whole = replace(side, unit=np.zeros(len(side.rows), dtype=np.int64), count=1)

        def powers(rows: np.ndarray, current: bool = current) -> np.ndarray:
            z, present = representation.within(current, rows)
            return np.concatenate([z * present, z * z * present, present], axis=1, dtype=np.float64)

        sums = whole.sums(3 * d, powers, max(1, 8_000_000 // (3 * d)))[0].astype(float)
        count = np.maximum(sums[2 * d :], 1e-300)
        mean = sums[:d] / count
        variance = sums[d : 2 * d] / count - mean**2
        spread = np.sqrt(np.where(variance > 1e-9, variance, 0.0))
        found.append(_Moments(mean, spread, bool(np.any(sums[2 * d :] < float(whole.sizes()[0]) - 0.5))))
    return found[0], found[1]


def _usable(representation: Representation, both: tuple[Side, Side]) -> tuple[np.ndarray, tuple[_Moments, _Moments]]:
    """Coordinates that vary in both tables, one of the two where a column is only a level and its complement."""
    moments = _moments(representation, both)
    varies = (moments[0].spread > 0) & (moments[1].spread > 0)
    owner = representation.owner()
    for column in range(len(representation.columns)):
        own = np.flatnonzero(owner == column)
        if len(own) == 2 and not representation.columns[column].kind.ordered:
            varies[own[1]] = False
    return np.flatnonzero(varies), moments


def _standardised(
    representation: Representation, moments: tuple[_Moments, _Moments], current: bool, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of one table with mean 0 and variance 1 a coordinate, missing cells 0, and which cells are present."""
    z, present = representation.within(current, rows)
    own = moments[int(current)]
    spread = np.where(own.spread > 0, own.spread, 1.0)
    return ((z - own.mean.astype(np.float32)) / spread.astype(np.float32)) * present, present


def _split(both: tuple[Side, Side], null: Null) -> tuple[tuple[Side, Side] | None, tuple[Side, Side], Null]:
    """A random tenth of the units (at least ten of each table) to screen on, and the rest to test on."""
    random = stream(null.seed, "joint", "screen")
    masks = []
    for side in both:
        size = max(10, side.count // 10)
        if side.count < 2 * size:
            return None, both, null
        mask = np.zeros(side.count, dtype=bool)
        mask[random.choice(side.count, size, replace=False)] = True
        masks.append(mask)
    rest = (both[0].keep(~masks[0]), both[1].keep(~masks[1]))
    sizes = np.concatenate([rest[0].sizes(), rest[1].sizes()])
    return (both[0].keep(masks[0]), both[1].keep(masks[1])), rest, replace(null, sizes=sizes, count_reference=rest[0].count)


def _screen(
    representation: Representation,
    held: tuple[Side, Side],
    usable: np.ndarray,
    moments: tuple[_Moments, _Moments],
    source: np.ndarray,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The 20,000 pairs whose correlation differs most on the held-out rows; never more than a block of them in memory."""
    random = stream(seed, "joint", "screen rows")
    tables = []
    for current, side in ((False, held[0]), (True, held[1])):
        rows = side.rows[side.some_rows(_SCREEN_ROWS, random)]
        z = _standardised(representation, moments, current, rows)[0][:, usable]
        norm = np.sqrt((z.astype(np.float64) ** 2).sum(0))
        tables.append((z / np.where(norm > 0, norm, 1.0)).astype(np.float32))
    best = (np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    for start in range(0, len(usable), 512):
        mine = slice(start, min(start + 512, len(usable)))
        before, after = (np.clip(z[:, mine].T @ z[:, start:], -_ONE, _ONE) for z in tables)
        gap = np.abs(np.arctanh(before) - np.arctanh(after))
        i, j = np.nonzero(np.arange(gap.shape[1])[None, :] > np.arange(gap.shape[0])[:, None])
        value, i, j = gap[i, j], usable[i + start], usable[j + start]
        fair = source[i] != source[j]
        best = tuple(np.concatenate([old, new[fair]]) for old, new in zip(best, (value, i, j), strict=True))
        if len(best[0]) > KEPT_PAIRS:
            top = np.argpartition(-best[0], KEPT_PAIRS - 1)[:KEPT_PAIRS]
            best = tuple(part[top] for part in best)
    return best[1], best[2]


def _changes(
    representation: Representation,
    both: tuple[Side, Side],
    moments: tuple[_Moments, _Moments],
    first: np.ndarray,
    second: np.ndarray,
    scores: np.ndarray,
    null: Null,
    gaps: bool,
) -> PairChanges:
    """Correlations, standard errors and null maxima of one block of pairs.

    With sums over the rows that have both cells, r = S_ij / sqrt(S_ii S_jj) in each table, and in each table of a draw:
    they are linear in the units but for this last step, so that the draws go through the same formula as the data. The
    error is that of the pooled correlation rbar: a unit moves r by s_ij/sqrt(S_ii S_jj) - rbar (s_ii/S_ii + s_jj/S_jj)/2,
    and atanh r by that over 1 - rbar^2. Each table's own r would make the error small exactly where few rows of a rare
    level make r large.
    """
    p = len(first)
    sums, number = [], []
    for current, side in ((False, both[0]), (True, both[1])):
        part, count = _unit_products(representation, side, current, moments, first, second, gaps)
        sums.append(part)
        number.append(count)
    joined = np.concatenate(sums)
    k = null.count_reference
    n, m = float(null.sizes[:k].sum()), float(null.sizes[k:].sum())
    curved = scores[first] & scores[second]
    # Where the squares of z_i and z_j stand among the sums: one for each pair if cells are missing, else one a coordinate.
    squares = (p + np.arange(p), 2 * p + np.arange(p)) if gaps else (p + first, p + second)

    def transformed(means: np.ndarray) -> np.ndarray:
        r = _correlation(means, squares)
        return np.where(curved, np.arctanh(r), r)

    at = [joined[:k].sum(0, dtype=np.float64) / n, joined[k:].sum(0, dtype=np.float64) / m]
    change = np.abs(transformed(at[0][None]) - transformed(at[1][None]))[0]
    rbar, influence = _influence(joined, squares, n + m)
    slope = np.where(curved, 1 - rbar**2, 1.0)
    units = len(null.sizes)
    variance = (influence**2).sum(0) / slope**2 * (units / max(units - 1, 1)) / (n + m) * (1 / n + 1 / m)
    # A normal pair has exactly this much: a smaller estimate is chance, or a pair of copies.
    least = (1 / number[0] + 1 / number[1]) * np.where(curved, 1.0, (1 - rbar**2) ** 2)
    error = np.sqrt(np.maximum(variance, least))
    own = [0.0, 0.0] if null.kind == "permutation" else [transformed(a[None]) for a in at]
    draws = np.concatenate(
        [(np.abs((transformed(a) - own[0]) - (transformed(b) - own[1])) / error).max(1) for a, b in null.means(joined)]
    )
    before, after = (_correlation(a[None], squares)[0] for a in at)
    return PairChanges(first, second, before, after, change, error, draws, float(np.sqrt(variance / error**2).max()))


def _unit_products(
    representation: Representation,
    side: Side,
    current: bool,
    moments: tuple[_Moments, _Moments],
    first: np.ndarray,
    second: np.ndarray,
    gaps: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Unit sums of z_i z_j (p), then of the squares, and the effective number of rows with both cells (p,).

    Squares: z_i^2 and z_j^2 over the rows with both cells (2 p) where cells are missing, else z^2 of each coordinate (d).
    """
    p = len(first)

    def products(rows: np.ndarray) -> np.ndarray:
        z, present = _standardised(representation, moments, current, rows)
        zi, zj = z[:, first], z[:, second]
        if not gaps:
            return zi * zj
        pi, pj = present[:, first], present[:, second]
        return np.concatenate([zi * zj, zi * zi * pj, zj * zj * pi, pi * pj], axis=1)

    def squares(rows: np.ndarray) -> np.ndarray:
        return _standardised(representation, moments, current, rows)[0] ** 2

    chunk = max(1, 8_000_000 // (p * (4 if gaps else 1) + representation.width))
    if gaps:
        sums = side.sums(4 * p, products, chunk)
        count = sums[:, 3 * p :].sum(0, dtype=np.float64)
        sums = sums[:, : 3 * p]
    else:
        own = side.sums(representation.width, squares, max(1, 8_000_000 // representation.width))
        sums = np.concatenate([side.sums(p, products, chunk), own], axis=1)
        count = np.full(p, float(side.sizes().sum()))
    effective = 1.0 if side.weight is None else float(side.weight.sum() ** 2 / (side.weight**2).sum()) / len(side.rows)
    return sums, np.maximum(count * effective, 1e-300)


def _correlation(means: np.ndarray, squares: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """r (k, p) from means of products (first p) and of squares, found at `squares`; 0 where one of the two is constant."""
    p = len(squares[0])
    scale = np.sqrt(np.maximum(means[:, squares[0]], 0) * np.maximum(means[:, squares[1]], 0))
    return np.clip(np.where(scale > 0, means[:, :p] / np.where(scale > 0, scale, 1.0), 0.0), -_ONE, _ONE)


def _influence(sums: np.ndarray, squares: tuple[np.ndarray, np.ndarray], size: float) -> tuple[np.ndarray, np.ndarray]:
    """The pooled correlation (p,) and how far each unit moves it, times all rows: (units, p), adding up to 0."""
    total = sums.sum(0, dtype=np.float64)
    rbar = _correlation(total[None] / size, squares)[0]
    left, right = (np.where(total[i] > 0, total[i], 1.0) for i in squares)
    moved = sums[:, : len(rbar)] / np.sqrt(left * right)
    moved -= (sums[:, squares[0]] / left + sums[:, squares[1]] / right) * (rbar / 2)
    return rbar, moved * size
