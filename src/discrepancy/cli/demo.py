"""`discrepancy demo`: the main job on real data, with the command that a user would type."""

from __future__ import annotations

import csv
import io
import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from discrepancy.cli.output import emit, write

_YEARS = ("2012", "2015")


def demo(*, output: Annotated[Path, Parameter(alias="-o")] = Path("demo")) -> int:
    """Compare Seattle's weather of 2012 with that of 2015 and leave a report.

    Parameters
    ----------
    output
        The folder for the two csv files and the report (it is made if needed).
    """
    from discrepancy.cli import run
    from discrepancy.datasets import table

    output.mkdir(parents=True, exist_ok=True)
    days = table("seattle-weather")
    files = []
    for year in _YEARS:
        file = output / f"seattle-{year}.csv"
        text = io.StringIO()
        rows = [day for day in days if day["date"].startswith(year)]
        writer = csv.DictWriter(text, fieldnames=list(days[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write(str(file), text.getvalue())
        files.append(str(file))
    # Days in time order resemble their neighbours, so whole blocks of days move together under the null.
    command = ["compare", *files, "--block", "auto", "--html", str(output / "report.html")]
    emit(f"$ discrepancy {shlex.join(command)}\n")
    return run(command)
