"""A column in both tables as mass per cell: the one form on which all of its statistics work.

Cells are the knots of an ordered column or the levels of the others, followed by the extra cells "-inf", "+inf" and
"missing" of an ordered column where such rows exist. For level columns missing is a level.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from discrepancy.comparison.columns.knots import Line, place
from discrepancy.comparison.model import Column, ColumnPair, Options, Units

if TYPE_CHECKING:
    from discrepancy.comparison.columns.draws import Draws

MOST_UNITS = 10_500  # units in all up to which a permutation is a product with the matrix of unit masses
_WORKING_UNITS = 2_000  # clusters or blocks in the smaller table beyond which random groups of them are permuted
_MULTIPLIER_ROWS = 20_000  # rows of a table beyond which multipliers are drawn for random groups of rows
_EXTREME = 1e100


@dataclass(frozen=True)
class Side:
    """One table's column: `mass` (C,) per cell and the sum of squared row weights `square` (C,), equal where rows count one.

    `cells` (rows,) and `weights` (rows,), mean one, serve draws that move rows; `units` (U, C), the mass of each unit, those
    that move units. Each is None where it is not needed.
    """

    mass: np.ndarray
    square: np.ndarray
    rows: int
    cells: np.ndarray | None = None
    weights: np.ndarray | None = None
    units: np.ndarray | None = None

    @property
    def total(self) -> float:
        """The mass of all cells."""
        return float(self.mass.sum())

    def effective(self, cells: slice = slice(None)) -> float:
        """The effective number of rows in some cells, (sum w)^2 / sum w^2."""
        square = float(self.square[cells].sum())
        return float(self.mass[cells].sum()) ** 2 / square if square > 0 else 0.0


@dataclass(frozen=True)
class KnotCounts:
    """A column pair as cells, with what may be exchanged under the null.

    ordered: cells 0..values-1 are the knots (K,) `line.knots`; else they are levels. `extras` names the cells after them.
    `missing_cell`: which cell holds the missing rows, None if there are none. `movable`: what a permutation moves. `whole`:
    mass counts rows, so that a row permutation is a fixed-margin table. `dependent`: rows of one unit depend on each other,
    so that standard errors come from unit sums. `errors`: by member, how far a sketched statistic may be from that of the
    rows (deterministic, >= 0), and by "distance" the reported one where it has a bound of its own. `factor`: the power of
    two by which the values were divided.
    """

    ordered: bool
    values: int
    extras: tuple[str, ...]
    reference: Side
    current: Side
    line: Line | None = None
    missing_cell: int | None = None
    movable: Literal["rows", "units"] = "rows"
    null: Literal["permutation", "multiplier"] = "permutation"
    whole: bool = True
    dependent: bool = False
    errors: Mapping[str, float] = field(default_factory=dict)
    factor: float = 1.0

    def __post_init__(self) -> None:
        cells = self.values + len(self.extras)
        for name, side in (("reference", self.reference), ("current", self.current)):
            if side.mass.shape != (cells,) or side.square.shape != (cells,):
                raise ValueError(f"{name} must have one mass for each of the {cells} cells, got shape {side.mass.shape}")
            if (self.movable == "units" or self.dependent) and (side.units is None or side.units.shape[1:] != (cells,)):
                raise ValueError(f"units are to move, so {name} needs the mass of each unit, of shape (units, {cells})")
        if self.values < 1:
            raise ValueError(f"a column has at least one value cell, got {self.values}")
        if self.ordered and (self.line is None or len(self.line.knots) != self.values):
            raise ValueError("an ordered column needs its line, with one knot for each value cell")
        if any(error < 0 for error in self.errors.values()):
            raise ValueError(f"a sketch error is a bound and cannot be negative, got {dict(self.errors)}")

    @property
    def sides(self) -> tuple[Side, Side]:
        """Reference and current."""
        return self.reference, self.current

    @property
    def cells(self) -> int:
        """How many cells."""
        return self.values + len(self.extras)

    @property
    def pooled(self) -> np.ndarray:
        """The pooled mass of each cell (C,)."""
        return self.reference.mass + self.current.mass

    def effective(self) -> tuple[float, float]:
        """The effective numbers of rows with a value in both tables."""
        return self.reference.effective(slice(0, self.values)), self.current.effective(slice(0, self.values))


def row_weights(weights: np.ndarray | None, rows: int, table: str, *, frequency: bool) -> np.ndarray | None:
    """Row weights of one table, scaled to mean one; frequency weights unscaled; None where they say nothing.

    Raises ValueError for a wrong length, a negative or non-finite weight, a zero sum, or frequencies that are not whole.
    """
    if weights is None or rows == 0:
        return None
    w = np.asarray(weights, dtype=np.float64)
    if w.shape != (rows,):
        raise ValueError(f"the weights of {table} must have one entry for each of its {rows} rows, got shape {w.shape}")
    if not np.isfinite(w).all() or (w < 0).any():
        raise ValueError(f"the weights of {table} must be finite and not negative, got a smallest of {w.min()}")
    if not w.sum() > 0:
        raise ValueError(f"the weights of {table} sum to zero: some row must count")
    if frequency:
        if (w != np.round(w)).any():
            raise ValueError(f"frequency weights count rows and must be whole numbers, {table} has {w[w != np.round(w)][0]}")
        return w
    # Divided by the largest first, so that the sum of large weights stays finite.
    w = w / w.max()
    if np.ptp(w) <= 1e-12:
        return None
    return w * (rows / w.sum())


def count_column(
    pair: ColumnPair,
    units: Units,
    options: Options,
    weights: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
    draws: Draws | None = None,
) -> KnotCounts:
    """The cells of a column pair and the mass in them, per row or per unit, whichever its null distribution moves.

    weights: one array a table, on any scale. O(N log N) time, O(N + units x cells) memory for N rows in all.
    """
    pairs = ((pair.reference, weights[0], "reference"), (pair.current, weights[1], "current"))
    w = [row_weights(u, column.rows, name, frequency=options.frequency_weights) for column, u, name in pairs]
    if pair.kind.ordered:
        cells, values, extras, line, factor = _ordered_cells(pair, (w[0], w[1]))
        missing = values + extras.index("missing") if "missing" in extras else None
    else:
        cells, values, extras, missing = _level_cells(pair)
        line, factor = None, 1.0
    counts = KnotCounts(
        ordered=pair.kind.ordered or pair.levels is None,
        values=values,
        extras=extras,
        reference=_side(cells[0], w[0], values + len(extras), options.frequency_weights),
        current=_side(cells[1], w[1], values + len(extras), options.frequency_weights),
        line=line if line is not None else (Line(np.zeros(1), float("nan"), 0.0, 0.0) if pair.levels is None else None),
        missing_cell=missing,
        null=units.null,
        whole=options.frequency_weights or (w[0] is None and w[1] is None),
        factor=factor,
    )
    return _with_units(counts, units, options, draws)


def _finite(column: Column) -> np.ndarray:
    return ~column.missing & np.isfinite(column.values)


def _ordered_cells(
    pair: ColumnPair, w: tuple[np.ndarray | None, np.ndarray | None]
) -> tuple[list[np.ndarray], int, tuple[str, ...], Line, float]:
    """The cell of each row of an ordered column, (v_{k-1}, v_k] for knot k, and the line on which the knots lie."""
    sides = (pair.reference, pair.current)
    finite = [_finite(column) for column in sides]
    x, y = (column.values[keep] for column, keep in zip(sides, finite, strict=True))
    size = max((float(np.abs(v).max()) for v in (x, y) if len(v)), default=0.0)
    factor = 1.0
    if size > _EXTREME or 0 < size < 1 / _EXTREME:
        # Squares and differences of such numbers leave the range of float64; a power of two moves them back exactly.
        factor = 2.0 ** min(max(int(np.floor(np.log2(size))), -1000), 1000)
        x, y = x / factor, y / factor
    line = place(x, y, (None if w[0] is None else w[0][finite[0]], None if w[1] is None else w[1][finite[1]]))
    if not len(line.knots):
        line = replace(line, knots=np.zeros(1))  # no value anywhere: one empty cell
    K = len(line.knots)
    infinite = {
        "-inf": [~c.missing & (c.values == -np.inf) for c in sides],
        "+inf": [~c.missing & (c.values == np.inf) for c in sides],
        "missing": [c.missing for c in sides],
    }
    extras = tuple(name for name, rows in infinite.items() if rows[0].any() or rows[1].any())
    cells = []
    for side, (keep, values) in enumerate(zip(finite, (x, y), strict=True)):
        cell = np.zeros(len(keep), dtype=np.intp)
        cell[keep] = np.searchsorted(line.knots, values, side="left")
        for e, name in enumerate(extras):
            cell[infinite[name][side]] = K + e
        cells.append(cell)
    return cells, K, extras, line, factor


def _level_cells(pair: ColumnPair) -> tuple[list[np.ndarray], int, tuple[str, ...], int | None]:
    """The level of each row, missing being one more; for a kind without levels only present and missing."""
    sides = (pair.reference, pair.current)
    any_missing = bool(pair.reference.missing.any() or pair.current.missing.any())
    if pair.levels is None:
        # What is not compared by value (free text, identifiers) is one knot: only its presence can differ.
        return [c.missing.astype(np.intp) for c in sides], 1, ("missing",) if any_missing else (), 1 if any_missing else None
    L = len(pair.levels)
    cells = [np.where(c.missing, L, c.values).astype(np.intp) for c in sides]
    for cell in cells:
        if len(cell) and (cell.min() < 0 or cell.max() > L):
            raise ValueError(f"the codes of column {pair.name!r} must index its {L} levels, got {cell.min()} to {cell.max()}")
    return cells, L + any_missing, (), L if any_missing else None


def _side(cells: np.ndarray, w: np.ndarray | None, count: int, frequency: bool) -> Side:
    mass = np.bincount(cells, w, minlength=count).astype(np.float64)
    square = mass if w is None or frequency else np.bincount(cells, w * w, minlength=count)
    return Side(mass, square, len(cells), cells, w)


def _with_units(counts: KnotCounts, units: Units, options: Options, draws: Draws | None) -> KnotCounts:
    """Adds the masses of the units where it is units that move."""
    rows = (counts.reference.rows, counts.current.rows)
    if units.null == "multiplier" and units.kind == "rows":
        if max(rows) <= _MULTIPLIER_ROWS:
            return counts
        groups = [_scattered(count, options.seed, name) for count, name in zip(rows, ("reference", "current"), strict=True)]
        return replace(counts, movable="units", **_unit_sides(counts, groups))
    if units.kind == "rows" or units.reference is None or units.current is None:
        return counts
    dependent = units.kind in ("clusters", "blocks")
    if units.kind == "groups" and units.null == "permutation" and counts.whole:
        # Rows are exchangeable too, and where there are few cells a fixed-margin table costs less than groups do.
        few = counts.cells <= 64 or not counts.ordered
        if few or units.count_reference + units.count_current > MOST_UNITS:
            return counts
    if dependent and min(units.count_reference, units.count_current) > _WORKING_UNITS:
        from discrepancy.comparison.units import GROUPS, coarsen

        def make() -> Units:
            return coarsen(units, options.seed, above=_WORKING_UNITS, groups=GROUPS)

        units = draws.remembered(units, make) if draws is not None else make()
    assert units.reference is not None
    assert units.current is not None
    ids = [(units.reference, units.count_reference), (units.current, units.count_current)]
    return replace(counts, movable="units", dependent=dependent, **_unit_sides(counts, ids))


def _scattered(count: int, seed: int, table: str) -> tuple[np.ndarray, int]:
    """Rows in 500 random groups of about one size: enough for multipliers, which are drawn inside each table."""
    from discrepancy.comparison.streams import row_keys
    from discrepancy.comparison.units import GROUPS

    if count <= GROUPS:
        return np.arange(count), count
    return (row_keys(count, seed, "multiplier groups", table) % np.uint64(GROUPS)).astype(np.int64), GROUPS


def _unit_sides(counts: KnotCounts, ids: list[tuple[np.ndarray, int]]) -> dict[str, Side]:
    sides = {}
    for name, side, (unit, number) in zip(("reference", "current"), counts.sides, ids, strict=True):
        assert side.cells is not None
        C = counts.cells
        flat = np.asarray(unit, dtype=np.intp) * C + side.cells
        mass = np.bincount(flat, side.weights, minlength=number * C).astype(np.float64).reshape(number, C)
        sides[name] = replace(side, units=mass)
    return sides


__all__ = ["MOST_UNITS", "KnotCounts", "Side", "count_column", "row_weights"]
