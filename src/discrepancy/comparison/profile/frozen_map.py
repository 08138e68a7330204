"""A row as a vector, by a map that was fitted once: normal scores under the profile's own ranks, indicators of its levels.

The same representation as the joint test's pooled one, but frozen: every table that it is applied to is seen alike, so that
sums of features of different tables can be compared and added. Source: Rahimi and Recht (2007) for the features.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from discrepancy.comparison.columns import cosine_probabilities
from discrepancy.comparison.joint.features import Features, feature_map
from discrepancy.comparison.joint.scores import RankMap, rank_map
from discrepancy.comparison.model import Kind
from discrepancy.comparison.profile.plan import Read
from discrepancy.comparison.streams import stream

_RARE = 0.01  # levels below this share are joined, as in the joint test
_KNOTS = 1_024  # knots of a rank map
_ROWS = 1_000  # rows from which the widths of the kernels come
MOST_COORDINATES = 2_000


@dataclass(frozen=True)
class Axis:
    """One column's coordinates: `ranks` for an ordered column, `levels` for the others (the joined rare ones come after
    them if `rare`), and one for missing cells if `missing`. `scale` is 1/sqrt of how many columns came from the same text.
    """

    name: str
    scale: float
    ranks: RankMap | None = None
    levels: tuple[str, ...] = ()
    rare: bool = False
    missing: bool = False

    @property
    def width(self) -> int:
        """How many coordinates."""
        return (self.ranks is not None) + len(self.levels) + self.rare + self.missing

    @cached_property
    def _place(self) -> dict[str, int]:
        return {level: i for i, level in enumerate(self.levels)}

    def __call__(self, column: Read) -> np.ndarray:
        """Coordinates (k, width) of k cells, float32."""
        out = np.zeros((len(column.missing), self.width), dtype=np.float32)
        if self.ranks is not None:
            score = self.ranks(np.asarray(column.values, dtype=np.float64))
            out[:, 0] = np.where(column.missing, 0.0, score) * self.scale
        elif not column.kind.ordered:
            # A level that the map does not know counts with the rare ones, if there are any.
            other = len(self.levels) if self.rare else -1
            at = np.fromiter((self._place.get(c, other) for c in column.values), dtype=np.int64, count=len(column.missing))
            hot = ~column.missing & (at >= 0)
            out[np.flatnonzero(hot), at[hot]] = self.scale / math.sqrt(2)
        if self.missing:
            out[:, -1] = column.missing * (self.scale / math.sqrt(2))
        return out


@dataclass(frozen=True)
class FrozenMap:
    """The axes of all columns that vary, and the features on top of them."""

    axes: tuple[Axis, ...]
    features: Features

    def __call__(self, columns: dict[str, Read], rows: int) -> np.ndarray:
        """Features (k, 768) of k rows, float32; a column that is absent counts as missing."""
        parts = []
        for axis in self.axes:
            column = columns.get(axis.name)
            parts.append(np.zeros((rows, axis.width), dtype=np.float32) if column is None else axis(column))
        return self.features(np.concatenate(parts, axis=1))

    @cached_property
    def identity(self) -> str:
        """A digest: two profiles with the same one can be compared jointly."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(self.features.frequencies.tobytes())
        for axis in self.axes:
            digest.update(repr((axis.name, axis.scale, axis.levels, axis.rare, axis.missing)).encode())
            if axis.ranks is not None:
                digest.update(axis.ranks.knots.tobytes() + axis.ranks.scores.tobytes())
        return digest.hexdigest()


def fit(columns: Sequence[Read], rows: int, seed: int) -> FrozenMap | None:
    """The map from a uniform sample of `rows` rows; None where fewer than two columns vary or there are over 2,000 coordinates.

    Instants take no part. Frequencies come from the stream (seed, "joint", "frequencies"), as in the joint test of rows.
    """
    sources = Counter(c.source for c in columns if c.source is not None)
    axes = []
    for column in columns:
        if column.kind is Kind.DATETIME:
            continue  # whether it moves with time shows only beside the other table
        scale = 1.0 if column.source is None else 1 / math.sqrt(sources[column.source])
        axis = _axis(column, rows, scale)
        if axis is not None:
            axes.append(axis)
    if len(axes) < 2 or rows < 2 or sum(axis.width for axis in axes) > MOST_COORDINATES:
        return None
    picked = np.sort(stream(seed, "joint", "median").choice(rows, min(_ROWS, rows), replace=False))
    by_name = {c.name: c for c in columns}
    x = np.concatenate([axis(by_name[axis.name]) for axis in axes], axis=1)[picked]
    features = feature_map(x, seed)
    return None if features is None else FrozenMap(tuple(axes), features)


def _axis(column: Read, rows: int, scale: float) -> Axis | None:
    gone = bool(column.missing.any())
    if column.kind.ordered:
        present = np.asarray(column.values, dtype=np.float64)[~column.missing]
        ranks = rank_map(present) if len(present) else None
        if ranks is None or ranks.spread == 0:
            return Axis(column.name, scale, missing=True) if gone and len(present) else None
        return Axis(column.name, scale, _thinned(ranks), missing=gone)
    counts = Counter(c for c, m in zip(column.values, column.missing.tolist(), strict=True) if not m)
    common = tuple(sorted(level for level, count in counts.items() if count >= _RARE * rows))
    rare = len(common) < len(counts)
    if len(common) + rare + gone < 2:
        return None
    return Axis(column.name, scale, levels=common, rare=rare, missing=gone)


def _thinned(ranks: RankMap) -> RankMap:
    if len(ranks.knots) <= _KNOTS:
        return ranks
    at = np.unique(np.round(cosine_probabilities(_KNOTS - 1) * (len(ranks.knots) - 1)).astype(np.int64))
    return RankMap(ranks.knots[at], ranks.scores[at], ranks.below, ranks.above, ranks.spread)
