"""Spellings that change a value if misread: decimal commas, money, infinities, huge numbers, zones, day and month."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from discrepancy.comparison.model import ColumnPair, Kind, Options, TablePair
from discrepancy.comparison.pairing import read_pair

ROWS = 120


def write(path: Path, name: str, cells: list[str], delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, delimiter=delimiter)
        writer.writerow([name, "other"])
        writer.writerows([cell, i / 3] for i, cell in enumerate(cells))
    return path


def pair_of(folder: Path, one: list[str], two: list[str] | None = None, name: str = "x", **options) -> TablePair:
    two = one if two is None else two
    return read_pair(write(folder / "ref.csv", name, one), write(folder / "cur.csv", name, two), Options(**options))


def cycle(*cells: str, rows: int = ROWS) -> list[str]:
    return [cells[i % len(cells)] for i in range(rows)]


def only(pair: TablePair, name: str = "x") -> ColumnPair:
    return pair.column(name)


def test_decimal_commas_and_thousands(tmp_path: Path) -> None:
    def values(cells: list[str], delimiter: str, beside: str = "0.5") -> tuple[np.ndarray, str | None]:
        path = tmp_path / "t.csv"
        with path.open("w", newline="") as handle:
            writer = csv.writer(handle, delimiter=delimiter)
            writer.writerow(["x", "y"])
            writer.writerows([cell, beside] for cell in cells)
        column = read_pair(path, path, Options()).column("x")
        assert column.kind.ordered
        return column.reference.values, column.note

    assert values(["1,5", "2,25"], ";")[0].tolist() == [1.5, 2.25]
    assert values(["1,234.5", "7"], ",")[0].tolist() == [1234.5, 7]
    assert values(["1.234.567,5", "7,25"], ";")[0].tolist() == [1234567.5, 7.25]
    ambiguous, note = values(["1,234", "5,678"], ",")
    assert ambiguous.tolist() == [1234, 5678]
    assert "1,234 were read with a decimal point" in (note or "")
    assert values(["1,234", "5,678"], ";", beside="0,5")[0].tolist() == [1.234, 5.678]
    assert values(["1.234", "12.345"], ";", beside="0,5")[0].tolist() == [1234, 12345], "points group where commas divide"
    assert values(["1.234", "12.345"], ",", beside="0.5")[0].tolist() == [1.234, 12.345]
    one = write(tmp_path / "ref.csv", "x", cycle("1.5", "2.5"))
    two = write(tmp_path / "cur.csv", "x", cycle("1,5", "2,5"), delimiter=";")
    column = only(read_pair(one, two, Options()))
    np.testing.assert_array_equal(column.reference.values, column.current.values)
    assert "decimal comma" in (column.note or "")


def test_money_and_percent_have_a_unit(tmp_path: Path) -> None:
    column = only(pair_of(tmp_path, cycle("$1,200.50", "$3", "$2")))
    assert (column.kind, column.unit) == (Kind.NUMERIC, "$")
    assert column.reference.values[0] == 1200.5
    assert only(pair_of(tmp_path, cycle("12%", "3.5 %"))).unit == "%"


def test_infinities_are_numbers_and_nan_is_missing(tmp_path: Path) -> None:
    column = only(pair_of(tmp_path, cycle("1.5", "inf", "-Infinity", "NaN")))
    assert column.reference.values[:3].tolist() == [1.5, np.inf, -np.inf]
    assert column.reference.missing[:4].tolist() == [False, False, False, True]
    array = np.array([[1.0, np.inf], [np.nan, 2.0]])
    pair = read_pair(array, array, Options())
    assert pair.columns[0].reference.missing.tolist() == [False, True]
    assert pair.columns[1].reference.values[0] == np.inf


def test_huge_whole_numbers_keep_their_digits(tmp_path: Path) -> None:
    column = only(pair_of(tmp_path, cycle("9007199254740992", "9007199254740993"), kinds={}))
    assert column.levels == ("9007199254740992", "9007199254740993")
    assert "2^53" in (column.note or "")
    big = {"x": np.array([2**63 - 1, 2**63 - 2] * 30)}
    assert read_pair(big, big, Options()).column("x").levels == (str(2**63 - 2), str(2**63 - 1))


def test_zones_go_to_utc_with_a_note(tmp_path: Path) -> None:
    cells = cycle("2024-01-01T12:00:00+02:00", "2024-01-01T08:00:00Z", "2024-01-01T07:00:00-03:00", "2023-01-01T07:00:00Z")
    column = only(pair_of(tmp_path, cells))
    assert column.reference.values[:3].tolist() == [1704103200.0, 1704096000.0, 1704103200.0]
    assert "converted to UTC" in (column.note or "")
    naive = cycle("2024-01-01T12:00:00+02:00", "2024-01-01T08:00:00", "2023-01-01T07:00:00")
    assert "without one were taken as UTC" in (only(pair_of(tmp_path, naive)).note or "")
    early = only(pair_of(tmp_path, cycle("1901-02-03", "1969-12-31", "1899-01-01")))
    assert early.reference.values[1] == -86400


def test_ambiguous_dates_follow_the_other_table_or_are_said(tmp_path: Path) -> None:
    column = only(pair_of(tmp_path, cycle("01/02/2024", "03/02/2024"), cycle("13/02/2024", "01/02/2024")))
    assert column.reference.values[0] == column.current.values[1] == 1706745600.0, "1 February"
    assert "month/day" in (only(pair_of(tmp_path, cycle("01/02/2024", "03/02/2024", "02/02/2024"))).note or "")
