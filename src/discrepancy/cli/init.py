"""`discrepancy init`: a configuration written from the data, to edit and to commit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from discrepancy.cli.failures import UsageError
from discrepancy.cli.output import check_writable, emit, write


def init(
    reference: str,
    current: str | None = None,
    /,
    *,
    output: Annotated[Path, Parameter(alias="-o")] = Path("discrepancy.toml"),
    force: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Write a discrepancy.toml for your data: columns with their detected kinds, thresholds, and what each option means.

    Parameters
    ----------
    reference
        The data set that comparisons will refer to.
    current
        A second one, for kinds that only show in both (a column that moves with time, a level that is rare).
    output
        The file to write; - is standard output.
    force
        Overwrite a file that exists.
    """
    target = str(output)
    if target != "-":
        check_writable(target)
        if output.exists() and not force:
            raise UsageError(f"{target} exists: name another file with -o, or overwrite it with --force")

    from discrepancy.comparison.config import write_config
    from discrepancy.comparison.model import Options
    from discrepancy.comparison.pairing import read_pair

    if current is None and reference == "-":
        raise UsageError("init reads the data twice when there is one data set: give a file and not standard input")
    text = write_config(read_pair(reference, reference if current is None else current, Options()))
    write(target, text)
    if target != "-":
        emit(f"Wrote {target}. Use it with: discrepancy compare {reference} CURRENT --config {target}")
    return 0
