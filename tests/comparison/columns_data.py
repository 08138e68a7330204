"""Column pairs made by hand, for the tests of the column statistics."""

from __future__ import annotations

from typing import Any

import numpy as np

from discrepancy.comparison.columns import compare_column
from discrepancy.comparison.model import Column, ColumnPair, ColumnResult, Kind, Options, Units


def ordered(x: Any, y: Any, name: str = "amount", kind: Kind = Kind.NUMERIC) -> ColumnPair:
    """An ordered column; NaN is missing."""
    sides = [np.asarray(v, dtype=np.float64) for v in (x, y)]
    return ColumnPair(name, kind, *(Column(v, np.isnan(v)) for v in sides))


def levels(x: Any, y: Any, names: tuple[str, ...], name: str = "colour", kind: Kind = Kind.CATEGORICAL) -> ColumnPair:
    """A level column from codes; -1 is missing."""
    sides = [np.asarray(v, dtype=np.int64) for v in (x, y)]
    return ColumnPair(name, kind, *(Column(v, v < 0) for v in sides), levels=names)


def rows(pair: ColumnPair) -> Units:
    """Every row a unit."""
    return Units(pair.reference.rows, pair.current.rows)


def compare(pair: ColumnPair, units: Units | None = None, options: Options | None = None, **more: Any) -> ColumnResult:
    """The column compared, by default with rows as units and the default options."""
    return compare_column(pair, units or rows(pair), options or Options(), **more)
