"""The null distribution of a column's statistics: what they would be if both tables came from one population.

Rows move as shuffled labels, or as tables with fixed margins, which have the same law and cost the number of cells rather
than that of rows; units move as a product of a random 0/1 matrix with the matrix of unit masses; where weights make the
tables unequal, each is resampled inside itself by exponential multipliers and its own difference subtracted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from discrepancy.comparison.columns.counts import KnotCounts, Side
from discrepancy.comparison.columns.draws import CHUNK, Draws, enumerable
from discrepancy.comparison.columns.norms import Norms
from discrepancy.comparison.streams import stream

_TABLE_CELL = 165.0  # nanoseconds a cell of a fixed-margin table (measured)
_SHUFFLED_ROW = 4.0  # nanoseconds a row of the smaller table under shuffled labels (measured)
_DRAWN_ROW = 1.0  # nanoseconds a row of both for drawing the labels, which several columns share
_MOST_TABLE_ROWS = 10**9  # NumPy's hypergeometric draws stop there
_CHUNK_CELLS = 2**24  # cells a chunk of draws, 128 MiB of float64


@dataclass(frozen=True)
class NullSample:
    """Statistics under the null (R, S); `exact`: every split once, the observed one included, so p-values have no error."""

    values: np.ndarray
    exact: bool = False


def null_sample(
    norms: Norms,
    permutations: int,
    draws: Draws,
    name: str,
    *,
    enough: Callable[[np.ndarray], bool] = lambda values: False,
) -> NullSample:
    """Draws every statistic of a column under its null, `permutations` times or once for every split if there are fewer.

    name: names the column's own stream. enough: asked once, after the first 200 draws, whether to stop there. Time
    O(R (rows + cells)) by labels, O(R cells) by tables, O(R units cells) by units; memory O(200 cells).
    """
    counts = norms.counts
    exact = False
    if counts.null == "multiplier":
        shift = norms.observed()
        differences = (norms.difference(a, b) - shift for a, b in _multiplied(counts, permutations, draws))
    else:
        masses, exact = _permuted(counts, permutations, draws, name)
        differences = (norms.split(a) for a in masses)
    parts: list[np.ndarray] = []
    for difference in differences:
        parts.append(norms.values(difference))
        if not exact and len(parts) == 1 and enough(parts[0]):
            break
    return NullSample(np.concatenate(parts), exact)


def _permuted(counts: KnotCounts, permutations: int, draws: Draws, name: str) -> tuple[Iterator[np.ndarray], bool]:
    """Masses under exchange (r, C) of the subset that plays the smaller table, and whether they are all there are."""
    sizes = [_movables(side, counts) for side in counts.sides]
    small, total = min(sizes), sum(sizes)
    if counts.movable == "units":
        return _unit_masses(counts, draws.subsets(total, small, permutations)), enumerable(total, small, permutations)
    if counts.reference.cells is None or counts.current.cells is None or _tables_cost_less(counts, total, small, permutations):
        return _tables(counts, permutations, draws, name), False
    return _shuffled(counts, draws.subsets(total, small, permutations)), enumerable(total, small, permutations)


def _movables(side: Side, counts: KnotCounts) -> int:
    if counts.movable == "units":
        assert side.units is not None
        return len(side.units)
    return side.rows


def _tables_cost_less(counts: KnotCounts, total: int, small: int, permutations: int) -> bool:
    if not counts.whole:
        return False
    if counts.reference.weights is not None or counts.current.weights is not None:
        return True  # frequency weights: a row stands for many, which labels cannot split
    if counts.pooled.sum() >= _MOST_TABLE_ROWS or enumerable(total, small, permutations):
        return False
    return counts.cells * _TABLE_CELL < small * _SHUFFLED_ROW + total * _DRAWN_ROW


def _tables(counts: KnotCounts, permutations: int, draws: Draws, name: str) -> Iterator[np.ndarray]:
    pooled = np.round(counts.pooled).astype(np.int64)
    if pooled.sum() >= _MOST_TABLE_ROWS:
        raise ValueError(
            f"{name}: tables with fixed margins hold fewer than {_MOST_TABLE_ROWS:,} rows, got {pooled.sum():,} (frequency "
            "weights count as rows): compare random groups or a sample of the rows"
        )
    size = round(min(side.total for side in counts.sides))
    # Frequent cells first: NumPy stops at the last row, and rare cells are then often spared.
    order = np.argsort(-pooled, kind="stable")
    step = _chunk(counts)
    for start in range(0, permutations, step):
        rng = stream(draws.seed, name, "tables", str(start // step))
        a = np.empty((step, counts.cells))
        a[:, order] = rng.multivariate_hypergeometric(pooled[order], size, size=step, method="marginals")
        yield a[: permutations - start]


def _chunk(counts: KnotCounts) -> int:
    """Draws a chunk: fewer where there are very many cells."""
    return max(1, min(CHUNK, _CHUNK_CELLS // max(counts.cells, 1)))


def _shuffled(counts: KnotCounts, subsets: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    reference, current = counts.sides
    assert reference.cells is not None
    assert current.cells is not None
    cells = np.concatenate([reference.cells, current.cells])
    weights = None
    if reference.weights is not None or current.weights is not None:
        weights = np.concatenate([np.ones(side.rows) if side.weights is None else side.weights for side in counts.sides])
    C = counts.cells
    for subset in _cut(subsets, _chunk(counts)):
        a = np.empty((len(subset), C))
        # Few rows: one call for many draws; many rows: one call a draw keeps its table in the cache.
        step = max(1, 4_000 // max(subset.shape[1] + C, 1))
        for start in range(0, len(subset), step):
            rows = subset[start : start + step]
            flat = cells[rows] + C * np.arange(len(rows))[:, None] if step > 1 else cells[rows]
            w = None if weights is None else weights[rows].ravel()
            a[start : start + step] = np.bincount(flat.ravel(), w, minlength=len(rows) * C).reshape(len(rows), C)
        yield a


def _cut(chunks: Iterator[np.ndarray], rows: int) -> Iterator[np.ndarray]:
    """The same rows in chunks of at most `rows`."""
    for chunk in chunks:
        for start in range(0, len(chunk), rows):
            yield chunk[start : start + rows]


def _unit_masses(counts: KnotCounts, subsets: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    reference, current = counts.sides
    assert reference.units is not None
    assert current.units is not None
    masses = np.concatenate([reference.units, current.units])
    # Whole numbers below 2^24 are exact in float32, whose product is twice as fast.
    dtype = np.float32 if counts.whole and masses.sum() < 2**24 else np.float64
    masses = masses.astype(dtype)
    for rows in _cut(subsets, _chunk(counts)):
        chosen = np.zeros((len(rows), len(masses)), dtype=dtype)
        np.put_along_axis(chosen, rows.astype(np.int64), 1, axis=1)
        yield (chosen @ masses).astype(np.float64)


def _multiplied(counts: KnotCounts, permutations: int, draws: Draws) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Both tables resampled inside themselves: g_i w_i with standard exponential g_i, one a row or unit."""
    sizes = [_movables(side, counts) for side in counts.sides]
    streams = [draws.multipliers(name, n, permutations) for name, n in zip(("reference", "current"), sizes, strict=True)]
    step = _chunk(counts)
    for g, k in zip(*(_cut(chunks, step) for chunks in streams), strict=True):
        yield _weighed(counts.reference, g, counts), _weighed(counts.current, k, counts)


def _weighed(side: Side, g: np.ndarray, counts: KnotCounts) -> np.ndarray:
    if counts.movable == "units":
        assert side.units is not None
        return g.astype(np.float64) @ side.units
    assert side.cells is not None
    weights = g if side.weights is None else g * side.weights
    return np.stack([np.bincount(side.cells, w, minlength=counts.cells) for w in weights])
