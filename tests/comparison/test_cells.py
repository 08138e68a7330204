"""Numbers, dates and truth values in text, against NumPy, the standard library and the values they were written from."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discrepancy.comparison.cells.hashes import fingerprints
from discrepancy.comparison.cells.instants import (
    COMPACT,
    DAY_FIRST,
    INSTANT_FORMATS,
    ISO,
    MONTH_FIRST,
    fast_iso,
    instant_facts,
    read_instants,
)
from discrepancy.comparison.cells.numbers import (
    COMMA,
    GROUPED_POINT,
    NUMBER_FORMATS,
    POINT,
    SPACED_COMMA,
    SPACED_POINT,
    merge_numbers,
    number_facts,
    read_numbers,
)
from discrepancy.comparison.cells.truths import is_boolean, truth_levels, truth_words
from discrepancy.comparison.reading.table import RawColumn, text_column


def text(*cells: str) -> np.ndarray:
    out = np.empty(len(cells), dtype=object)
    out[:] = cells
    return out


def facts(*cells: str):
    column = text_column(list(cells))
    return number_facts(column.values, plain=column.plain is not None)


@pytest.mark.parametrize(
    ("cell", "form", "value"),
    [
        ("12", POINT, 12),
        ("+1.5e-3", POINT, 0.0015),
        (".5", POINT, 0.5),
        ("5.", POINT, 5),
        ("-inf", POINT, -np.inf),
        ("Infinity", POINT, np.inf),
        ("1,234,567.5", GROUPED_POINT, 1234567.5),
        ("12,34,567", GROUPED_POINT, 1234567),
        ("-1,234", GROUPED_POINT, -1234),
        ("1.234.567,5", COMMA, 1234567.5),
        ("0,5", COMMA, 0.5),
        ("1 234,5", SPACED_COMMA, 1234.5),
        ("1\u202f234,5", SPACED_COMMA, 1234.5),
        ("1'234.5", SPACED_POINT, 1234.5),
    ],
)
def test_numbers_in_their_formats(cell: str, form, value: float) -> None:
    assert form.fits([cell])
    assert read_numbers(text(cell), form)[0] == value


@pytest.mark.parametrize(
    "cell", ["", "1,23,4", "1,2345", "01,234", "1_000", "0x10", "1e", "--1", "1-2", "nan", "١٢", "1 2", "12a"]
)
def test_what_is_no_number(cell: str) -> None:
    assert not any(f.fits([cell]) for f in (POINT, GROUPED_POINT, SPACED_POINT))
    assert np.isnan(read_numbers(text(cell), POINT)[0])


def test_signs_of_money_and_percent_belong_to_the_column() -> None:
    found = facts("$1,234.50", "-$2.00", "$0.5")
    assert found is not None
    assert found.affix == "$"
    assert read_numbers(text("$1,234.50", "-$2.00"), GROUPED_POINT, "$").tolist() == [1234.5, -2.0]
    assert facts("12 %", "3.5%").affix == "%"
    assert read_numbers(text("1,5 €"), COMMA, "€")[0] == 1.5
    assert facts("12%", "3") is None
    assert facts("12%%", "3%") is None


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=30))
@settings(deadline=None)
def test_plain_numbers_are_read_as_python_reads_them(values: list[float]) -> None:
    column = text_column([repr(v) for v in values])
    assert facts(*[repr(v) for v in values]) is not None
    assert read_numbers(column.values, POINT).tolist() == values
    if column.plain is not None:
        assert column.plain.tolist() == values


@given(st.lists(st.integers(-(10**15), 10**15), min_size=1, max_size=30))
@settings(deadline=None)
def test_fast_and_careful_facts_agree(values: list[int]) -> None:
    cells = [str(v) for v in values]
    assert facts(*cells) == number_facts(text(*cells))


@given(
    st.lists(st.sampled_from(["0", "1", "007", "-3", "+12", "1.5", "1.234", "2e3", "00", "-0", "12.345"]), min_size=1, max_size=8)
)
@settings(deadline=None)
def test_fast_and_careful_facts_agree_on_odd_numbers(cells: list[str]) -> None:
    fast, careful = facts(*cells), number_facts(text(*cells))
    assert fast is not None
    assert careful is not None
    assert {f for f in fast.formats if f is not SPACED_COMMA} == {f for f in careful.formats if f is not SPACED_COMMA}
    assert (fast.whole, fast.padded, fast.digits, fast.binary) == (careful.whole, careful.padded, careful.digits, careful.binary)


@given(st.lists(st.sampled_from(["1", "1.5", "1,5", "1,234", "1.234,5", "x", "$3"]), min_size=2, max_size=6), st.integers(1, 5))
@settings(deadline=None)
def test_pooled_facts_are_the_facts_of_the_whole(cells: list[str], cut: int) -> None:
    cut = min(cut, len(cells) - 1)
    whole, pooled = facts(*cells), merge_numbers(facts(*cells[:cut]), facts(*cells[cut:]))
    assert (whole is None) == (pooled is None)
    if whole is not None and pooled is not None:
        assert whole.formats == pooled.formats


@pytest.mark.parametrize(
    "cell",
    [
        "2024-02-29",
        "1899-12-31",
        "2024-02-29 13:05",
        "2024-02-29T13:05:09",
        "1969-12-31T23:59:59.250000",
        "2024-02-29T13:05:09+05:30",
        "2024-02-29T13:05:09Z",
        "2024-02-29T00:00:00-0800",
        "0001-01-01",
    ],
)
def test_iso_as_the_standard_library_reads_it(cell: str) -> None:
    moment = dt.datetime.fromisoformat(cell)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    expected = (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)).total_seconds()
    assert read_instants(text(cell), ISO)[0] == expected
    fast = fast_iso(np.array([cell], dtype="S"))
    assert fast is None or fast[0] == expected


@given(st.lists(st.datetimes(min_value=dt.datetime(1600, 1, 1)), min_size=1, max_size=20))
@settings(deadline=None)
def test_the_fast_way_is_the_careful_way(moments: list[dt.datetime]) -> None:
    cells = [m.isoformat(sep=" ") for m in moments]
    fast = fast_iso(np.array(cells, dtype="S"))
    assert fast is not None
    np.testing.assert_allclose(fast, read_instants(text(*cells), ISO), rtol=1e-15, atol=1e-9)


@pytest.mark.parametrize(
    ("cell", "day"),
    [
        ("2024/3/5", (2024, 3, 5)),
        ("13/12/2024", (2024, 12, 13)),
        ("12/13/2024", (2024, 12, 13)),
        ("13.12.2024", (2024, 12, 13)),
        ("5 Jan 2024", (2024, 1, 5)),
        ("05-Sept-2024", (2024, 9, 5)),
        ("January 5, 2024", (2024, 1, 5)),
        ("Fri, 05 Jan 2024 00:00:00 GMT", (2024, 1, 5)),
        ("2024-01-04T24:00", (2024, 1, 5)),
        ("Jan 5 2024 12:00 AM", (2024, 1, 5)),
    ],
)
def test_dates_in_their_formats(cell: str, day: tuple[int, int, int]) -> None:
    found = [f.read(cell) for f in INSTANT_FORMATS if f.fits([cell])]
    assert len(found) == 1
    assert found[0] is not None
    assert found[0][0] == (dt.date(*day) - dt.date(1970, 1, 1)).days * 86_400


@pytest.mark.parametrize(
    "cell", ["2024-02-30", "2024-13-01", "24-01-01", "0000-00-00", "2024-01-01 25:00", "1.2.3", "13:05", "Jan 2024", "x"]
)
def test_what_is_no_date(cell: str) -> None:
    assert instant_facts(text(cell)) is None
    assert np.isnan(read_instants(text(cell), ISO)[0])


def test_day_and_month_are_told_apart_by_the_column() -> None:
    both = instant_facts(text("01/02/2024"))
    assert both is not None
    assert both.formats == {MONTH_FIRST, DAY_FIRST}
    one = instant_facts(text("01/02/2024", "13/02/2024"))
    assert one is not None
    assert one.formats == {DAY_FIRST}
    assert instant_facts(text("13/02/2024", "02/13/2024")) is None
    assert COMPACT.read("20240229") == ((dt.date(2024, 2, 29) - dt.date(1970, 1, 1)).days * 86_400, False)


def test_truth_values() -> None:
    assert truth_words(["Yes", "no", "Yes"]) == {"Yes", "no"}
    assert truth_words(["yes", "maybe"]) is None
    for words in (
        {"yes", "no"},
        {"T", "F"},
        {"0", "1"},
        {"true"},
        {"TRUE", "False"},
        {"Y", "N"},
        {"true", "0", "1"},
        {"on", "off"},
    ):
        assert is_boolean(frozenset(words)), words
    for words in ({"n", "t"}, {"F"}, {"1"}, {"yes"}, {"0"}, set()):
        assert not is_boolean(frozenset(words)), words
    assert truth_levels(frozenset({"No", "Yes"})) == ("No", "Yes")
    assert truth_levels(frozenset({"No", "Yes", "Y"})) == ("false", "true")


@given(st.lists(st.text(max_size=60), min_size=1, max_size=20))
@settings(deadline=None)
def test_equal_cells_have_equal_fingerprints_in_any_chunk(cells: list[str]) -> None:
    column = text_column(cells)
    whole = fingerprints(column)
    for i, cell in enumerate(cells):
        assert fingerprints(text_column([cell]))[0] == whole[i]
    wanted = {"" if gone else c for c, gone in zip(column.texts(), column.missing.tolist())}
    assert len(set(whole.tolist())) == len(wanted), "and different cells different ones"


def test_fingerprints_of_numbers() -> None:
    none = np.zeros(4, dtype=bool)
    h = fingerprints(RawColumn(np.array([0.0, -0.0, 1.5, 1.5]), none))
    assert h[0] == h[1]
    assert h[2] == h[3]
    assert h[0] != h[2]
    assert len({*fingerprints(RawColumn(np.arange(10_000), np.zeros(10_000, bool))).tolist()}) == 10_000


def test_formats_are_listed_once() -> None:
    assert len(set(NUMBER_FORMATS)) == 5
