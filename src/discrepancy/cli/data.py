"""`discrepancy data`: the data sets that installed packages carry."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from discrepancy.cli.failures import UsageError
from discrepancy.cli.output import check_writable, emit, write


def data(
    name: str | None = None,
    *,
    output: Annotated[str, Parameter(alias="-o")] = "-",
    requirements: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """List the data sets with the line that installs each, or export one.

    Parameters
    ----------
    name
        The data set to export as it is in its package; none lists all.
    output
        Where to write it; "-" is standard output.
    requirements
        Print the carriers as lines of a requirements file.
    """
    from discrepancy.datasets import catalogue, path
    from discrepancy.datasets import requirements as lines

    if requirements:
        if name is not None:
            raise UsageError("--requirements lists all carriers: leave the name out")
        write(output, lines())
        return
    if name is not None:
        check_writable(output)
        file = path(name)
        if output == "-" and file.suffix not in (".csv", ".json"):
            raise UsageError(f"{file.name} is not plain text: name a file with --output")
        write(output, file.read_bytes())
        return
    for record in catalogue().values():
        there = "here" if record.located() is not None else record.install
        emit(f"{record.name:<24} {record.rows:>9} x {record.columns:<4} {record.title}  [{there}]")
