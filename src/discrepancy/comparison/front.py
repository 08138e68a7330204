"""`compare`: the one function that runs a whole comparison, from two sources to a finished report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from discrepancy.comparison.model import Options, TablePair, Units
from discrepancy.comparison.report import ComparisonReport, GroupReport, UnitFacts

if TYPE_CHECKING:
    from discrepancy.comparison.profile.compare import Findings
    from discrepancy.comparison.verdict import Verdict

Progress = Callable[[int, int, str], None]  # (done, total, what is being worked on)


def compare(
    reference: Any,
    current: Any,
    *,
    options: Options | None = None,
    names: tuple[str, str] | None = None,
    progress: Progress | None = None,
    **keywords: Any,
) -> ComparisonReport:
    """Compare two data sets: for every column and jointly, what changed, how far, how sure, and what is shown not to have.

    Both are anything that holds a table: a path (csv, tsv, json lines, npy, npz, Parquet, Arrow; .gz too), a glob, a folder,
    "-" for standard input, a pandas, polars or pyarrow table, a dict of arrays, a matrix; or a profile, as object or file.
    `options` holds every setting; `keywords` are fields of `Options` and win over it: `compare(a, b, level=0.01,
    by="region")`. `names` are what the report calls the two. `progress(done, total, what)` is called as the work goes on.

    The same seed gives the same report. About N log N + 999 N steps a column up to 20,000 rows a table, N log N beyond; the
    memory of both tables up to `options.memory` GiB of files, beyond which they are streamed twice. The statistics are those of
    Gretton et al. (2012), Westfall and Young (1993), Holm (1979) and the others that the report cites.
    Raises DataError (a ValueError) for data that cannot be read or compared, OptionError (a ValueError) for options that do
    not exist or do not fit the data, NumericalError where a computation fails.
    """
    from discrepancy.comparison.pairing import display_names, held, read_pair, refuse_two_streams
    from discrepancy.comparison.profile.routes import in_summary, is_profile

    began = time.perf_counter()
    chosen = settled(options, keywords)
    refuse_two_streams(reference, current)
    names = names or display_names(reference, current)
    reference, current = (source if is_profile(source) else held(source) for source in (reference, current))
    found = in_summary(reference, current, chosen, names, progress)
    if found is not None:
        report = _summed(found, chosen, names)
    else:
        report = compare_tables(read_pair(reference, current, chosen, names), chosen, progress=progress)
    return replace(report, seconds=time.perf_counter() - began)


def _summed(found: Findings, options: Options, names: tuple[str, str]) -> ComparisonReport:
    """The report on tables that were never held in rows: profiles, and files above the memory budget."""
    from discrepancy import __version__

    verdict = found.verdict
    return ComparisonReport(
        names=names,
        rows=found.rows,
        options=options,
        columns=verdict.columns,
        joint=verdict.joint,
        drift=verdict.drift,
        error_rate=verdict.error_rate,
        version=__version__,
        units=UnitFacts("rows", found.rows, "permutation", None),
        left_out=dict(found.left_out),
        notes=_sentences(found.notes),
    )


def settled(options: Options | None, keywords: dict[str, Any]) -> Options:
    """The options with keywords put over them; OptionError names an unknown one and lists the valid."""
    from dataclasses import fields

    from discrepancy.comparison.config import options_from

    base = {} if options is None else {f.name: getattr(options, f.name) for f in fields(Options)}
    given = {name: value for name, value in {**base, **keywords}.items() if value is not None}
    return options_from(given, "compare")


def compare_tables(table: TablePair, options: Options, *, progress: Progress | None = None) -> ComparisonReport:
    """The report on two tables side by side; with `options.by`, on every group of them, all in one family.

    Time and errors as `compare`, less the reading.
    """
    from discrepancy import __version__
    from discrepancy.comparison.family import Family

    tables = {"": table}
    if options.by is not None:
        from discrepancy.comparison.groups import by, unmatched

        tables = by(table, options.by)
        table = replace(table, notes=[*table.notes, *unmatched(table, options.by)])
    family = Family(tables, options, progress)
    family.measure()
    verdicts = family.decide()
    first = next(iter(verdicts))
    units = family.units(first)
    whole = verdicts[""] if options.by is None else None
    notes = [*table.notes, units.note or ""] if whole is not None else table.notes
    groups = () if whole is not None else tuple(_group(g, tables[g], v, family.units(g)) for g, v in verdicts.items())
    return ComparisonReport(
        names=table.names,
        rows=(table.rows_reference, table.rows_current),
        options=options,
        columns=whole.columns if whole is not None else (),
        joint=whole.joint if whole is not None else None,
        drift=any(verdict.drift for verdict in verdicts.values()),
        error_rate=verdicts[first].error_rate,
        version=__version__,
        groups=groups,
        units=UnitFacts(units.kind, (units.count_reference, units.count_current), units.null, units.block_length),
        left_out=dict(table.left_out),
        notes=_sentences(notes),
    )


def _group(value: str, table: TablePair, verdict: Verdict, units: Units) -> GroupReport:
    return GroupReport(
        value=value,
        rows=(table.rows_reference, table.rows_current),
        columns=verdict.columns,
        joint=verdict.joint,
        notes=_sentences([*table.notes, units.note or ""]),
    )


def _sentences(notes: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_sentence(note) for note in notes if note.strip()))


def _sentence(text: str) -> str:
    """A note as a sentence: a capital letter first (unless an option or a name leads), a full stop last."""
    text = text.strip()
    if text and text[0].islower() and text.split()[0].isalpha():
        text = text[0].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."
