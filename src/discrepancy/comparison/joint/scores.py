"""Mixed columns on one scale: normal scores for ordered columns, scaled indicators for levels and for missing cells.

Two representations. The *pooled* one feeds the kernels: ranks over both tables, so that permutations stay exact and no
column dominates by its unit or its outliers. The *within* one feeds the pairs: ranks inside each table, so that margins
are equal by construction and what is left is dependence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from discrepancy.comparison.model import Column, ColumnPair, Kind
from discrepancy.comparison.streams import stream

_RARE = 0.01  # levels below this share of the pooled rows are joined
_EXACT = 65_536  # distinct values kept one by one; beyond, quantile knots
_KNOTS = 16_384
_READ = 524_288  # rows of a table from which a map of ranks is made; more change a rank by less than 0.002


@dataclass(frozen=True)
class RankMap:
    """Values to normal scores of their mid-ranks under one law: linear between knots, with scores for the infinities.

    `spread` is the standard deviation of the score under that law.
    """

    knots: np.ndarray
    scores: np.ndarray
    below: float
    above: float
    spread: float

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Scores (k,) of values (k,); NaN where the value is NaN."""
        if len(self.knots) == 0:
            scores = np.where(np.isnan(values), np.nan, 0.0)
        else:
            scores = np.interp(values, self.knots, self.scores)  # NaN stays NaN; infinities are overwritten below
        if not np.isfinite(values).all():
            scores = np.where(values == np.inf, self.above, np.where(values == -np.inf, self.below, scores))
        return scores


def rank_map(values: np.ndarray, weights: np.ndarray | None = None) -> RankMap:
    """The map v -> Phi^-1(H(v-) + h(v)/2) of the weighted law H of values without NaN; O(k log k)."""
    from scipy.special import ndtri

    distinct, inverse = np.unique(values, return_inverse=True)
    mass = np.bincount(inverse, weights=weights, minlength=len(distinct)).astype(float)
    mass /= mass.sum()
    # Mid-ranks lie in (0, 1) unless a weight is 0: such a value has no score of its own and takes the nearest knot's.
    positive = mass > 0
    distinct, mass = distinct[positive], mass[positive]
    scores = ndtri(np.clip(np.cumsum(mass) - mass / 2, 2.0**-50, 1 - 2.0**-50))
    centre = float(mass @ scores)
    spread = math.sqrt(max(float(mass @ scores**2) - centre**2, 0.0))
    below = float(scores[0])
    above = float(scores[-1])
    finite = np.isfinite(distinct)
    distinct, scores, mass = distinct[finite], scores[finite], mass[finite]
    if len(distinct) > _EXACT:
        # Dense in the tails, where a score moves fastest with the rank.
        at = (1 - np.cos(np.pi * np.arange(1, _KNOTS) / _KNOTS)) / 2
        cumulated = np.cumsum(mass) / mass.sum()
        keep = np.unique(np.r_[0, np.searchsorted(cumulated, at), len(distinct) - 1])
        distinct, scores = distinct[keep], scores[keep]
    return RankMap(distinct, scores, below, above, spread)


@dataclass(frozen=True)
class Coordinate:
    """One coordinate of a row: a column's score (`level` None), or the indicator of a level or of a missing cell."""

    column: int
    level: str | None


@dataclass(frozen=True)
class _Levels:
    """Indicators of one column: `table` (levels + 1, k) turns a code into its row of indicators, missing (-1) the last."""

    table: np.ndarray


@dataclass(frozen=True)
class Representation:
    """Both tables as vectors of d coordinates, made a few rows at a time.

    `columns` those that vary, `coordinates` (d) what each coordinate is, `scale` (columns) the factor that lets the
    columns derived from one text count as one.
    """

    columns: tuple[ColumnPair, ...]
    coordinates: tuple[Coordinate, ...]
    scale: np.ndarray
    _pooled: tuple[RankMap | None, ...]
    _within: tuple[tuple[RankMap, RankMap] | None, ...]
    _levels: tuple[_Levels, ...]

    @property
    def width(self) -> int:
        """How many coordinates there are."""
        return len(self.coordinates)

    def owner(self) -> np.ndarray:
        """The number of each coordinate's column, (d,)."""
        return np.array([c.column for c in self.coordinates])

    def pooled(self, current: bool, rows: np.ndarray) -> np.ndarray:
        """Rows of one table for the kernels, float32 (k, d): pooled normal scores, indicators over sqrt 2, missing 0."""
        parts = []
        for i, pair in enumerate(self.columns):
            column = pair.current if current else pair.reference
            score = self._pooled[i]
            if score is not None:
                block = score(column.values[rows])
                block[column.missing[rows]] = 0.0
                parts.append(block[:, None] * self.scale[i])
            parts.append(self._levels[i].table[_codes(pair, column, rows)] * (self.scale[i] / math.sqrt(2)))
        return np.concatenate(parts, axis=1, dtype=np.float32)

    def within(self, current: bool, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of one table for the pairs, float32 (k, d) each: scores inside that table (missing 0) and which are present."""
        parts, present = [], []
        for i, pair in enumerate(self.columns):
            column = pair.current if current else pair.reference
            maps = self._within[i]
            if maps is not None:
                score = maps[1] if current else maps[0]
                gone = column.missing[rows]
                block = score(column.values[rows])
                block[gone] = 0.0
                parts.append(block[:, None])
                present.append(~gone[:, None])
            hot = self._levels[i].table[_codes(pair, column, rows)]
            parts.append(hot)
            present.append(np.ones(hot.shape, dtype=bool))
        return np.concatenate(parts, axis=1, dtype=np.float32), np.concatenate(present, axis=1, dtype=np.float32)


def _codes(pair: ColumnPair, column: Column, rows: np.ndarray) -> np.ndarray:
    """Row numbers of the indicator table: the level's code, -1 where missing; 0 or -1 for an ordered column."""
    if pair.kind.ordered:
        return np.where(column.missing[rows], -1, 0)
    return np.where(column.missing[rows], -1, column.values[rows]).astype(np.int64)


def represent(
    columns: list[ColumnPair], weights: tuple[np.ndarray | None, np.ndarray | None], rows: tuple[int, int], seed: int
) -> Representation:
    """The representation of those tested columns that vary over both tables together.

    weights: row weights of mean one in each table (or how many rows each stands for), or None. Identifiers, free text and
    columns out of the family (equal constants, datetimes that move with time) take no part; text does through its derived
    columns. O(columns N log N).
    """
    mass = sum(float(n) if w is None else float(w.sum()) for n, w in zip(rows, weights, strict=True))
    used, coordinates, pooled_maps, within_maps, tables = [], [], [], [], []
    for pair in columns:
        if not pair.tested or pair.kind in (Kind.TEXT, Kind.IDENTIFIER):
            continue
        number = len(used)
        sides = (pair.reference, pair.current)
        gone = sum(_mass(c.missing, w) for c, w in zip(sides, weights, strict=True)) / mass
        pooled, within, names = None, None, []
        if pair.kind.ordered:
            samples = [_present(c, w, seed, pair.name, i) for i, (c, w) in enumerate(zip(sides, weights, strict=True))]
            if all(len(values) for values, _ in samples):
                joined = rank_map(np.concatenate([s[0] for s in samples]), _joined_weights(samples))
                if joined.spread > 0:
                    pooled = joined
                    within = (rank_map(*samples[0]), rank_map(*samples[1]))
            table = np.zeros((2, int(gone > 0)), dtype=np.float32)
            if gone > 0:
                table[-1, 0] = 1.0
        else:
            table, names = _indicators(pair, weights)
            gone = gone if gone > 0 and len(names) else 0.0
            if gone > 0:
                table = np.c_[table, np.zeros(len(table), dtype=np.float32)]
                table[-1, -1] = 1.0
        varies = (
            pooled is not None or (pair.kind.ordered and 0 < gone < 1) or (not pair.kind.ordered and len(names) + (gone > 0) > 1)
        )
        if not varies:
            continue
        used.append(pair)
        if pooled is not None:
            coordinates.append(Coordinate(number, None))
        coordinates += [Coordinate(number, name) for name in names]
        if gone > 0:
            coordinates.append(Coordinate(number, "missing"))
        pooled_maps.append(pooled)
        within_maps.append(within)
        tables.append(_Levels(table))
    sources = [pair.source for pair in used]
    scale = np.array([1.0 if s is None else 1 / math.sqrt(sources.count(s)) for s in sources])
    return Representation(tuple(used), tuple(coordinates), scale, tuple(pooled_maps), tuple(within_maps), tuple(tables))


def _mass(mask: np.ndarray, weight: np.ndarray | None) -> float:
    return float(np.count_nonzero(mask)) if weight is None else float(weight[mask].sum())


def _present(column: Column, weight: np.ndarray | None, seed: int, name: str, table: int) -> tuple[np.ndarray, np.ndarray | None]:
    """The present values with their weights; of a long table a uniform sample, since ranks are all that is wanted.

    The sample keeps the table's mass, so that the pooled law stays that of the two tables at their own sizes.
    """
    index = np.flatnonzero(~column.missing)
    if len(index) <= _READ:
        return column.values[index], None if weight is None else weight[index]
    drawn = index[stream(seed, "joint", "ranks", name, str(table)).integers(0, len(index), _READ)]
    own = np.ones(_READ) if weight is None else weight[drawn]
    return column.values[drawn], own * (len(index) / _READ)


def _joined_weights(samples: list[tuple[np.ndarray, np.ndarray | None]]) -> np.ndarray | None:
    if all(w is None for _, w in samples):
        return None
    return np.concatenate([np.ones(len(v)) if w is None else w for v, w in samples])


def _indicators(pair: ColumnPair, weights: tuple[np.ndarray | None, np.ndarray | None]) -> tuple[np.ndarray, list[str]]:
    """Indicators of a column's levels, (levels + 1, k) float32, and their names; levels under 1 % are joined into one."""
    levels = pair.levels or ()
    mass = np.zeros(len(levels))
    rows = 0.0
    for column, weight in zip((pair.reference, pair.current), weights, strict=True):
        here = ~column.missing
        mass += np.bincount(
            column.values[here].astype(np.int64), weights=None if weight is None else weight[here], minlength=len(levels)
        )
        rows += column.rows if weight is None else float(weight.sum())
    common = np.flatnonzero(mass >= _RARE * rows)
    rare = np.flatnonzero((mass < _RARE * rows) & (mass > 0))
    table = np.zeros((len(levels) + 1, len(common) + (len(rare) > 0)), dtype=np.float32)
    table[common, np.arange(len(common))] = 1.0
    names: list[str] = [str(levels[c]) for c in common]
    if len(rare):
        table[rare, -1] = 1.0
        names.append(str(levels[rare[0]]) if len(rare) == 1 else f"{len(rare)} rare levels")
    return table, names
