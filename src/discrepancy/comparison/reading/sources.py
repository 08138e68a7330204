"""From what the user names - a path, a glob, a folder, "-" - to the files to read: their format, compression, partition."""

from __future__ import annotations

import bz2
import glob
import gzip
import io
import lzma
import os
import stat
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from discrepancy.comparison.errors import DataError, closest, listed

FORMATS = {
    ".csv": "csv", ".txt": "csv", ".psv": "csv", ".tsv": "tsv", ".tab": "tsv",
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
    ".npy": "npy", ".npz": "npz",
    ".parquet": "parquet", ".pq": "parquet", ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow",
}  # fmt: skip
_COMPRESSED: dict[str, Callable[[Any], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_FOREIGN = {
    ".xlsx": "a spreadsheet: export the sheet as csv",
    ".xls": "a spreadsheet: export the sheet as csv",
    ".ods": "a spreadsheet: export the sheet as csv",
    ".pkl": "a pickle, which is never opened because it can run code: save the table as csv or Parquet",
    ".pickle": "a pickle, which is never opened because it can run code: save the table as csv or Parquet",
    ".pt": "a pickle, which is never opened because it can run code: save the table as npy or Parquet",
    ".h5": "an HDF5 file: save the table as csv or Parquet",
    ".hdf5": "an HDF5 file: save the table as csv or Parquet",
    ".sqlite": "a database: export the table as csv",
    ".db": "a database: export the table as csv",
    ".zip": "an archive: unpack it and name the files, a folder or a glob",
    ".tar": "an archive: unpack it and name the files, a folder or a glob",
    ".7z": "an archive: unpack it and name the files, a folder or a glob",
    ".zst": "compressed with Zstandard: unpack it, or use gzip",
    ".sav": "an SPSS file: export it as csv",
    ".dta": "a Stata file: export it as csv",
    ".sas7bdat": "a SAS file: export it as csv",
    ".rds": "an R file: export it as csv",
    ".rdata": "an R file: export it as csv",
    ".html": "a web page: save its table as csv",
}
_MAGIC = (
    (b"PAR1", "parquet"), (b"ARROW1", "arrow"), (b"\xff\xff\xff\xff", "arrow"), (b"\x93NUMPY", "npy"),
)  # fmt: skip
_COMPRESSION_MAGIC = ((b"\x1f\x8b", ".gz"), (b"BZh", ".bz2"), (b"\xfd7zXZ\x00", ".xz"))


@dataclass(frozen=True)
class Part:
    """One file of a source: its name for messages, its format, how to open it afresh (decompressed), its size on disk."""

    name: str
    format: str
    raw: Callable[[], BinaryIO]
    size: int
    compression: str | None = None
    path: Path | None = None
    partition: tuple[tuple[str, str], ...] = ()

    def open(self) -> BinaryIO:
        """The decompressed bytes from their beginning; DataError where the file cannot be opened."""
        try:
            handle = self.raw()
            if self.compression is None:
                return handle
            return cast("BinaryIO", io.BufferedReader(_COMPRESSED[self.compression](handle)))
        except OSError as error:
            raise DataError(f"{self.name} cannot be opened: {(error.strerror or str(error)).lower()}") from None


@dataclass(frozen=True)
class Files:
    """The located files of one source, in order; what cannot be rewound (a pipe) is held, so that all passes see the same."""

    parts: tuple[Part, ...]


@contextmanager
def opened(part: Part) -> Iterator[BinaryIO]:
    """The decompressed bytes of a part, closed afterwards; DataError where they cannot be read or decompressed to the end."""
    with part.open() as handle:
        try:
            yield handle
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile):
            raise DataError(
                f"{part.name} is cut off or damaged inside its {part.compression} compression: copy it again"
            ) from None
        except OSError as error:
            raise DataError(f"{part.name} cannot be read: {(error.strerror or str(error)).lower()}") from None


# Standard input can be read once; it is kept so that estimating, sampling and reading see the same bytes.
_standard_input: list[tuple[object, Part]] = []


def _spooled(stream: BinaryIO, name: str) -> Part:
    """A stream that cannot be rewound, copied to an unnamed temporary file."""
    spool = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the part
    while block := stream.read(1 << 20):
        spool.write(block)
    spool.flush()
    size = spool.tell()

    def reopened() -> BinaryIO:
        spool.seek(0)
        return os.fdopen(os.dup(spool.fileno()), "rb")

    return _with_format(Part(name, "", reopened, size))


def _from_standard_input() -> Part:
    if _standard_input and _standard_input[0][0] is sys.stdin:
        return _standard_input[0][1]
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None or sys.stdin.isatty():
        raise DataError(
            "'-' reads a table from standard input, and nothing was piped in: use COMMAND | discrepancy compare ... -"
        )
    part = _spooled(stream, "standard input")
    _standard_input[:] = [(sys.stdin, part)]
    return part


def _with_format(part: Part, suffixes: tuple[str, ...] = ()) -> Part:
    """The part with compression and format, by its bytes where they say so, else by its name."""
    with part.open() as handle:
        head = handle.read(8)
    packed = next((name for magic, name in _COMPRESSION_MAGIC if head.startswith(magic)), None)
    if packed is not None:
        part = replace(part, compression=packed)
        try:
            with part.open() as handle:
                head = handle.read(8)
        except (OSError, EOFError, lzma.LZMAError):
            raise DataError(f"{part.name} is a damaged {packed} file: compress it again or unpack it") from None
    named = FORMATS.get(suffixes[-1]) if suffixes else None
    if part.size == 0:
        raise DataError(f"{part.name} is empty: it needs a header line and at least one row")
    by_bytes = next((name for magic, name in _MAGIC if head.startswith(magic)), None)
    if by_bytes is None and head.startswith(b"PK"):
        if named not in ("npz", None) or (named is None and suffixes):
            raise DataError(f"{part.name} is a zip archive or a spreadsheet, not {named or 'a table'}: export it as csv")
        by_bytes = "npz"
    if by_bytes is None and named in ("parquet", "arrow", "npy", "npz"):
        if named == "arrow" and head.startswith(b"FEA1"):
            raise DataError(f"{part.name} is a Feather file of version 1: save it as Parquet or Feather version 2")
        raise DataError(f"{part.name} is not a {named} file (its first bytes are {head[:6]!r}): it is damaged or misnamed")
    if by_bytes is None and head.startswith(
        (b"\x89HDF", b"SQLite", b"\xd0\xcf\x11\xe0", b"%PDF", b"\x80\x04\x95", b"\x80\x03", b"\x80\x05")
    ):
        raise DataError(f"{part.name} is a binary file of a kind that is not read here: export the table as csv or Parquet")
    if by_bytes is None and named is None:
        by_bytes = (
            "jsonl" if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:2] in (b'{"', b"[{", b"{ ", b"{}", b"{'", b"[\n", b"[ ") else "csv"
        )
    return replace(part, format=by_bytes or named or "csv")


def _suffixes(path: Path) -> tuple[str, ...]:
    """Lower-case suffixes that mean something, compression taken off."""
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    return tuple(suffixes[-1:])


def _file(path: Path, name: str, root: Path | None = None) -> Part:
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):  # a pipe, such as <(command): read once, like standard input
            with path.open("rb") as stream:
                return _spooled(stream, name)
        if path.suffix.lower() in _FOREIGN:
            raise DataError(f"{name} is {_FOREIGN[path.suffix.lower()]}")
        part = Part(name, "", lambda: path.open("rb"), facts.st_size, path=path)
        part = _with_format(part, _suffixes(path))
    except PermissionError:
        raise DataError(f"{name} cannot be read: permission denied") from None
    except OSError as error:
        raise DataError(f"{name} cannot be read: {(error.strerror or str(error)).lower()}") from None
    if root is not None:
        keys = [piece.split("=", 1) for piece in path.relative_to(root).parent.parts if "=" in piece]
        part = replace(part, partition=tuple((key, value) for key, value in keys))
    return part


def _readable(path: Path) -> bool:
    known = path.suffix.lower() in FORMATS or (path.suffix.lower() in _COMPRESSED and bool(_suffixes(path)))
    return path.is_file() and known and not path.name.startswith((".", "_"))


def _folder(folder: Path, name: str) -> list[Part]:
    try:
        files = sorted(p for p in folder.rglob("*") if _readable(p))
    except OSError as error:
        raise DataError(f"the folder {name} cannot be read: {(error.strerror or str(error)).lower()}") from None
    if not files:
        raise DataError(f"the folder {name} holds no data file: expected {', '.join(sorted(FORMATS))}")
    return _one_format([_file(p, str(p.relative_to(folder)), folder) for p in files], name)


def _one_format(parts: list[Part], name: str) -> list[Part]:
    formats = sorted({"csv" if p.format == "tsv" else p.format for p in parts})
    if len(formats) > 1:
        raise DataError(f"{name} mixes {' and '.join(formats)} files: name one kind with a glob such as '{name}/*.csv'")
    return parts


def locate(source: str | os.PathLike[str]) -> Files:
    """The files behind a path, glob, folder or "-", in order of their names, all of one format.

    Folders are searched below too; `key=value` folders become columns; names that begin with "." or "_" are passed over.
    The bytes decide the format before the name does. Raises DataError for what is not there, cannot be opened, is of a
    kind that is not read, or holds no data.
    """
    text = os.fspath(source)
    if text == "-":
        return Files((_from_standard_input(),))
    if "://" in text:
        raise DataError(f"{text} is an address: only local files are read, so download it first")
    path = Path(text).expanduser()
    if path.is_dir():
        return Files(tuple(_folder(path, text)))
    if path.exists():
        return Files((_file(path, path.name),))
    if any(c in text for c in "*?["):
        matches = sorted(Path(p) for p in glob.glob(str(path), recursive=True))
        files = [p for p in matches if p.is_file() and not p.name.startswith((".", "_"))]
        if not files:
            raise DataError(f"nothing matches {text!r}: check the pattern, or name a folder")
        return Files(tuple(_one_format([_file(p, p.name) for p in files], text)))
    if path.is_symlink():
        raise DataError(f"{text} is a link to {os.readlink(path)}, which does not exist")
    try:
        near = closest(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else ""
    except OSError:
        near = ""
    missing = [p for p in reversed(path.parents) if str(p) != "." and not p.exists()][:1]
    where = f" (there is no folder {listed([str(missing[0])])})" if missing else near
    raise DataError(f"{text} does not exist{where}")
