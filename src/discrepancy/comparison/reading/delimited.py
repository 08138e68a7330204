"""Delimited text (csv, tsv and their kin) in chunks of raw text columns, with the standard library's parser.

A second parser for large files was considered and left out: Arrow's reader infers types per column (leading zeros go,
spaces matter, "1,5" is refused), so its answer differs from this one on odd cells.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from itertools import islice

from discrepancy.comparison.errors import DataError, closest, listed
from discrepancy.comparison.reading.encoding import opened_text, text_facts
from discrepancy.comparison.reading.sources import Part, opened
from discrepancy.comparison.reading.table import RawTable, text_column, unique_names

DELIMITERS = (",", ";", "\t", "|")
CELLS = 4_000_000  # most cells held as Python strings at one time, however many rows a chunk may have
_HEAD = 1 << 16
_STARTS = (
    ("<!doctype", "a web page"),
    ("<html", "a web page"),
    ("<?xml", "an XML file"),
    ("version https://git-lfs", "a Git LFS pointer and not the data: run git lfs pull"),
    ("{\\rtf", "a word-processor file"),
)


def sniff(head: str) -> str:
    """The delimiter of a text's first lines: the one under which most rows have the header's number of fields, over one.

    Candidates are comma, semicolon, tab and vertical bar; where none of them splits the header, runs of spaces if they
    make a table of numbers; else a comma (a single column).
    """
    best, best_score = ",", (0.0, 0)
    # The last line of the head may be cut; a quoted newline makes csv join lines, so let csv do the splitting.
    for delimiter in DELIMITERS:
        try:
            rows = [row for row in islice(csv.reader(io.StringIO(head, newline=""), delimiter=delimiter), 50) if row]
        except csv.Error:
            continue
        if len(rows) > 1 and len(head) >= _HEAD:
            rows.pop()
        if not rows or len(rows[0]) < 2:
            continue
        width = len(rows[0])
        score = (sum(len(row) == width for row in rows) / len(rows), width)
        if score > best_score:
            best, best_score = delimiter, score
    return " " if best_score[1] == 0 and _spaced(head) else best


def _spaced(head: str) -> bool:
    """Whether spaces divide every line into as many fields as the header has, mostly numbers: no sentence does."""
    lines = head.splitlines()[:50]
    rows = [line.split() for line in (lines[:-1] if len(head) >= _HEAD else lines) if line.strip()]
    if len(rows) < 2 or len(rows[0]) < 2 or any(len(row) != len(rows[0]) for row in rows):
        return False
    cells = [cell for row in rows[1:] for cell in row]
    return sum(map(_is_number, cells)) > len(cells) / 2


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", cell.strip()) is not None


def _malformed(error: csv.Error, name: str, start: int, line: int) -> DataError:
    text = str(error)
    if "field larger" in text or "unexpected end" in text:
        return DataError(f"{name}: a quote opened in the row that starts on line {start} is never closed: close or double it")
    if "expected after" in text:
        return DataError(f"{name}, line {line}: text follows a closing quote: double the quotes inside a quoted cell")
    return DataError(f"{name}, line {line}: not readable as delimited text ({text})")


def _header(reader: Iterator[list[str]], name: str) -> list[str]:
    for row in reader:
        if row:
            return row
    raise DataError(f"{name} is empty: it needs a header line and at least one row")


def _rows(reader, count: int, width: int, name: str) -> list[list[str]]:
    """The next `count` rows of the right width; blank lines are passed over."""
    rows: list[list[str]] = []
    start = reader.line_num + 1
    try:
        for row in reader:
            if len(row) == width:
                rows.append(row)
                if len(rows) == count:
                    break
            elif row:
                line = f"line {start}" if reader.line_num == start else f"lines {start} to {reader.line_num}"
                raise DataError(
                    f"{name}, {line}: {len(row)} field(s) where the header has {width}: "
                    f"quote cells that contain the delimiter {reader.dialect.delimiter!r}, or complete the row"
                )
            start = reader.line_num + 1
    except csv.Error as error:
        raise _malformed(error, name, start, reader.line_num) from None
    return rows


def iterate_delimited(part: Part, columns: Sequence[str] | None = None, rows: int = 200_000) -> Iterator[RawTable]:
    """Chunks of at most `rows` rows of a delimited file (fewer where a chunk would exceed 4 million cells).

    Encoding, delimiter and quoting are found from the file; the first line that is not blank is the header. Linear in
    the file, memory of one chunk. Raises DataError, with the line, for ragged rows, open quotes and whatever cannot be
    decoded; for duplicate column names, a header without rows, and `columns` that the file lacks.
    """
    name = part.name
    with opened(part) as handle:
        facts = text_facts(handle, name)
    with opened(part) as handle, opened_text(handle, facts) as text:
        head = text.read(_HEAD)
        for opening, what in _STARTS:
            if head.lstrip("\ufeff \t\r\n").lower().startswith(opening):
                raise DataError(f"{name} is {what}: expected a table with a header line")
        text.seek(0)
        declared = re.match(r"\ufeff?sep=(.)\r?\n", head)
        if declared:
            text.readline()
            head = head[declared.end() :]
        delimiter = declared.group(1) if declared else "\t" if part.format == "tsv" else sniff(head)
        # Runs of spaces are one delimiter: those after the first are initial spaces of the next field.
        lines = (line.rstrip(" \r\n") + "\n" for line in text) if delimiter == " " else text
        reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=delimiter != "\t", strict=True)
        try:
            header = _header(reader, name)
        except csv.Error as error:
            raise _malformed(error, name, 1, reader.line_num) from None
        numbers = all(_is_number(cell) for cell in header)
        if numbers and len(set(header)) < len(header):
            raise DataError(f"{name}: the first line holds only numbers, some of them twice, so it is no header: add one")
        names, notes = unique_names(header, name)
        if facts.note:
            notes.append(facts.note)
        if numbers:
            notes.append(f"{name}: the first line holds only numbers and was read as the header; add one if it is data.")
        chosen = list(range(len(names)))
        if columns is not None:
            absent = [c for c in columns if c not in names]
            if absent:
                raise DataError(f"{name} has no column {listed(absent)}{closest(absent[0], names)}")
            wanted = set(columns)
            chosen = [i for i in chosen if names[i] in wanted]
        step = max(1, min(rows, CELLS // len(names)))
        seen = 0
        while True:
            block = _rows(reader, step, len(names), name)
            if not block:
                break
            seen += len(block)
            cells = list(zip(*block))
            table = {names[i]: text_column(list(cells[i])) for i in chosen}
            yield RawTable(name, table, len(block), tuple(notes), delimiter=delimiter)
        if not seen:
            raise DataError(f"{name} has a header and no rows: nothing can be compared")
