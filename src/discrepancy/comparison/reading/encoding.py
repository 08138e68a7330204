"""Bytes to text: which encoding a text file is in, and what is wrong with one that is in none."""

from __future__ import annotations

import codecs
import io
import re
from dataclasses import dataclass
from typing import BinaryIO

from discrepancy.comparison.errors import DataError

_BLOCK = 1 << 20
_MARKS = (  # longest first: the mark of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Control characters that no table contains; their presence says that the file is not text.
_CONTROL = re.compile(rb"[\x01-\x08\x0e-\x1a\x1c-\x1f]")


@dataclass(frozen=True)
class TextFacts:
    """What one pass over a text file found: its Python codec, its length in bytes, and a note where the codec was guessed."""

    encoding: str
    size: int
    note: str | None = None


def _line_of(handle: BinaryIO, offset: int) -> int:
    handle.seek(0)
    lines = 1
    while offset > 0:
        block = handle.read(min(_BLOCK, offset))
        if not block:
            break
        lines += block.count(b"\n")
        offset -= len(block)
    return lines


def _wide_without_mark(head: bytes) -> bool:
    """Whether every second byte of the head is mostly zero: UTF-16 that lost its byte-order mark."""
    return len(head) >= 4 and max(head[0::2].count(0), head[1::2].count(0)) > 0.4 * (len(head) // 2)


def text_facts(handle: BinaryIO, name: str) -> TextFacts:
    """Find a text file's encoding in one streaming pass; constant memory.

    A byte-order mark decides; else UTF-8 if every byte fits; else Windows-1252 (of which Latin-1 text is a part), with
    a note, provided that nothing in the file looks like UTF-8. Raises DataError, with the line, for an empty file, NUL
    or control bytes, UTF-16 without a mark, and text that is broken UTF-8.
    """
    head = handle.read(4096)
    if not head.strip(b"\xef\xbb\xbf\xff\xfe\x00 \t\r\n"):
        raise DataError(f"{name} is empty: it needs a header line and at least one row")
    marked = next((encoding for mark, encoding in _MARKS if head.startswith(mark)), None)
    if marked in ("utf-16", "utf-32"):
        return TextFacts(marked, _checked_wide(handle, head, marked, name))
    if _wide_without_mark(head):
        raise DataError(f"{name} looks like UTF-16 without a byte-order mark: save it as UTF-8")
    decoder = codecs.getincrementaldecoder("utf-8")()
    size, broken, accented = 0, None, False
    undefined = None  # a byte that Windows-1252 does not have either
    block = head
    while block:
        for bad, what in ((block.find(b"\0"), "a NUL byte"), (_first(_CONTROL, block), "a control character")):
            if bad >= 0:
                raise DataError(
                    f"{name}, line {_line_of(handle, size + bad)}: {what}, so the file is binary or damaged: export it as text"
                )
        if not block.isascii():
            if broken is None:
                try:
                    accented |= not decoder.decode(block).isascii()
                except UnicodeDecodeError as error:
                    broken = max(0, size + error.start - len(decoder.getstate()[0]))
                    accented |= _valid_multibyte(block)
            else:
                accented |= _valid_multibyte(block)
            if undefined is None:
                found = _first(re.compile(rb"[\x81\x8d\x8f\x90\x9d]"), block)
                undefined = size + found if found >= 0 else None
        elif broken is None and decoder.getstate()[0]:
            broken = size  # a character was cut off by the end of an earlier block
        size += len(block)
        block = handle.read(_BLOCK)
    if broken is None and decoder.getstate()[0]:
        broken = size
    if broken is None:
        return TextFacts(marked or "utf-8", size)
    if accented or marked or undefined is not None:
        line = _line_of(handle, broken)
        raise DataError(
            f"{name}, line {line}: bytes that are not UTF-8 in a file that otherwise is: repair or re-export it as UTF-8"
        )
    return TextFacts("cp1252", size, f"{name} is not UTF-8; it was read as Windows-1252 (Latin-1). Save it as UTF-8 to be sure.")


def _first(pattern: re.Pattern[bytes], block: bytes) -> int:
    found = pattern.search(block)
    return found.start() if found else -1


def _valid_multibyte(block: bytes) -> bool:
    """Whether two or three byte sequences of UTF-8 occur: lead byte and continuation, as in Latin-1 only by accident."""
    return re.search(rb"(?<![\x80-\xff])(?:[\xc3-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2})(?![\x80-\xff])", block) is not None


def _checked_wide(handle: BinaryIO, head: bytes, encoding: str, name: str) -> int:
    decoder = codecs.getincrementaldecoder(encoding)()
    block, size = head, 0
    try:
        while block:
            if "\0" in decoder.decode(block):
                raise DataError(f"{name} contains NUL characters: the file is binary or damaged")
            size += len(block)
            block = handle.read(_BLOCK)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise DataError(f"{name} begins as {encoding.upper()} and breaks off near byte {size}: re-export it as UTF-8") from None
    return size


def opened_text(handle: BinaryIO, facts: TextFacts) -> io.TextIOWrapper:
    """The file as text, newlines untouched (a quoted cell may hold some)."""
    return io.TextIOWrapper(handle, encoding=facts.encoding, newline="")
