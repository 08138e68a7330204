"""Comparing inside groups: the parts are the rows, and what has no partner is said."""

from __future__ import annotations

import numpy as np
import pytest

from discrepancy.comparison.errors import OptionError
from discrepancy.comparison.groups import MISSING, by, unmatched
from discrepancy.comparison.model import Column, ColumnPair, Kind, TablePair


def tables() -> TablePair:
    rng = np.random.default_rng(0)
    codes = (np.array([0, 0, 1, 2, -1, 1, 0]), np.array([1, 3, 0, 1, -1]))
    sides = [Column(c, c < 0) for c in codes]
    group = ColumnPair("g", Kind.CATEGORICAL, sides[0], sides[1], levels=("n", "s", "e", "w"))
    x, y = rng.normal(size=7), rng.normal(size=5)
    value = ColumnPair("v", Kind.NUMERIC, Column(x, np.isnan(x)), Column(y, np.isnan(y)))
    flat = ColumnPair(
        "k",
        Kind.NUMERIC,
        Column(np.where(codes[0] == 1, 5.0, x), np.zeros(7, bool)),
        Column(np.where(codes[1] == 1, 5.0, y), np.zeros(5, bool)),
    )
    weights = {"weights_reference": np.arange(7.0), "cluster_current": np.arange(5), "cluster_reference": np.arange(7)}
    return TablePair([group, value, flat], 7, 5, **weights, notes=["said once"])  # type: ignore[arg-type]


def test_parts_hold_their_rows_with_weights_and_clusters():
    table = tables()
    parts = by(table, "g")
    assert list(parts) == ["n", "s", MISSING]
    south = parts["s"]
    assert (south.rows_reference, south.rows_current) == (2, 2)
    assert [c.name for c in south.columns] == ["v", "k"]
    v = table.column("v")
    assert np.array_equal(south.column("v").reference.values, v.reference.values[[2, 5]])
    assert np.array_equal(south.column("v").current.values, v.current.values[[0, 3]])
    assert south.weights_reference is not None
    assert south.cluster_current is not None
    assert south.weights_reference.tolist() == [2.0, 5.0]
    assert south.cluster_current.tolist() == [0, 3]
    assert south.weights_current is None
    assert south.notes == []
    assert (parts[MISSING].rows_reference, parts[MISSING].rows_current) == (1, 1)


def test_a_constant_inside_a_group_is_not_tested_there():
    parts = by(tables(), "g")
    assert not parts["s"].column("k").tested
    assert parts["n"].column("k").tested


def test_groups_without_a_partner_are_named():
    notes = unmatched(tables(), "g")
    assert notes == [
        "vanished groups of 'g', only in reference and so not compared: 'e'",
        "new groups of 'g', only in current and so not compared: 'w'",
    ]


def test_what_makes_no_groups_is_refused():
    with pytest.raises(OptionError, match="no common column; there are g, v, k"):
        by(tables(), "nope")
    with pytest.raises(OptionError, match="makes no groups"):
        by(tables(), "v")
    table = tables()
    split = ColumnPair(
        "g",
        Kind.CATEGORICAL,
        Column(np.zeros(7, int), np.zeros(7, bool)),
        Column(np.ones(5, int), np.zeros(5, bool)),
        levels=("a", "b"),
    )
    with pytest.raises(OptionError, match="no value of it is in both"):
        by(TablePair([split, *table.columns[1:]], 7, 5), "g")
