"""What can be read is read right: encodings, delimiters, compressions, formats, frames, chunks; the same table in every dress."""

from __future__ import annotations

import bz2
import csv
import datetime as dt
import gzip
import io
import json
import lzma
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discrepancy.comparison.errors import DataError, OptionError
from discrepancy.comparison.model import Kind, Options
from discrepancy.comparison.pairing import read_pair
from discrepancy.comparison.reading import estimate_bytes, iterate, read_table

TEXT = 'name,weight,note\nÉlan,1.5,"a, ""b"""\n Zoë ,NA,"two\nlines"\nAna,-3e2,\n'


def check(table) -> None:
    assert list(table.columns) == ["name", "weight", "note"]
    assert table.columns["name"].texts() == ["Élan", "Zoë", "Ana"]
    assert table.columns["weight"].texts() == ["1.5", "", "-3e2"]
    assert table.columns["weight"].missing.tolist() == [False, True, False]
    assert table.columns["note"].texts() == ['a, "b"', "two\nlines", ""]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "cp1252"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(TEXT.encode(encoding))
    table = read_table(path)
    check(table)
    assert any("Windows-1252" in note for note in table.notes) == (encoding in ("latin-1", "cp1252"))


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_and_newlines(tmp_path: Path, delimiter: str, newline: str) -> None:
    rows = list(csv.reader(io.StringIO(TEXT)))
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator=newline, quoting=csv.QUOTE_ALL).writerows(rows)
    (tmp_path / "t.txt").write_bytes(buffer.getvalue().encode())
    table = read_table(tmp_path / "t.txt")
    check(table)
    assert table.delimiter == delimiter


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
@pytest.mark.parametrize("named", [True, False])
def test_compression_is_seen_in_the_bytes(tmp_path: Path, suffix: str, pack, named: bool) -> None:
    path = tmp_path / f"t.csv{suffix if named else ''}"
    path.write_bytes(pack(TEXT.encode()))
    check(read_table(path))
    assert 0 < estimate_bytes(path) < 10_000


def test_the_line_that_spreadsheets_write(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("sep=;\na;b\n1,5;x\n2,5;y\n")
    table = read_table(tmp_path / "t.csv")
    assert table.columns["a"].texts() == ["1,5", "2,5"]


def test_tables_of_numbers_divided_by_spaces(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("  a   b c  \n 1.5  -2 3\n 4   5 6e3 \n\n")
    table = read_table(tmp_path / "t.txt")
    assert {name: column.texts() for name, column in table.columns.items()} == {
        "a": ["1.5", "4"],
        "b": ["-2", "5"],
        "c": ["3", "6e3"],
    }
    np.savetxt(tmp_path / "s.txt", np.eye(3), header="x y z", comments="")
    assert list(read_table(tmp_path / "s.txt").columns) == ["x", "y", "z"]
    (tmp_path / "n.txt").write_text("full name\nAnna Smith\nBo Li\n")
    assert list(read_table(tmp_path / "n.txt").columns) == ["full name"], "words are one column"


def test_unnamed_columns_and_number_headers_are_noted(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(",a\n0,1\n1,2\n")
    table = read_table(tmp_path / "t.csv")
    assert list(table.columns) == ["column 1", "a"]
    assert "without a name" in table.notes[0]
    (tmp_path / "h.csv").write_text("1.5,2\n3,4\n")
    assert "first line holds only numbers" in read_table(tmp_path / "h.csv").notes[0]


RECORDS = [{"i": i, "f": i / 8, "s": "abc"[i % 3], "b": i % 2 == 0, "m": None if i % 5 else "x"} for i in range(40)]


def dress(kind: str, folder: Path):
    """The same table, as a path or an object."""
    columns = {key: [r[key] for r in RECORDS] for key in RECORDS[0]}
    if kind == "csv":
        with (folder / "t.csv").open("w", newline="") as handle:
            writer = csv.DictWriter(handle, RECORDS[0])
            writer.writeheader()
            writer.writerows(RECORDS)
        return folder / "t.csv"
    if kind == "jsonl":
        (folder / "t.jsonl").write_text("\n".join(json.dumps(r) for r in RECORDS))
        return folder / "t.jsonl"
    if kind == "json array":
        (folder / "a.json").write_text(json.dumps(RECORDS, indent=1))
        return folder / "a.json"
    if kind == "json columns":
        (folder / "c.json").write_text(json.dumps(columns))
        return folder / "c.json"
    if kind == "records":
        return RECORDS
    if kind == "dict":
        return columns
    if kind == "structured":
        rows = [(r["i"], r["f"], r["s"], r["b"], r["m"] or "") for r in RECORDS]
        array = np.array(rows, dtype=[("i", "i4"), ("f", "f8"), ("s", "U3"), ("b", "?"), ("m", "S2")])
        np.save(folder / "t.npy", array)
        return folder / "t.npy"
    if kind == "npz":
        np.savez(folder / "t.npz", **{k: np.array([v or "" for v in vs] if k == "m" else vs) for k, vs in columns.items()})
        return folder / "t.npz"
    if kind == "pandas":
        return pytest.importorskip("pandas").DataFrame(RECORDS)
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame(RECORDS, infer_schema_length=None)
    if kind == "polars":
        return frame
    if kind == "lazy":
        return frame.lazy()
    if kind == "arrow":
        return frame.to_arrow()
    pytest.importorskip("pyarrow")
    if kind == "parquet":
        frame.write_parquet(folder / "t.parquet", row_group_size=7)
        return folder / "t.parquet"
    if kind == "feather":
        frame.write_ipc(folder / "t.feather")
        return folder / "t.feather"
    frame.write_ipc_stream(folder / "t.arrow")
    return folder / "t.arrow"


DRESSES = ["csv", "jsonl", "json array", "json columns", "records", "dict", "structured", "npz"]
DRESSES += ["pandas", "polars", "lazy", "arrow", "parquet", "feather", "stream"]


@pytest.mark.parametrize("kind", DRESSES)
def test_one_table_in_every_dress_is_one_table(tmp_path: Path, kind: str) -> None:
    pair = read_pair(dress(kind, tmp_path), RECORDS, Options())
    assert [c.kind for c in pair.columns] == [Kind.NUMERIC, Kind.CATEGORICAL, Kind.BOOLEAN, Kind.CATEGORICAL]
    assert list(pair.left_out) == ["i"]
    for column in pair.columns:
        np.testing.assert_array_equal(column.reference.values, column.current.values)
        np.testing.assert_array_equal(column.reference.missing, column.current.missing)
    np.testing.assert_array_equal(pair.column("f").reference.values, np.arange(40) / 8)
    assert pair.column("s").levels == ("a", "b", "c")
    assert pair.column("s").reference.values[:4].tolist() == [0, 1, 2, 0]
    assert [level.lower() for level in pair.column("b").levels or ()] == ["false", "true"]
    assert pair.column("b").reference.values[:2].tolist() == [1, 0]
    assert pair.column("m").reference.missing.sum() == 32


@pytest.mark.parametrize("kind", DRESSES)
@pytest.mark.parametrize("rows", [1, 7, 39, 1000])
def test_chunks_are_the_table(tmp_path: Path, kind: str, rows: int) -> None:
    source = dress(kind, tmp_path)
    whole = read_table(source)
    chunks = list(iterate(source, rows=rows))
    assert sum(c.rows for c in chunks) == 40
    assert max(c.rows for c in chunks) <= rows
    for name, column in whole.columns.items():
        assert [t for c in chunks for t in c.columns[name].texts()] == column.texts()
    some = list(iterate(source, ["s", "f"], rows=rows))
    assert all(set(c.columns) == {"s", "f"} for c in some)
    with pytest.raises(DataError, match="no column 'weigth'"):
        list(iterate(source, ["weigth"], rows=rows))


def test_folders_globs_partitions(tmp_path: Path) -> None:
    for year in (2020, 2021):
        folder = tmp_path / f"year={year}"
        folder.mkdir()
        for part in (1, 2):
            (folder / f"{part}.csv").write_text("b,a\n1,2\n" if part == 2 else f"a,b\n{year},{part}\n")
    table = read_table(tmp_path)
    assert table.columns["year"].texts() == ["2020", "2020", "2021", "2021"]
    assert table.columns["a"].texts() == ["2020", "2", "2021", "2"]
    assert read_table(str(tmp_path / "year=2020" / "*.csv")).rows == 2
    assert read_table(str(tmp_path / "**" / "1.csv")).columns["a"].texts() == ["2020", "2021"]
    weird = tmp_path / "a[1].csv"
    weird.write_text("a\n1\n")
    assert read_table(weird).rows == 1, "a file whose name reads as a pattern is the file"


def test_json_lines_may_differ_in_their_keys(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"a": 1}\n\n{"a": "x", "b": 2}\n{"b": NaN}\n')
    for rows in (1, 2, 10):
        chunks = list(iterate(tmp_path / "t.jsonl", rows=rows))
        table = read_table(tmp_path / "t.jsonl")
        assert table.columns["a"].texts() == ["1", "x", ""]
        assert table.columns["b"].missing.tolist() == [True, False, True]
        assert sum(c.rows for c in chunks) == 3


def test_standard_input_is_read_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Pipe:
        def __init__(self, content: bytes) -> None:
            self.buffer = io.BytesIO(content)

        def isatty(self) -> bool:
            return False

    (tmp_path / "t.csv").write_text(TEXT)
    monkeypatch.setattr(sys, "stdin", Pipe(TEXT.encode()))
    pair = read_pair("-", tmp_path / "t.csv", Options())
    assert pair.names == ("reference", "t.csv")
    check(read_table("-"))
    monkeypatch.setattr(sys, "stdin", Pipe(b'{"a": 1}\n{"a": 2}\n'))
    assert read_table("-").columns["a"].values.tolist() == [1, 2]
    monkeypatch.setattr(sys, "stdin", Pipe(gzip.compress(b"a\tb\n1\t2\n")))
    assert list(read_table("-").columns) == ["a", "b"]
    monkeypatch.setattr(sys, "stdin", Pipe(b""))
    with pytest.raises(DataError, match="standard input is empty"):
        read_table("-")
    with pytest.raises(OptionError, match="only one"):
        read_pair("-", "-", Options())


def test_a_named_pipe_is_read(tmp_path: Path) -> None:
    import os
    import threading

    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_text(TEXT))
    writer.start()
    check(read_table(path))
    writer.join()
    writer = threading.Thread(target=lambda: path.write_text("a,b\n1,2\n2,3\n"))
    writer.start()
    assert read_pair(path, {"a": [1, 5], "b": [1, 2]}, Options()).rows_reference == 2, "measured and read, but opened once"
    writer.join()


def test_python_objects_by_their_type() -> None:
    rows = 30
    table = read_table(
        {
            "decimal": [Decimal(i) / 4 for i in range(rows)],
            "huge": [2**70 + i for i in range(rows)],
            "date": [dt.date(1960, 1, 1)] * rows,
            "zoned": [dt.datetime(2024, 1, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=2)))] * rows,
            "span": [dt.timedelta(minutes=1)] * rows,
            "mixed": [1, "a", None] * 10,
            "set": [{1}] * rows,
        }
    )
    assert table.columns["decimal"].values.tolist()[:2] == [0.0, 0.25]
    assert table.columns["huge"].texts()[1] == str(2**70 + 1)
    assert table.columns["date"].values[0] == np.datetime64("1960-01-01")
    assert table.columns["zoned"].values[0] == np.datetime64("2024-01-01T10:00")
    assert table.columns["zoned"].zone == "utc"
    assert table.columns["span"].values[0] == 60
    assert table.columns["span"].unit == "seconds"
    assert table.columns["mixed"].texts()[:3] == ["1", "a", ""]
    assert "set" in table.left_out["set"]


def test_arrays_of_odd_types() -> None:
    table = read_table(
        {
            "half": np.array([1.5, np.nan], dtype=np.float16),
            "swapped": np.array([1.5, 2.5], dtype=">f8"),
            "masked": np.ma.array([1, 2], mask=[False, True]),
            "day": np.array(["1969-12-31", "NaT"], dtype="datetime64[D]"),
            "nano": np.array([1, 2], dtype="timedelta64[ns]"),
            "bytes": np.array([b"a", b""]),
            "unsigned": np.array([2**64 - 1, 0], dtype=np.uint64),
        }
    )
    assert table.columns["half"].values.dtype == np.float32
    assert table.columns["half"].missing.tolist() == [False, True]
    assert table.columns["swapped"].values.tolist() == [1.5, 2.5]
    assert table.columns["masked"].missing.tolist() == [False, True]
    assert table.columns["day"].missing.tolist() == [False, True]
    assert table.columns["bytes"].missing.tolist() == [False, True]
    assert table.columns["unsigned"].texts() == [str(2**64 - 1), "0"]


def test_tensors_are_taken() -> None:
    torch = pytest.importorskip("torch")
    assert list(read_table(torch.zeros(3, 2, requires_grad=True)).columns) == ["x0", "x1"]


@given(
    cells=st.lists(
        st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12), min_size=3, max_size=3),
        min_size=1,
        max_size=20,
    )
)
@settings(max_examples=60, deadline=None)
def test_what_csv_writes_comes_back(tmp_path_factory: pytest.TempPathFactory, cells: list[list[str]]) -> None:
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, quoting=csv.QUOTE_ALL)
        writer.writerow(["a", "b", "c"])
        writer.writerows(cells)
    from discrepancy.comparison.reading.table import MISSING_TOKENS

    table = read_table(path)
    for j, name in enumerate("abc"):
        expected = ["" if row[j].strip() in MISSING_TOKENS else row[j].strip() for row in cells]
        assert table.columns[name].texts() == expected
