"""`discrepancy compare`: the main job, from two paths to a verdict on the screen and in files."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from discrepancy.cli.failures import CONDITION, FINE, UsageError
from discrepancy.cli.output import check_writable, emit, one_stream, write

if TYPE_CHECKING:
    from discrepancy.comparison.model import Options

_OUTPUT = Group("Output", sort_key=1)
_VERDICT = Group("Verdict", sort_key=2)
_DATA = Group("Data", sort_key=3)
_RUN = Group("Computation", sort_key=4)
_Flag = Parameter(negative="", show_default=False)


def column_names(given: list[str] | None) -> tuple[str, ...] | None:
    """Names separated by commas; a name with a comma in it goes in double quotes."""
    if given is None:
        return None
    names = [name.strip() for row in csv.reader(given, skipinitialspace=True) for name in row if name.strip()]
    if not names:
        raise UsageError("--columns takes column names separated by commas, got none")
    return tuple(dict.fromkeys(names))


def kinds_by_name(given: list[str] | None) -> dict[str, str] | None:
    """Column to kind from texts that read name=kind."""
    if given is None:
        return None
    kinds: dict[str, str] = {}
    for item in given:
        name, equals, kind = item.rpartition("=")
        if not equals or not name:
            raise UsageError(f"--kind reads name=kind, for example --kind zip=code, got {item!r}")
        kinds[name] = kind.strip()
    return kinds


def _block(given: str | None) -> int | str | None:
    if given is None or given == "auto":
        return given
    try:
        return int(given)
    except ValueError:
        raise UsageError(f"--block takes a number of rows, or auto, got {given!r}") from None


def settle(config: Path | None, **given: Any) -> Options:
    """The options: what is typed wins over the TOML file, and the file over the defaults."""
    from discrepancy.comparison.front import settled

    typed = {key: value for key, value in given.items() if value is not None}
    if config is None:
        return settled(None, typed)
    from discrepancy.comparison.config import load_config

    options = load_config(config)
    if "kinds" in typed:
        typed["kinds"] = {**options.kinds, **typed["kinds"]}
    return settled(options, typed)


def compare(
    reference: str,
    current: str,
    /,
    *,
    json: Annotated[Path | None, Parameter(group=_OUTPUT)] = None,
    html: Annotated[Path | None, Parameter(group=_OUTPUT)] = None,
    markdown: Annotated[Path | None, Parameter(group=_OUTPUT)] = None,
    csv: Annotated[Path | None, Parameter(group=_OUTPUT)] = None,
    quiet: Annotated[bool, _Flag, Parameter(alias="-q", group=_OUTPUT)] = False,
    no_color: Annotated[bool, _Flag, Parameter(group=_OUTPUT)] = False,
    fail_on_drift: Annotated[bool, _Flag, Parameter(group=_VERDICT)] = False,
    level: Annotated[float | None, Parameter(group=_VERDICT)] = None,
    correction: Annotated[Literal["holm", "bh", "none"] | None, Parameter(group=_VERDICT)] = None,
    delta: Annotated[float | None, Parameter(group=_VERDICT)] = None,
    margin: Annotated[float | None, Parameter(group=_VERDICT)] = None,
    joint: Annotated[Literal["mmd", "classifier", "none"] | None, Parameter(group=_VERDICT)] = None,
    config: Annotated[Path | None, Parameter(group=_DATA)] = None,
    columns: Annotated[list[str] | None, Parameter(group=_DATA, negative="")] = None,
    kind: Annotated[list[str] | None, Parameter(group=_DATA, negative="")] = None,
    by: Annotated[str | None, Parameter(group=_DATA)] = None,
    weights: Annotated[str | None, Parameter(group=_DATA)] = None,
    frequency_weights: Annotated[bool | None, _Flag, Parameter(group=_DATA)] = None,
    block: Annotated[str | None, Parameter(group=_DATA)] = None,
    cluster: Annotated[str | None, Parameter(group=_DATA)] = None,
    embedding: Annotated[str | None, Parameter(group=_DATA)] = None,
    sample: Annotated[int | None, Parameter(group=_RUN)] = None,
    permutations: Annotated[int | None, Parameter(group=_RUN)] = None,
    seed: Annotated[int | None, Parameter(group=_RUN)] = None,
    memory: Annotated[float | None, Parameter(group=_RUN)] = None,
) -> int:
    """Compare two data sets: what changed, how far, and how sure.

    Exit code 0, or with --fail-on-drift 1 where drift was found; 2 a mistyped command; 3 data that cannot be read or
    compared; 4 numerical failure.

    Parameters
    ----------
    reference
        What it was: a csv, tsv, json lines, npy, npz, Parquet or Arrow file (or .gz of one), a folder, a quoted
        glob, a .profile, or - for standard input.
    current
        What it is now, in the same columns.
    json
        Write the whole result as one JSON document to this file; - is standard output.
    html
        Write a report to this file: one page, no network needed.
    markdown
        Write the tables in Markdown to this file; - is standard output.
    csv
        Write one line a column to this file; - is standard output.
    quiet
        Print no table and no progress; errors are always printed.
    no_color
        No colours on the terminal (NO_COLOR does the same).
    fail_on_drift
        End with exit code 1 if drift was found.
    level
        Level of the whole family of tests (0.05).
    correction
        How many tests are accounted for: holm (any false flag, the default), bh (share of false flags) or none.
    delta
        Minimum effect in size units; 0 tests for any difference at all. By column: in the TOML file.
    margin
        Equivalence margin in size units (0.10 for ordered columns, 0.05 for shares). By column: in the TOML file.
    joint
        The joint test: mmd (the default), classifier or none.
    config
        Options from a TOML file that `discrepancy init` wrote; what is typed wins.
    columns
        Compare these columns only: names separated by commas.
    kind
        Override a detected kind, as name=kind; can be repeated.
    by
        Compare inside the groups of this column.
    weights
        Column of row weights.
    frequency_weights
        The weights count rows.
    block
        Rows are in time order: move blocks of this many rows, or auto.
    cluster
        Column whose equal values belong together (patients, shops).
    embedding
        Folder of a local sentence-embedding model for text columns.
    sample
        Compare a uniform sample of this many rows a table.
    permutations
        Permutations to begin with (999); more are drawn where the verdict hangs on them.
    seed
        Seed of all random numbers (0): the same seed gives the same report.
    memory
        GiB that a comparison may hold (1.0).
    """
    given = {"json": json, "html": html, "markdown": markdown, "csv": csv}
    outputs = {name: str(path) for name, path in given.items() if path is not None}
    one_stream(*outputs.values())
    if reference == "-" and current == "-":
        raise UsageError("only one of the two data sets can come from standard input")
    for path in outputs.values():
        check_writable(path)
    options = settle(
        config,
        level=level,
        correction=correction,
        columns=column_names(columns),
        kinds=kinds_by_name(kind),
        by=by,
        weights=weights,
        frequency_weights=frequency_weights,
        block=_block(block),
        cluster=cluster,
        delta=delta,
        margin=margin,
        permutations=permutations,
        sample=sample,
        seed=seed,
        joint=joint,
        embedding=embedding,
        memory=memory,
    )

    from discrepancy.cli.progress import bar
    from discrepancy.comparison.front import compare as compare_data

    with bar(quiet=quiet, color=not no_color) as progress:
        report = compare_data(reference, current, options=options, progress=progress)
    # All texts exist before the first file is touched: a failing renderer leaves no half of a set behind.
    render = {"json": report.to_json, "html": report.to_html, "markdown": report.to_markdown, "csv": report.to_csv}
    texts = {path: render[name]() for name, path in outputs.items()}
    talk = not quiet and "-" not in texts
    if talk:
        from discrepancy.comparison.render.terminal import show

        show(report, color=not no_color)
    for path, text in texts.items():
        write(path, text)
    if talk and texts:
        emit(f"Wrote {', '.join(texts)}.")
    return CONDITION if fail_on_drift and report.drift else FINE
