"""Columns that are odd: no value in one table, only infinities, constants, extreme magnitudes."""

from __future__ import annotations

import numpy as np
import pytest

from discrepancy import compare


def test_a_column_that_vanished_is_as_sure_as_its_rows_allow():
    """All 800 against none: the shares alone are tested, and nothing bounds their p-value from below but the rows."""
    g = np.random.default_rng(0)
    noise = g.normal(size=800)
    report = compare({"gone": g.normal(size=800), "kept": noise}, {"gone": np.full(800, np.nan), "kept": noise + 0.0})
    gone = next(c for c in report.columns if c.name == "gone")
    assert gone.drift
    assert gone.p_value is not None
    assert gone.p_value < 1e-20
    assert [m.name for m in gone.members] == ["missing"]
    assert gone.driver == "missing"
    assert gone.distance is None


def test_infinities_that_change_sign_are_drift_without_a_finite_value():
    g = np.random.default_rng(1)
    noise = g.normal(size=300)
    report = compare({"x": np.full(300, np.inf), "y": noise}, {"x": np.full(300, -np.inf), "y": noise})
    x = next(c for c in report.columns if c.name == "x")
    assert x.drift
    assert {m.name for m in x.members} == {"+inf", "-inf"}


@pytest.mark.parametrize("factor", [1e300, 1e-300, 1e150, 1e-150])
def test_magnitude_changes_no_verdict(factor: float):
    g = np.random.default_rng(2)
    a, b = g.normal(size=400), g.normal(size=400) + 0.5
    plain = compare({"x": a}, {"x": b}).columns[0]
    scaled = compare({"x": a * factor}, {"x": b * factor}).columns[0]
    assert plain.drift
    assert scaled.drift
    assert scaled.size == pytest.approx(plain.size, rel=1e-6)
    assert scaled.size_high == pytest.approx(plain.size_high, rel=1e-6)
    assert plain.distance is not None
    assert scaled.distance == pytest.approx(plain.distance * factor, rel=1e-9)


def test_a_configuration_for_all_columns_serves_some_of_them():
    """`--config` from init names every column's kind; with `--columns` most of them are not read."""
    g = np.random.default_rng(3)
    a, b = ({"x": g.normal(size=60), "y": g.normal(size=60), "k": g.integers(0, 3, 60)} for _ in range(2))
    kinds = {"x": "numeric", "y": "numeric", "k": "code"}
    report = compare(a, b, columns=("x",), kinds=kinds, deltas={"y": 0.1})
    assert [c.name for c in report.columns] == ["x"]
    with pytest.raises(ValueError, match="kinds names the column 'z', which is in neither table"):
        compare(a, b, kinds={"z": "numeric"})


def test_one_constant_in_both_tables_is_exactly_the_same():
    """800 times 3.3 has a mean that differs from 3.3 by rounding: no interval may come of that."""
    x = np.random.default_rng(4).normal(size=800)
    column = next(c for c in compare({"c": np.full(800, 3.3), "x": x}, {"c": np.full(800, 3.3), "x": x}).columns if c.name == "c")
    assert (column.distance, column.low, column.high, column.scale) == (0.0, 0.0, 0.0, 0.0)
