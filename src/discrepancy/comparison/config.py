"""Options in a TOML file: reading them, and writing a file that a data set suggests (`discrepancy init`)."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from discrepancy.comparison.errors import OptionError, closest
from discrepancy.comparison.model import Kind, Options, TablePair

_TABLES = ("kinds", "deltas", "margins")
_TEXTS = ("correction", "by", "weights", "cluster", "joint", "embedding")
_WHOLE = ("permutations", "sample", "seed")
_NUMBERS = ("level", "delta", "margin", "memory")


def options_from(settings: Mapping[str, Any], origin: str = "the options") -> Options:
    """`Options` from plain values by name, as TOML or JSON hold them.

    Raises OptionError, naming `origin`, the option, what came and what was expected, for unknown names (listing the
    valid ones), wrong types and values out of range.
    """
    known = [f.name for f in fields(Options)]
    given: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in known:
            raise OptionError(f"{origin}: unknown option {name!r}{closest(name, known)}; valid are {', '.join(known)}")
        given[name] = _typed(name, value, origin)
    try:
        return Options(**given)
    except OptionError as error:
        raise OptionError(f"{origin}: {error}") from None


def _typed(name: str, value: Any, origin: str) -> Any:
    def refuse(expected: str) -> OptionError:
        return OptionError(f"{origin}: {name} must be {expected}, got {value!r}")

    number = isinstance(value, int | float) and not isinstance(value, bool)
    whole = isinstance(value, int) and not isinstance(value, bool)
    if name in _TABLES:
        if not isinstance(value, Mapping):
            raise refuse("a table of values by column")
        for column, entry in value.items():
            if name == "kinds" and not isinstance(entry, str):
                raise OptionError(f"{origin}: the kind of {column!r} must be one of {', '.join(Kind)}, got {entry!r}")
            if name != "kinds" and (isinstance(entry, bool) or not isinstance(entry, int | float)):
                raise OptionError(f"{origin}: {name} of {column!r} must be a number, got {entry!r}")
        return dict(value)
    if name == "columns":
        if not isinstance(value, list | tuple) or not all(isinstance(c, str) for c in value):
            raise refuse("a list of column names")
        return tuple(value)
    if name == "frequency_weights":
        if not isinstance(value, bool):
            raise refuse("true or false")
    elif name == "block":
        if not (whole or value == "auto"):
            raise refuse("a number of rows, or 'auto'")
    elif name in _TEXTS:
        if not isinstance(value, str):
            raise refuse("a text")
    elif name in _WHOLE:
        if not whole:
            raise refuse("a whole number")
    elif name in _NUMBERS and not number:
        raise refuse("a number")
    return value


def load_config(path: str | os.PathLike[str]) -> Options:
    """The options in a TOML file: at its top, or under [tool.discrepancy] in a pyproject.toml.

    Raises OptionError for a file that cannot be read or is not TOML, and as `options_from` does.
    """
    name = os.fspath(path)
    try:
        content = tomllib.loads(Path(path).read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise OptionError(f"the configuration {name} cannot be read: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError as error:
        raise OptionError(f"the configuration {name} is not UTF-8 (byte {error.start}): save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise OptionError(f"the configuration {name} is not TOML: {str(error)[:1].lower()}{str(error)[1:]}") from None
    tool = content.get("tool")
    if isinstance(tool, Mapping):
        section = tool.get("discrepancy")
        if not isinstance(section, Mapping):
            raise OptionError(f"{name} has no table [tool.discrepancy]")
        return options_from(section, f"{name} [tool.discrepancy]")
    return options_from(content, name)


def _quoted(text: str) -> str:
    """A TOML basic string; JSON's escapes are among TOML's, but for the delete character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


_EXPLAINED = (
    ("level", "error rate of the whole family of tests"),
    ("correction", "holm: any false flag; bh: share of false flags; none"),
    ("joint", "the multivariate test: mmd, classifier or none"),
    ("permutations", "to begin with; more are drawn where a verdict hangs on them"),
    ("seed", "the same seed gives the same report"),
    ("memory", "GiB that a comparison may hold"),
)
_OFFERED = (
    ("columns", '["...", "..."]', "compare these only"),
    ("by", '"..."', "compare inside the groups of this column"),
    ("weights", '"..."', "column of row weights"),
    ("frequency_weights", "true", "the weights count rows"),
    ("cluster", '"..."', "column whose equal values belong together"),
    ("block", '"auto"', "rows are in time order: move them in blocks"),
    ("sample", "1000000", "compare a uniform sample of this many rows"),
    ("embedding", '"folder"', "local sentence-embedding model for text columns"),
    ("delta", "0.02", "minimum effect of every column, in size units; default 0.02 ordered, 0.01 shares"),
    ("margin", "0.10", "equivalence margin of every column, in size units; default 0.10 ordered, 0.05 shares"),
)


def write_config(pair: TablePair) -> str:
    """A TOML configuration for these data, which `load_config` reads back: options, kinds as detected, thresholds to set.

    The kinds are written as overrides, so that later data are read the same way; an option at its default that needs a
    value of the user's is a comment.
    """
    defaults = {f.name: f.default for f in fields(Options) if f.default is not MISSING}
    lines = [
        "# Configuration of `discrepancy compare`; use it with --config. What is typed on the command line wins.",
        f"# Written from {_commented(pair.names[0])} ({pair.rows_reference:,} rows) and "
        f"{_commented(pair.names[1])} ({pair.rows_current:,} rows).",
        "",
    ]
    for name, meaning in _EXPLAINED:
        value = defaults[name]
        shown = _quoted(value) if isinstance(value, str) else repr(value)
        lines.append(f"{name} = {shown}  # {meaning}")
    lines.append("")
    lines += [f"# {name} = {example}  # {meaning}" for name, example, meaning in _OFFERED]
    lines += ["", "[kinds]  # as detected on both tables; one of " + ", ".join(Kind)]
    kinds: dict[str, tuple[str, str]] = {}
    for column in pair.columns:
        if column.source is not None:
            kinds.setdefault(column.source, (Kind.TEXT.value, "compared by length and kinds of characters"))
        else:
            kinds[column.name] = (column.kind.value, _remark(column))
    for name, reason in pair.left_out.items():
        if reason.startswith("identifier"):
            kinds[name] = (Kind.IDENTIFIER.value, "left out")
    lines += [f"{_quoted(n)} = {_quoted(k)}" + (f"  # {_commented(r)}" if r else "") for n, (k, r) in kinds.items()]
    lines += ["", "[deltas]  # minimum effect by column, in size units: below it nothing is flagged"]
    lines += [f"# {_quoted(c.name)} = {0.02 if c.kind.ordered else 0.01}" for c in pair.columns]
    lines += ["", "[margins]  # equivalence margin by column, in size units: below it one may act as if nothing changed"]
    lines += [f"# {_quoted(c.name)} = {0.10 if c.kind.ordered else 0.05}" for c in pair.columns]
    return "\n".join(lines) + "\n"


def _remark(column: Any) -> str:
    if not column.tested:
        return f"not tested: {(column.note or '').split('.')[0].lower()}"
    if column.levels is not None:
        levels = ", ".join(column.levels[:5])
        return f"{len(column.levels)} level(s): {levels}" + (", ..." if len(column.levels) > 5 else "")
    return column.unit


def _commented(text: str) -> str:
    """Text that is safe in a comment: one line, no control characters."""
    return "".join(c if c.isprintable() else " " for c in text)[:120]
