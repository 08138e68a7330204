"""`discrepancy matrix`: every method with every divergence that it takes, in one table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from discrepancy.cli.failures import CONDITION, FINE, UsageError
from discrepancy.cli.output import check_writable, emit, one_stream, write

if TYPE_CHECKING:
    from discrepancy.recipes.matrix import Matrix


def matrix(
    *,
    methods: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    divergences: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    seeds: int = 5,
    jobs: int = 1,
    committed: Annotated[bool, Parameter(negative="")] = False,
    markdown: Annotated[bool, Parameter(negative="")] = False,
    figure: Path | None = None,
    json: str | None = None,
    commit: Annotated[bool, Parameter(negative="")] = False,
    quiet: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Run each method's small task with each divergence and print the table: mean and interval over seeds.

    Exit code 1 if a run failed numerically; a divergence that a method does not admit is no failure.

    Parameters
    ----------
    methods
        Slugs of papers, separated by spaces or commas (default: all that take a divergence).
    divergences
        Divergences, for example kl jensen-shannon alpha:a=0.5 (default: ten).
    seeds
        The number of seeds, 0, 1, ...; the same for all divergences of a method.
    jobs
        How many cells are run at a time, each in a process of its own with its share of the threads.
    committed
        Print the table that the package carries, cut to --methods and --divergences, and run nothing.
    markdown
        Print Markdown.
    figure
        Save the table as a heat map.
    json
        Write the numbers of every seed to this file; "-" is standard output.
    commit
        Write the table into the package's sources; with --methods only their rows (for developers of this library).
    quiet
        Print nothing but errors.
    """
    from discrepancy.recipes.matrix import DIVERGENCES, swap_table, tasks
    from discrepancy.recipes.matrix import committed as stored

    if json is not None:
        check_writable(json)
    if figure is not None:
        check_writable(str(figure))
        one_stream(str(figure), *([] if json is None else [json]))
    chosen, columns = _split(methods), _split(divergences)
    if committed:
        if commit:
            raise UsageError("choose one of --committed and --commit")
        known = stored()
        if known is None:
            raise UsageError("the package carries no table yet: run without --committed")
        table = _cut(known, chosen, columns)
    else:
        from contextlib import ExitStack

        from discrepancy.cli.processes import pool
        from discrepancy.cli.progress import bar

        if jobs < 1:
            raise UsageError(f"--jobs must be at least 1, got {jobs}")
        with ExitStack() as stack:
            progress = stack.enter_context(bar(quiet=quiet))
            mapper = stack.enter_context(pool(jobs)).map if jobs > 1 else map
            table = swap_table(chosen or list(tasks()), columns or DIVERGENCES, seeds=seeds, progress=progress, mapper=mapper)
    if figure is not None:
        from discrepancy.recipes.matrix_views import draw

        draw(table, figure)
    if commit:
        from json import dumps

        from discrepancy.recipes import catalogue

        known = stored() if chosen else None
        if known is not None:
            table = known.joined(table)
        write(str(Path(catalogue.__file__).parent / "findings" / "matrix.json"), dumps(table.to_dict(), indent=1) + "\n")
    if json is not None:
        from json import dumps

        write(json, dumps(table.to_dict(), indent=2, ensure_ascii=False) + "\n")
    if not quiet and json != "-":
        _show(table, markdown)
    return CONDITION if not committed and any(cell.failure for cell in table.cells) else FINE


def _split(texts: list[str] | None) -> list[str]:
    """Names separated by commas; a comma inside the options of one ("name:a=1,b=2") is followed by an equals sign."""
    return [name for text in texts or [] for name in re.split(r",(?![^,:]*=)", text) if name]


def _cut(table: Matrix, methods: list[str], divergences: list[str]) -> Matrix:
    from discrepancy.recipes.matrix import Matrix

    known = [row.method for row in table.rows]
    for name in methods:
        if name not in known:
            raise UsageError(f"the committed table has no method {name!r}; it has {', '.join(known)}")
    for name in divergences:
        if name not in table.divergences:
            raise UsageError(f"the committed table has no divergence {name!r}; it has {', '.join(table.divergences)}")
    rows = tuple(row for row in table.rows if not methods or row.method in methods)
    columns = tuple(name for name in table.divergences if not divergences or name in divergences)
    kept = tuple(c for c in table.cells if c.divergence in columns and c.method in {row.method for row in rows})
    return Matrix(rows, columns, table.seeds, kept)


def _show(table: Matrix, as_markdown: bool) -> None:
    from discrepancy.recipes.matrix_views import markdown, terminal

    if as_markdown:
        emit(markdown(table))
        return
    from rich.console import Console

    console = Console()
    for part in terminal(table, console.width):
        console.print(part)
