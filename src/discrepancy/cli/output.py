"""Where a command's results go: files written beside and renamed, `-` for standard output, nothing half-written."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from discrepancy.cli.failures import UsageError


def check_writable(path: str) -> None:
    """Refuse, before any work, an output that could not be written afterwards.

    Raises OSError (folder missing, read-only, or `path` is a folder), with the path in the message.
    """
    if path == "-":
        return
    target = Path(path)
    folder = target.parent
    if target.is_dir():
        raise IsADirectoryError(21, "is a folder: name a file in it", path)
    if not folder.is_dir():
        raise FileNotFoundError(2, "no such folder to write into: create it first", str(folder))
    # Asking by doing: os.access answers from the permission bits, not for a read-only file system or for root.
    try:
        handle, probe = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=folder)
    except OSError as error:
        raise type(error)(error.errno, f"cannot write into this folder ({(error.strerror or '').lower()})", str(folder)) from None
    os.close(handle)
    os.unlink(probe)


def write(path: str, content: str | bytes) -> None:
    """Write a whole file or none: to a neighbour first, then renamed over `path`; `-` is standard output.

    Text is UTF-8 with line feeds on every system. An interruption removes the neighbour and leaves an older `path` as it was.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    if path == "-":
        emit(data.decode("utf-8") if isinstance(content, bytes) else content)
        return
    target = Path(path)
    handle, neighbour = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; a report is as readable as any file that the user creates.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(neighbour, 0o666 & ~mask)
        os.replace(neighbour, target)
    except BaseException:
        Path(neighbour).unlink(missing_ok=True)
        raise


def emit(text: str) -> None:
    """Text on standard output, in UTF-8 whatever the locale, newline at the end."""
    if not text.endswith("\n"):
        text += "\n"
    stream = getattr(sys.stdout, "buffer", None)
    if stream is None:  # a captured stream that takes text only
        sys.stdout.write(text)
    else:
        sys.stdout.flush()
        stream.write(text.encode("utf-8"))
        stream.flush()


def one_stream(*paths: str) -> None:
    """Refuse two documents in one place: the second would overwrite the first, or run into it on standard output."""
    for path in paths:
        if paths.count(path) > 1:
            raise UsageError(f"two outputs go to {path!r}: give each its own file, and at most one of them '-'")
