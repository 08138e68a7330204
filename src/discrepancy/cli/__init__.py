"""The command line: one table of commands, each loaded when it is called, so that `--help` imports nothing heavy.

Adding a command is one line in `_COMMANDS` and one module whose function has annotated, keyword-only options and
returns its exit code (None is 0). What a command raises becomes one sentence and an exit code in `failures.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclopts import App

# name -> ("module:function", the line that `discrepancy --help` shows)
_COMMANDS: dict[str, tuple[str, str]] = {
    "compare": ("discrepancy.cli.compare:compare", "Compare two data sets: what changed, how far, and how sure."),
    "init": ("discrepancy.cli.init:init", "Write a discrepancy.toml for your data, to edit and to commit."),
    "profile": ("discrepancy.cli.profile:profile", "Sum up a data set in a small file to compare with, or merge such files."),
    "schema": ("discrepancy.cli.schema:schema", "Print the JSON Schema of what compare --json writes."),
    "papers": ("discrepancy.cli.papers:papers", "List the 90 published methods and where each stands."),
    "reproduce": ("discrepancy.cli.reproduce:reproduce", "Run a paper's claim on data at hand."),
    "matrix": ("discrepancy.cli.matrix:matrix", "Run each method with each divergence that it takes: the swap table."),
    "cite": ("discrepancy.cli.cite:cite", "Print BibTeX for a paper, a method or a discrepancy."),
    "data": ("discrepancy.cli.data:data", "List or export the data sets that installed packages carry."),
    "demo": ("discrepancy.cli.demo:demo", "Compare two real years of weather and write a report."),
}

# A lone "-" means standard input or output, yet looks like an option to the parser. No argument of a process can hold
# a NUL, so it stands in for "-" while the options are told apart.
_STREAM = "\0"


def build() -> App:
    """The application with all its commands, none of them imported yet."""
    from cyclopts import App

    from discrepancy import __version__

    app = App(
        name="discrepancy",
        help="Measure, test and minimise the difference between two probability distributions.",
        version=__version__,
        result_action="return_value",
        help_format="plaintext",
    )
    for name, (path, line) in _COMMANDS.items():
        app.command(path, name=name, help=line)
    return app


def _dash(value: Any) -> Any:
    if isinstance(value, str):
        return "-" if value == _STREAM else value
    if isinstance(value, PurePath):
        return type(value)("-") if str(value) == _STREAM else value
    if isinstance(value, list | tuple):
        return type(value)(_dash(item) for item in value)
    return value


def _unknown(name: str) -> Exception:
    # The parser's own message would import every command to list them.
    from difflib import get_close_matches

    from discrepancy.cli.failures import UsageError

    close = get_close_matches(name, _COMMANDS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"the commands are {', '.join(_COMMANDS)}."
    return UsageError(f"there is no command or option {name!r} here: {hint}")


def run(tokens: Sequence[str]) -> int:
    """Parse one command line, run its command, and return the exit code; errors pass through."""
    if tokens and tokens[0] not in (*_COMMANDS, "--help", "-h", "--version"):
        raise _unknown(tokens[0])
    app = build()
    command, bound, _ = app.parse_args(
        [_STREAM if token == "-" else token for token in tokens], exit_on_error=False, print_error=False
    )
    args = [_dash(value) for value in bound.args]
    kwargs = {key: _dash(value) for key, value in bound.kwargs.items()}
    code = command(*args, **kwargs)
    return code if isinstance(code, int) else 0


def main(tokens: Sequence[str] | None = None) -> None:
    """The entry point: exits with 0 fine, 1 the asked-for condition, 2 usage, 3 data, 4 numerical, 130 interrupted."""
    from discrepancy.cli.failures import guarded

    sys.exit(guarded(lambda: run(sys.argv[1:] if tokens is None else tokens)))
