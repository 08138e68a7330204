"""Small tables for the tests of the joint part."""

from __future__ import annotations

import numpy as np

from discrepancy.comparison.model import Column, ColumnPair, Kind, TablePair


def numeric(name: str, x: np.ndarray, y: np.ndarray, **more: object) -> ColumnPair:
    """A numeric column; NaN is missing."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    return ColumnPair(name, Kind.NUMERIC, Column(x, np.isnan(x)), Column(y, np.isnan(y)), **more)  # type: ignore[arg-type]


def levels(name: str, x: np.ndarray, y: np.ndarray, names: tuple[str, ...]) -> ColumnPair:
    """A categorical column from codes; -1 is missing."""
    x, y = np.asarray(x, np.int64), np.asarray(y, np.int64)
    return ColumnPair(name, Kind.CATEGORICAL, Column(x, x < 0), Column(y, y < 0), levels=names)


def matrices(X: np.ndarray, Y: np.ndarray, **more: object) -> TablePair:
    """Columns c0, c1, ... of two matrices."""
    pairs = [numeric(f"c{i}", X[:, i], Y[:, i]) for i in range(X.shape[1])]
    return TablePair(pairs, len(X), len(Y), **more)  # type: ignore[arg-type]
