"""Sixty and more bad files: each is refused in one sentence that names the file, the place and the way out."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import pickle
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from discrepancy.comparison.errors import DataError
from discrepancy.comparison.model import Options
from discrepancy.comparison.pairing import read_pair
from discrepancy.comparison.reading import read_table

GOOD = "a,b,c\n1,2.5,x\n2,3.5,y\n3,4.5,x\n"


def npy(array: np.ndarray, **options: bool) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def parquet() -> bytes:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.table({"a": list(range(500)), "b": ["x"] * 500}), buffer)
    return buffer.getvalue()


def feather() -> bytes:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.feather as feather

    buffer = io.BytesIO()
    feather.write_feather(pa.table({"a": list(range(500))}), buffer, compression="uncompressed")
    return buffer.getvalue()


def workbook() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return buffer.getvalue()


# name of the file, its bytes, and what the sentence must say
FILES: list[tuple[str, bytes | Callable[[], bytes], str]] = [
    ("empty.csv", b"", "is empty"),
    ("blank.csv", b"\n\n  \n", "is empty"),
    ("bom_only.csv", b"\xef\xbb\xbf", "is empty"),
    ("header_only.csv", b"a,b,c\n", "a header and no rows"),
    ("header_no_newline.csv", b"a,b,c", "a header and no rows"),
    ("header_blank_lines.csv", b"a,b\n\n\n", "a header and no rows"),
    ("ragged_short.csv", b"a,b,c\n1,2,3\n4,5\n6,7,8\n", "line 3: 2 field(s) where the header has 3"),
    ("ragged_long.csv", b"a,b\n1,2\n3,4,5\n", "line 3: 3 field(s) where the header has 2"),
    ("ragged_after_quoted_newline.csv", b'a,b\n"x\ny",2\n3\n', "line 4: 1 field(s)"),
    ("single_column_with_commas.csv", b"text\nhello, world\nfoo\n", "line 2: 2 field(s)"),
    ("open_quote.csv", b'a,b\n1,"x\n2,y\n3,z\n', "line 2 is never closed"),
    ("open_quote_long.csv", b'a,b\n1,"' + b"x,y\n" * 60_000, "line 2 is never closed"),
    ("open_quote_header.csv", b'a,"b\n1,2\n', "line 1 is never closed"),
    ("text_after_quote.csv", b'a,b\n1,"x"y\n', "line 2: text follows a closing quote"),
    ("duplicate_names.csv", b"a,b,a\n1,2,3\n", "columns 1 and 3 are both named 'a'"),
    ("duplicate_after_strip.csv", b"a, a\n1,2\n", "columns 1 and 2 are both named 'a'"),
    ("no_header.csv", b"1.5,0,0\n2.5,1,0\n", "so it is no header: add one"),
    ("nul.csv", b"a,b\n1,2\n3,\x004\n", "line 3: a NUL byte"),
    ("control.csv", b"a,b\n1,\x07\n", "line 2: a control character"),
    ("random.csv", bytes(np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8)), "line"),
    ("utf16_without_mark.csv", GOOD.encode("utf-16-le"), "UTF-16 without a byte-order mark"),
    ("utf16_cut.csv", GOOD.encode("utf-16")[:-1], "UTF-16"),
    ("broken_utf8.csv", "a\nréal\n".encode() + b"caf\xe9\n", "line 3: bytes that are not UTF-8"),
    ("cut_utf8.csv", "a\nréal\nréa".encode()[:-1] + b"\xc3", "not UTF-8"),
    ("undefined_byte.csv", b"a\nx\x81y\n", "line 2"),
    ("page.csv", b"<!DOCTYPE html>\n<html><body>404</body></html>", "a web page"),
    ("xml.csv", b"<?xml version='1.0'?><rows/>", "an XML file"),
    ("lfs.csv", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
    ("workbook.csv", workbook, "zip archive or a spreadsheet"),
    ("sheet.xlsx", workbook, "export the sheet as csv"),
    ("data.zip", workbook, "unpack it"),
    ("model.pkl", lambda: pickle.dumps({"a": [1]}), "never opened"),
    ("renamed_pickle.csv", lambda: pickle.dumps({"a": [1]}, protocol=4), "binary file"),
    ("image.csv", b"\x89PNG\r\n\x1a\n\0\0\0", "line"),
    ("document.csv", b"%PDF-1.4\n", "binary file"),
    ("cut.csv.gz", gzip.compress(GOOD.encode() * 5000)[:200], "cut off or damaged"),
    ("not_gzip.csv.gz", b"a,b\n1,\x002\n", "NUL byte"),
    ("cut.csv.bz2", bz2.compress(GOOD.encode() * 50_000)[:100], "damaged"),
    ("gz_of_nothing.csv.gz", gzip.compress(b""), "is empty"),
    ("csv.json", GOOD.encode(), "line 1: not JSON"),
    ("csv_hint.json", GOOD.encode(), "name it .csv"),
    ("bad_line.jsonl", b'{"a": 1}\n{"a": 2\n{"a": 3}\n', "line 2: not JSON"),
    ("bad_first_line.jsonl", b'{"a": 1\n{"a": 2}\n', "line 1: not JSON"),
    ("scalar_line.jsonl", b'{"a": 1}\n7\n', "line 2: 7 is not an object"),
    ("twice.jsonl", b'{"a": 1, "a": 2}\n', "line 1: the key 'a' occurs twice"),
    ("array_of_numbers.json", b"[1, 2, 3]", "element 1 is 1"),
    ("array_of_arrays.json", b"[[1, 2], [3, 4]]", "no column names"),
    ("one_object.json", b'{\n "a": 1,\n "b": {"c": 2}\n}', "one JSON object"),
    ("cut_array.json", b'[{"a": 1}, {"a": 2}', "not JSON"),
    ("uneven_lists.json", b'{"a": [1, 2], "b": [1]}', "different lengths"),
    ("no_rows.json", b"[]", "no rows"),
    ("deep.jsonl", b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "nested too deeply"),
    ("flattened_collision.jsonl", b'{"a.b": 1, "a": {"b": 2}}\n', "collides"),
    ("objects.npy", npy(np.array([{}, 1], dtype=object), allow_pickle=True), "never opened"),
    ("objects.npz", npz(a=np.array([[1], "x"], dtype=object)), "never opened"),
    ("cut.npy", npy(np.zeros((100, 3)))[:-80], "truncated or damaged"),
    ("cut.npz", npz(a=np.zeros(1000))[:-40], "truncated or damaged"),
    ("scalar.npy", npy(np.array(3.0)), "a single number"),
    ("cube.npy", npy(np.zeros((2, 3, 4))), "shape (2, 3, 4)"),
    ("complex.npy", npy(np.zeros(3, dtype=complex)), "complex128"),
    ("no_rows.npy", npy(np.zeros((0, 3))), "no rows"),
    ("no_columns.npy", npy(np.zeros((3, 0))), "no columns"),
    ("uneven.npz", npz(a=np.zeros(3), b=np.zeros(4)), "3 rows"),
    ("no_arrays.npz", npz(), "no columns"),
    ("text.npy", b"1 2 3\n4 5 6\n", "not a npy file"),
    ("cut.parquet", lambda: parquet()[:-20], "truncated or damaged"),
    ("corrupt.parquet", lambda: parquet()[:40] + bytes(60) + parquet()[100:], "truncated or damaged"),
    ("csv.parquet", GOOD.encode(), "not a parquet file"),
    ("cut.feather", lambda: feather()[:300], "truncated or damaged"),
    ("csv.arrow", GOOD.encode(), "not a arrow file"),
    ("old.feather", b"FEA1" + bytes(50), "Feather file of version 1"),
]


@pytest.mark.parametrize(("name", "content", "says"), FILES, ids=[f[0] for f in FILES])
def test_a_bad_file_is_refused_in_one_sentence(tmp_path: Path, name: str, content, says: str) -> None:
    good = tmp_path / "good.csv"
    good.write_text(GOOD)
    bad = tmp_path / name
    bad.write_bytes(content if isinstance(content, bytes) else content())
    for pair in ((good, bad), (bad, good)):
        with pytest.raises(DataError) as caught:
            read_pair(*pair, Options())
        message = str(caught.value)
        assert says in message
        assert name in message, "the file is named"
        assert "\n" not in message
        assert len(message) < 320
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_missing_files_say_what_is_near(tmp_path: Path) -> None:
    (tmp_path / "january.csv").write_text(GOOD)
    with pytest.raises(DataError, match=r"januray\.csv does not exist \(did you mean 'january\.csv'\?\)"):
        read_table(tmp_path / "januray.csv")
    with pytest.raises(DataError, match="there is no folder"):
        read_table(tmp_path / "nowhere" / "january.csv")
    (tmp_path / "link.csv").symlink_to(tmp_path / "gone.csv")
    with pytest.raises(DataError, match=r"a link to .*gone\.csv, which does not exist"):
        read_table(tmp_path / "link.csv")
    with pytest.raises(DataError, match="is an address"):
        read_table("https://example.org/data.csv")


def test_folders_and_globs_without_data(tmp_path: Path) -> None:
    (tmp_path / "readme.md").write_text("nothing")
    (tmp_path / ".hidden.csv").write_text(GOOD)
    (tmp_path / "_SUCCESS.csv").write_text(GOOD)
    with pytest.raises(DataError, match="holds no data file"):
        read_table(tmp_path)
    with pytest.raises(DataError, match="nothing matches"):
        read_table(str(tmp_path / "*.parquet"))


def test_files_of_one_folder_must_agree(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("a,b\n1,2\n")
    (tmp_path / "2.csv").write_text("a\n1\n")
    with pytest.raises(DataError, match=r"2\.csv lacks 'b', unlike 1\.csv"):
        read_table(tmp_path)
    (tmp_path / "2.csv").unlink()
    (tmp_path / "2.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(DataError, match="mixes csv and jsonl"):
        read_table(tmp_path)
    (tmp_path / "2.jsonl").unlink()
    np.savez(tmp_path / "3.npz", a=np.zeros(3))
    (tmp_path / "1.csv").unlink()
    np.savez(tmp_path / "4.npz", a=np.array(["x"]))
    with pytest.raises(DataError, match=r"'a' is number in 3\.npz and text in 4\.npz"):
        read_table(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "locked.csv"
    path.write_text(GOOD)
    path.chmod(0)
    with pytest.raises(DataError, match="permission denied"):
        read_table(path)


def test_a_database_is_named(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "data.db") as connection:
        connection.execute("create table t (a)")
    with pytest.raises(DataError, match=r"data\.db is a database: export the table as csv"):
        read_table(tmp_path / "data.db")
    (tmp_path / "data.db").rename(tmp_path / "data.csv")
    with pytest.raises(DataError, match="binary file"):
        read_table(tmp_path / "data.csv")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (ran.touch, ())

    array = np.empty(1, dtype=object)
    array[0] = Evil()
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    np.savez(tmp_path / "a.npz", a=array)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(DataError, match="never opened"):
            read_table(tmp_path / name)
    assert not ran.exists()


def test_parquet_without_pyarrow_prints_the_install_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    real = builtins.__import__

    def absent(name, *rest, **more):
        if name.partition(".")[0] == "pyarrow":
            raise ModuleNotFoundError("No module named 'pyarrow'", name="pyarrow")
        return real(name, *rest, **more)

    (tmp_path / "a.parquet").write_bytes(b"PAR1" + bytes(20) + b"PAR1")
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(DataError, match=r'a\.parquet needs pyarrow to be read: pip install "discrepancy\[io\]"'):
        read_table(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({}, "no columns"),
        ({"a": []}, "no rows"),
        ({"a": [1, 2], "b": [1]}, "different lengths|all columns need one length"),
        ({"a": 3}, "expected an array or a list"),
        ({"a": "text"}, "expected an array or a list"),
        (np.zeros((2, 2, 2)), "shape"),
        (np.array(1.0), "single value"),
        (3.5, "of the type float"),
        (object(), "of the type object"),
        ([], "no rows"),
        (np.array([1 + 2j, 3]), "complex"),
    ],
)
def test_objects_that_are_no_table(source: object, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_pair(source, {"a": [1, 2, 3]}, Options())


def test_frames_that_are_no_table() -> None:
    pd = pytest.importorskip("pandas")
    with pytest.raises(DataError, match="both named 'a'"):
        read_table(pd.DataFrame([[1, 2]], columns=["a", "a"]))
    with pytest.raises(DataError, match="no rows"):
        read_table(pd.DataFrame({"a": []}))
    with pytest.raises(DataError, match="no columns"):
        read_table(pd.DataFrame(index=[1, 2]))
    pa = pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match="both named 'a'"):
        read_table(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]))
    pl = pytest.importorskip("polars")
    with pytest.raises(DataError, match="no rows"):
        read_table(pl.DataFrame({"a": []}))


def test_json_that_nests_too_deeply_for_a_column(tmp_path: Path) -> None:
    rows = [{"a": i, "tags": [1, 2], "place": {"city": "x", "at": {"lat": i / 7}}} for i in range(30)]
    (tmp_path / "n.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
    table = read_table(tmp_path / "n.jsonl")
    assert list(table.columns) == ["a", "place.city", "place.at.lat"]
    assert table.left_out == {"tags": "holds list values: spread them over columns of plain values"}
    assert "flattened" in table.notes[0]
