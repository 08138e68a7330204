"""`discrepancy papers`: the 90 published methods and where each stands."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

from cyclopts import Parameter

from discrepancy.cli.failures import UsageError
from discrepancy.cli.output import emit

_WORDS = {"planned": "planned", "working": "working", "held": "held here", "not held": "not held here"}


def papers(
    *,
    json: Annotated[bool, Parameter(negative="")] = False,
    markdown: Annotated[bool, Parameter(negative="")] = False,
    field: str | None = None,
    status: Literal["planned", "working", "held", "not held"] | None = None,
) -> None:
    """List the papers: slug, field, status, and what their recipe measured.

    Parameters
    ----------
    json
        Print a JSON list of records instead of a table.
    markdown
        Print the table of the README instead.
    field
        Only the papers of one field (transport, distillation, ...).
    status
        Only the papers of one status.
    """
    from discrepancy.recipes.catalogue import papers as catalogue

    if json and markdown:
        raise UsageError("choose one of --json and --markdown")
    listed = [p for p in catalogue() if field in (None, p.field) and status in (None, p.status)]
    if field is not None and not any(p.field == field for p in catalogue()):
        raise UsageError(f"no field {field!r}; the fields are {', '.join(sorted({p.field for p in catalogue()}))}")
    if json:
        from json import dumps

        emit(dumps([p.to_dict() for p in listed], indent=2, ensure_ascii=False))
    elif markdown:
        rows = ["| method | paper | field | status |", "|---|---|---|---|"]
        for p in listed:
            title = f"[{p.title}](https://arxiv.org/abs/{p.arxiv})" if p.arxiv else p.title
            rows.append(f"| `{p.slug}` | {title} ({p.year}) | {p.field} | {_WORDS[p.status]} |")
        emit("\n".join(rows))
    elif sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table("slug", "field", "status", "claim", title=f"{len(listed)} papers", title_justify="left")
        for p in listed:
            table.add_row(p.slug, p.field, p.status, p.measured or p.claim)
        Console().print(table)
    else:
        emit("\n".join(f"{p.slug}\t{p.field}\t{p.status}\t{p.measured or p.claim}" for p in listed))
