"""Kinds: decided on both tables pooled, by the same rule whole or in chunks; a difference in kind is an error with its row."""

from __future__ import annotations

import csv
import uuid
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discrepancy.comparison.errors import DataError
from discrepancy.comparison.evidence import gather, merge
from discrepancy.comparison.kinds import decide, words_of
from discrepancy.comparison.model import ColumnPair, Kind, Options, TablePair
from discrepancy.comparison.pairing import read_pair
from discrepancy.comparison.reading.table import text_column

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


@pytest.mark.parametrize(
    ("name", "cells", "kind"),
    [
        ("x", [f"{i / 7:.3f}" for i in range(ROWS)], Kind.NUMERIC),
        ("x", cycle("3", "1", "4", "15"), Kind.INTEGER),
        ("x", cycle("1990", "2001", "2010"), Kind.INTEGER),
        ("zip_code", cycle("10115", "80331", "20095"), Kind.CODE),
        ("PULocationID", cycle("4", "130", "7"), Kind.CODE),
        ("label", cycle("0", "1", "2"), Kind.CODE),
        ("x", cycle("00123", "04567", "11111"), Kind.CODE),
        ("x", cycle("a", "b", "c"), Kind.CATEGORICAL),
        ("x", cycle("A12", "B7", "12"), Kind.CATEGORICAL),
        ("x", cycle("0", "1"), Kind.BOOLEAN),
        ("x", cycle("Yes", "No", "No"), Kind.BOOLEAN),
        ("x", cycle("T", "F"), Kind.BOOLEAN),
        ("x", cycle("F", "M"), Kind.CATEGORICAL),
        ("x", cycle("2024-01-05", "2023-07-01", "2024-03-02"), Kind.DATETIME),
        ("x", cycle("5.1.2024", "1.7.2023", "30.3.2024"), Kind.DATETIME),
        ("date", cycle("20240105", "20230701", "20240302"), Kind.DATETIME),
        ("amount", cycle("20240105", "20230701", "20240302"), Kind.INTEGER),
        ("x", cycle("9007199254740993", "9007199254740995", "123456789012345678901"), Kind.CODE),
        ("x", [f"The parcel number {i} was left with the neighbours at door {i % 7}" for i in range(ROWS)], Kind.TEXT),
        ("x", [f"name{i // 2}" for i in range(2 * ROWS)], Kind.CATEGORICAL),
        ("x", cycle(*[f"surname{i}" for i in range(90)]), Kind.TEXT),
    ],
)
def test_detected_kinds(tmp_path: Path, name: str, cells: list[str], kind: Kind) -> None:
    pair = pair_of(tmp_path, cells, name=name)
    if kind is Kind.TEXT:
        derived = [c for c in pair.columns if c.source == name]
        assert next(c.name for c in derived) == f"{name}: length"
        return
    assert only(pair, name).kind is kind


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("x", [f"u{i}" for i in range(ROWS)]),
        ("x", [str(uuid.UUID(int=i * 7919)) for i in range(ROWS)]),
        ("x", [str(1000 + i) for i in range(ROWS)]),
        ("x", [f"{i:06d}" for i in range(ROWS)]),
        ("x", [str(2**60 + i * i) for i in range(ROWS)]),
        ("customer_id", [str(i * i * 37) for i in range(ROWS)]),
        ("user_id", [str(i * i * 37) for i in range(100)] * 1 + ["0", "37"] * 10),
        ("Unnamed: 0", [str(i) for i in range(ROWS)]),
    ],
)
def test_identifiers_are_left_out_with_a_word(tmp_path: Path, name: str, cells: list[str]) -> None:
    pair = pair_of(tmp_path, cells, name=name)
    assert pair.left_out[name].startswith("identifier: ")
    assert [c.name for c in pair.columns if c.name == name] == []


def test_a_categorical_with_as_many_levels_as_rows_is_an_identifier_and_few_rows_are_not(tmp_path: Path) -> None:
    assert "x" in pair_of(tmp_path, [f"level {i}" for i in range(25)]).left_out
    assert only(pair_of(tmp_path, [f"level {i}" for i in range(10)])).kind is Kind.CATEGORICAL
    amounts = [str(v) for v in np.random.default_rng(0).choice(10**6, ROWS, replace=False)]
    assert only(pair_of(tmp_path, amounts)).kind is Kind.INTEGER, "distinct amounts are no counter"


def test_kinds_are_decided_on_both_tables_pooled(tmp_path: Path) -> None:
    assert only(pair_of(tmp_path, cycle("1", "2"), cycle("1.5", "2"))).kind is Kind.NUMERIC
    assert only(pair_of(tmp_path, cycle("0", "1"), cycle("0", "5"))).kind is Kind.INTEGER
    assert only(pair_of(tmp_path, cycle("1"), cycle("1", "0"))).kind is Kind.BOOLEAN
    assert only(pair_of(tmp_path, cycle("yes", "no"), cycle("yes", "no", "maybe"))).kind is Kind.CATEGORICAL
    assert only(pair_of(tmp_path, cycle("5", "7"), cycle("05", "07"))).kind is Kind.CODE
    assert only(pair_of(tmp_path, cycle("00123", "4"), cycle("A7", "4"))).kind is Kind.CATEGORICAL
    mixed = only(pair_of(tmp_path, cycle("yes", "no"), cycle("TRUE", "false", "0")))
    assert mixed.kind is Kind.BOOLEAN
    assert mixed.levels == ("false", "true")
    assert "spelled in 5 ways" in (mixed.note or "")


def test_all_missing_fits_any_kind(tmp_path: Path) -> None:
    for cells in (cycle("1.5", "2"), cycle("a", "b"), cycle("2024-01-01", "2023-01-02", "2024-01-01"), cycle("yes", "no")):
        for one, two in ((cells, cycle("NA", "")), (cycle("", "null"), cells)):
            column = only(pair_of(tmp_path, one, two))
            assert column.tested
            assert {int(column.reference.missing.sum()), int(column.current.missing.sum())} == {0, ROWS}
    nothing = only(pair_of(tmp_path, cycle("")))
    assert not nothing.tested
    assert nothing.note == "No value in either table."
    assert nothing.reference.missing.all()
    assert nothing.levels == ()


@pytest.mark.parametrize(
    ("one", "two", "says"),
    [
        (cycle("1", "2.5"), [*cycle("1", "2.5")[:50], "unknown", *cycle("1", rows=69)], "cur.csv has 'unknown' in row 51"),
        ([*cycle("1", "2.5")[:50], "unknown", *cycle("1", rows=69)], cycle("1", "2.5"), "ref.csv has 'unknown' in row 51"),
        (cycle("1", "2"), cycle("a", "b"), "numbers in the reference and text in the current table"),
        (cycle("2024-01-05"), [*cycle("2024-01-05"), "soon"], "cur.csv has 'soon' in row 121"),
        (cycle("2024-01-05"), cycle("5", "7"), "dates or times in the reference and numbers in the current table"),
        (cycle("2024-01-05"), cycle("2024-02-30"), "cur.csv has '2024-02-30' in row 1"),
    ],
)
def test_two_kinds_are_an_error_with_the_row_and_the_remedy(tmp_path: Path, one: list[str], two: list[str], says: str) -> None:
    with pytest.raises(DataError) as caught:
        pair_of(tmp_path, one, two)
    assert says in str(caught.value)
    assert "column 'x'" in str(caught.value)
    assert "--kind x=categorical" in str(caught.value)
    column = only(pair_of(tmp_path, one, two, kinds={"x": "categorical"}))
    assert column.kind is Kind.CATEGORICAL, "the remedy that the sentence names works"


def test_mixed_codes_that_happen_to_be_numbers_in_one_table_are_levels(tmp_path: Path) -> None:
    column = only(pair_of(tmp_path, cycle("S", "M", "10", "12"), cycle("10", "12", rows=5)))
    assert column.kind is Kind.CATEGORICAL
    assert column.note is not None
    assert "compared as levels" in column.note


def test_nearly_numbers_are_said(tmp_path: Path) -> None:
    cells = [*cycle("1", "2.5", "3"), "error"]
    column = only(pair_of(tmp_path, cells))
    assert column.kind is Kind.CATEGORICAL
    assert "nearly all cells are numbers" in (column.note or "").lower()


@pytest.mark.parametrize(
    ("kind", "cells", "says"),
    [
        ("numeric", cycle("1", "2", "x"), "'x' in row 3"),
        ("datetime", cycle("2024-01-01", "later"), "'later' in row 2"),
        ("boolean", cycle("yes", "no", "maybe"), "'maybe' in row 3"),
    ],
)
def test_a_kind_that_cells_do_not_fit_is_refused(tmp_path: Path, kind: str, cells: list[str], says: str) -> None:
    with pytest.raises(DataError, match=says):
        pair_of(tmp_path, cells, kinds={"x": kind})


def test_overrides(tmp_path: Path) -> None:
    numbers = cycle("3", "1", "2")
    assert only(pair_of(tmp_path, numbers, kinds={"x": "code"})).levels == ("1", "2", "3")
    assert only(pair_of(tmp_path, cycle("10", "9", "1.50"), kinds={"x": "categorical"})).levels == ("1.50", "9", "10")
    assert only(pair_of(tmp_path, numbers, kinds={"x": "numeric"})).kind is Kind.NUMERIC
    assert pair_of(tmp_path, numbers, kinds={"x": "identifier"}).left_out["x"] == "identifier"
    assert next(c.source for c in pair_of(tmp_path, numbers, kinds={"x": "text"}).columns) == "x"
    identifiers = [f"u{i}" for i in range(ROWS)]
    assert len(only(pair_of(tmp_path, identifiers, kinds={"x": "categorical"})).levels or ()) == ROWS
    for unit in (1, 1000, 10**6, 10**9):
        cells = [str(1_700_000_000 * unit), str(1_600_000_000 * unit)] * 60
        column = only(pair_of(tmp_path, cells, kinds={"x": "datetime"}))
        np.testing.assert_allclose(column.reference.values[:2], [1.7e9, 1.6e9])


def test_a_time_that_moves_on_is_not_tested(tmp_path: Path) -> None:
    january, february = [f"2024-01-{d:02d}" for d in range(1, 32)], [f"2024-02-{d:02d}" for d in range(1, 29)]
    moved = only(pair_of(tmp_path, january, february))
    assert not moved.tested
    assert (moved.note or "").startswith("Moves with time")
    shuffled = list(np.random.default_rng(0).permutation(january))
    assert not only(pair_of(tmp_path, shuffled, list(reversed(february)))).tested, "the periods do not overlap"
    assert not only(pair_of(tmp_path, january, january)).tested, "it runs in one direction through both"
    again = list(np.random.default_rng(1).permutation(january))
    assert only(pair_of(tmp_path, shuffled, again)).tested


def test_constants(tmp_path: Path) -> None:
    for cell in ("1.5", "a", "true", "2024-01-01"):
        same = only(pair_of(tmp_path, cycle(cell)))
        assert not same.tested
        assert same.note == "The same constant in both tables."
        assert only(pair_of(tmp_path, cycle(cell), cycle(cell, "NA"))).tested, "missingness can still differ"
    assert only(pair_of(tmp_path, cycle("1.5"), cycle("2.5"))).tested
    assert only(pair_of(tmp_path, cycle("a"), cycle("b"))).levels == ("a", "b")


def test_levels_are_pooled_in_display_order(tmp_path: Path) -> None:
    column = only(pair_of(tmp_path, cycle("b", "c"), cycle("a", "c", "NA")))
    assert column.levels == ("a", "b", "c")
    assert column.reference.values[:2].tolist() == [1, 2]
    assert column.current.values[:3].tolist() == [0, 2, -1]
    composed = only(pair_of(tmp_path, cycle("caf\u00e9", "x"), cycle("cafe\u0301", "x")))
    assert len(composed.levels or ()) == 2, "what looks equal is equal"
    assert only(pair_of(tmp_path, cycle("Yes ", "No", " Maybe"))).levels == ("Maybe", "No", "Yes")
    code = only(pair_of(tmp_path, cycle("10", "9", "+8"), name="zip"), "zip")
    assert code.levels == ("8", "9", "10")


def test_declared_levels_keep_their_order() -> None:
    pd = pytest.importorskip("pandas")
    pl = pytest.importorskip("polars")
    order = ["low", "mid", "high", "never"]
    frame = pd.DataFrame(
        {"x": pd.Categorical(cycle("high", "low", "mid"), categories=order), "n": pd.Categorical(cycle("2", "10", "1"))}
    )
    frame["n"] = pd.Categorical([int(v) for v in cycle("2", "10", "1")])
    other = pl.DataFrame({"x": pl.Series(cycle("new", "low"), dtype=pl.String), "n": [2, 10] * 60})
    pair = read_pair(frame, other, Options())
    assert pair.column("x").levels == ("low", "mid", "high", "new")
    assert pair.column("n").kind is Kind.CATEGORICAL
    assert pair.column("n").levels == ("1", "2", "10")
    assert pair.column("n").current.values[:2].tolist() == [1, 2]
    enum = pl.DataFrame({"x": pl.Series(cycle("b", "a"), dtype=pl.Enum(["b", "a", "c"]))})
    assert read_pair(enum, enum, Options()).column("x").levels == ("b", "a")
    assert read_pair(enum, enum.to_arrow(), Options()).column("x").levels == ("b", "a")


def test_float_types_that_differ_are_noted() -> None:
    values = np.random.default_rng(0).normal(size=50)
    pair = read_pair({"x": values.astype(np.float32)}, {"x": values}, Options())
    assert "32-bit" in (pair.column("x").note or "")
    assert pair.column("x").reference.values.dtype == np.float64
    assert pair.column("x").reference.values[0] == np.float64(np.float32(values[0]))


def test_the_words_of_a_name() -> None:
    assert words_of("PULocationID") == ["pu", "location", "id"]
    assert words_of("zip_code") == ["zip", "code"]
    assert words_of("HTTPStatus2") == ["http", "status2"]
    assert words_of("Größe") != []


CELLS = [
    "1",
    "0",
    "2.5",
    "00123",
    "1,5",
    "1,234",
    "yes",
    "No",
    "2024-01-05",
    "01/02/2024",
    "a",
    "b c",
    "NA",
    "",
    "inf",
    "$5",
    "20240101",
]


@given(st.lists(st.sampled_from(CELLS), min_size=2, max_size=30), st.integers(1, 29), st.sampled_from(["x", "date", "zip"]))
@settings(max_examples=300, deadline=None)
def test_evidence_of_chunks_decides_as_the_whole_does(cells: list[str], cut: int, name: str) -> None:
    cut = min(cut, len(cells) - 1)
    whole = gather(text_column(cells), name)
    pooled = merge(gather(text_column(cells[:cut]), name), gather(text_column(cells[cut:]), name))
    assert (whole.present, whole.missing, whole.levels) == (
        pooled.present,
        pooled.missing,
        pooled.levels,
    ) or whole.distinct is None
    assert decide(name, whole, whole).kind is decide(name, pooled, pooled).kind
    assert decide(name, whole, whole).sides == decide(name, pooled, pooled).sides
