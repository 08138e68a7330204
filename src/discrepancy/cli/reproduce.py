"""`discrepancy reproduce`: run papers' claims on data at hand, beside what was found before."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from discrepancy.cli.failures import CONDITION, DATA, FINE, UsageError, say
from discrepancy.cli.output import check_writable, emit, write

if TYPE_CHECKING:
    from discrepancy._results import Finding


def reproduce(
    slug: str | None = None,
    *,
    all: Annotated[bool, Parameter(negative="")] = False,  # the option's name is what the user types
    quick: Annotated[bool, Parameter(negative="")] = False,
    check: Annotated[bool, Parameter(negative="")] = False,
    commit: Annotated[bool, Parameter(negative="")] = False,
    discrepancy: str | None = None,
    divergence: str | None = None,
    output: Annotated[Path, Parameter(alias="-o")] = Path("reproduced"),
    jobs: int = 1,
    json: str | None = None,
    quiet: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Run a paper's recipe: claim beside measurement over seeds, a figure, and exit code 0 (held) or 1 (not held).

    Parameters
    ----------
    slug
        The paper (`discrepancy papers` lists them).
    all
        Every paper that has a recipe.
    quick
        A small version, in about ten seconds.
    check
        Exit 1 only on a contradiction with the committed finding, not on an honest "not held".
    commit
        Write the finding into the package's sources (for developers of this library).
    discrepancy, divergence
        Replace the paper's choice, for example sinkhorn-divergence:epsilon=0.1 (where the method takes one).
    output
        The folder for figures.
    jobs
        With --all: how many recipes run at a time, each in a process of its own with its share of the threads.
    json
        Write the record(s) to this file; "-" is standard output.
    quiet
        Print nothing but errors.
    """
    from discrepancy.recipes.catalogue import has_recipe, paper, papers

    if (slug is None) == (not all):
        raise UsageError("name one paper, or use --all")
    if discrepancy is not None and divergence is not None:
        raise UsageError("choose one of --discrepancy and --divergence")
    slugs = [p.slug for p in papers() if has_recipe(p.slug)] if slug is None else [paper(slug).slug]
    if json is not None:
        check_writable(json)
    if jobs < 1:
        raise UsageError(f"--jobs must be at least 1, got {jobs}")
    choice = _choice(discrepancy or divergence)
    options: dict[str, Any] = {"quick": quick, "check": check, "choice": choice, "output": output, "quiet": quiet or json == "-"}
    records: list[dict[str, Any]] = []
    worst = FINE
    for name, (record, code) in zip(slugs, _each(slugs, min(jobs, len(slugs)), options), strict=True):
        if record is not None:
            records.append(record)
            if commit:
                _commit(name, record, quick)
        worst = max(worst, code)
    if json is not None:
        from json import dumps

        write(json, dumps(records if slug is None else records[0] if records else None, indent=2, ensure_ascii=False) + "\n")
    return worst


def _each(slugs: list[str], jobs: int, options: dict[str, Any]) -> Iterator[tuple[dict[str, Any] | None, int]]:
    """The record and exit code of each recipe, in the order of the slugs."""
    if jobs == 1:
        yield from (_one(slug, **options) for slug in slugs)
        return
    from discrepancy.cli.processes import pool

    with pool(jobs) as executor:
        for future in [executor.submit(_one, slug, **options) for slug in slugs]:
            yield future.result()


def _choice(text: str | None) -> Any:
    if text is None:
        return None
    from discrepancy._registry import parse

    return parse(text)


def _one(slug: str, *, quick: bool, check: bool, choice: Any, output: Path, quiet: bool) -> tuple[dict[str, Any] | None, int]:
    """Run one recipe; its JSON record and exit code. A missing data package is exit 3 and one sentence."""
    from discrepancy.datasets import MissingCarrier
    from discrepancy.recipes.runner import contradiction
    from discrepancy.recipes.runner import reproduce as run

    def progress(done: int, of: int) -> None:
        if not quiet and sys.stderr.isatty():
            print(f"\r{slug}: seed {done} of {of}", end="\n" if done == of else "", file=sys.stderr, flush=True)

    try:
        found = run(slug, quick=quick, choice=choice, figure=output / f"{slug}.png", progress=progress)
    except MissingCarrier as missing:
        say(missing.args[0])
        return None, DATA
    if not quiet:
        _show(found)
    record = _record(found)
    if check:
        against = contradiction(found)
        if against is not None:
            say(f"contradicts the committed finding: {against}")
            return record, CONDITION
        return record, FINE
    return record, FINE if found.held else CONDITION


def _record(found: Finding) -> dict[str, Any]:
    from discrepancy.recipes.catalogue import paper

    about = paper(found.slug).to_dict()
    about |= {"status": "held" if found.held else "not held", "held": found.held, "measured": found.measured}
    return about | {"quick": found.quick, "numbers": found.numbers, "per_seed": found.per_seed}


def _show(found: Finding) -> None:
    lines = [f"{found.slug}: {found.claim}"]
    for row in found.numbers["checks"]:
        interval = "" if row["low"] is None else f"  [{row['low']:.4g}, {row['high']:.4g}]"
        value = "none" if row["measured"] is None else f"{row['measured']:.4g}"
        lines.append(f"  {'held    ' if row['held'] else 'NOT HELD'}  {row['name']}: {value}{interval}  (asked: {row['bound']})")
    emit("\n".join(lines))


def _commit(slug: str, record: dict[str, Any], quick: bool) -> None:
    """Keep a finding beside the recipes, the quick and the full run apart."""
    from json import dumps

    from discrepancy.recipes import catalogue

    folder = Path(catalogue.__file__).parent / "findings"
    folder.mkdir(exist_ok=True)
    kept = catalogue.finding(slug) or {}
    kept["quick" if quick else "full"] = {k: record[k] for k in ("held", "measured", "numbers", "per_seed")}
    write(str(folder / f"{slug}.json"), dumps(kept, indent=1, ensure_ascii=False) + "\n")
