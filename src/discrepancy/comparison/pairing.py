"""Two sources to a `TablePair`: common columns on one scale, row weights and clusters, and a word on all that was left out."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from discrepancy.comparison.columnpair import Pairing
from discrepancy.comparison.duplicates import duplicate_note
from discrepancy.comparison.errors import DataError, OptionError, closest, listed
from discrepancy.comparison.evidence import Evidence, gather
from discrepancy.comparison.model import Options, TablePair
from discrepancy.comparison.reading import Files, RawTable, estimate_bytes, is_path, iterate, locate, read_table, source_name
from discrepancy.comparison.rowroles import clusters, row_weights
from discrepancy.comparison.sampling import reservoir

GIB = 2**30
SIDES = ("reference", "current")


def display_names(reference: Any, current: Any) -> tuple[str, str]:
    """What to call the two tables: their file names, with folders where those are equal; else reference and current."""
    names = (source_name(reference, "reference"), source_name(current, "current"))
    if names[0] != names[1]:
        return names
    if isinstance(reference, str | os.PathLike) and isinstance(current, str | os.PathLike):
        longer = tuple("/".join(Path(os.fspath(s)).parts[-2:]) for s in (reference, current))
        if longer[0] != longer[1]:
            return longer[0], longer[1]
    return SIDES


def read_pair(reference: Any, current: Any, options: Options, names: tuple[str, str] | None = None) -> TablePair:
    """Read two tables and put them side by side.

    `reference` and `current`: a path, glob, folder or "-", any data frame, arrays by column, a matrix, or a list of
    mappings. Kinds are decided on both tables pooled (`options.kinds` overrides), levels are pooled, free text is
    replaced by the columns derived from it, identifiers are left out. Linear in cells; memory of both tables, at most
    `options.memory` GiB of files unless `options.sample` asks for a uniform sample, which is drawn in one pass.
    Raises DataError for data that cannot be read or compared, OptionError for columns or kinds that do not exist.
    """
    refuse_two_streams(reference, current)
    names = names or display_names(reference, current)
    tables, notes = _read((reference, current), options, names)
    return pair_tables(tables[0], tables[1], options, names, notes)


def held(source: Any) -> Any:
    """A path as its located files, so that a pipe, which can be read once only, is the same to all who read it."""
    return locate(source) if is_path(source) and not isinstance(source, Files) else source


def refuse_two_streams(reference: Any, current: Any) -> None:
    """Raise OptionError if both tables are to come from standard input."""
    if all(isinstance(s, str) and s == "-" for s in (reference, current)):
        raise OptionError("only one of the two tables can come from standard input")


def _read(sources: tuple[Any, Any], options: Options, names: tuple[str, str]) -> tuple[list[RawTable], list[str]]:
    notes: list[str] = []
    shown = [source_name(source, name) for source, name in zip(sources, names)]
    # Located once: a pipe can be read once only, and is held from here on.
    found = [held(source) for source in sources]
    wanted = None
    if options.columns is not None:
        wanted = list(dict.fromkeys([*options.columns, *(r for r in (options.by, options.cluster) if r is not None)]))
    columns = [_with_weights(source, wanted, options.weights) for source in found]
    if options.sample is None:
        need = [estimate_bytes(source, None if some is None else len(some)) for source, some in zip(found, columns)]
        if sum(need) > options.memory * GIB:
            big = shown[int(np.argmax(need))]
            raise DataError(
                f"{big} with its partner would take about {gib(sum(need))} in memory, {gib(options.memory * GIB)} is allowed: "
                "compare a uniform sample with --sample 1000000, fewer columns with --columns, or allow more with --memory"
            )
        tables = [read_table(source, some, name=name) for source, some, name in zip(found, columns, names)]
    else:
        tables = []
        for source, some, name, side in zip(found, columns, names, SIDES):
            table, rows = reservoir(iterate(source, some, name=name), options.sample, options.seed, side)
            if rows > table.rows:
                notes.append(f"{name}: a uniform sample of {table.rows:,} of its {rows:,} rows was compared.")
            tables.append(replace(table, name=name))
    for table in tables:
        if not table.columns:
            raise DataError(f"{table.name} has no column that can be compared: {_reasons(table.left_out)}")
    return tables, notes


def gib(size: float) -> str:
    """A size in bytes for a sentence."""
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:.1f} MiB"


def _with_weights(source: Any, wanted: list[str] | None, weights: str | None) -> list[str] | None:
    """The columns to read, with the weights where the source has them: one table may be weighted and the other not."""
    if wanted is None or weights is None or weights in wanted:
        return wanted
    first = next(iterate(source, rows=1))
    return [*wanted, weights] if weights in first.columns else wanted


def chosen_columns(tables: list[RawTable], options: Options, names: tuple[str, str]) -> tuple[list[str], dict[str, str]]:
    """The common columns to compare, in the reference's order, and why others are left out."""
    known = [set(t.columns) | set(t.left_out) for t in tables]
    every = known[0] | known[1]
    if options.columns is None:
        # With --columns the others were not read: a configuration written for the whole tables serves a part of them too.
        for option, asked in (("kinds", options.kinds), ("deltas", options.deltas), ("margins", options.margins)):
            for name in asked:
                source = name.rpartition(": ")[0]  # a column derived from text, "review: length"
                if name not in every and source not in every:
                    raise OptionError(f"{option} names the column {name!r}, which is in neither table{closest(name, every)}")
    roles = {r for r in (options.by, options.weights, options.cluster) if r is not None}
    left_out = {}
    if options.columns is not None:
        for name in options.columns:
            lacking = [names[i] for i in (0, 1) if name not in known[i]]
            if len(lacking) == 2:
                raise DataError(f"neither table has a column {name!r}{closest(name, every)}")
            if lacking:
                raise DataError(f"{lacking[0]} has no column {name!r}, which --columns asks for")
    for i, one, other in ((0, known[0], known[1]), (1, known[1], known[0])):
        for name in tables[i].columns:
            if name not in other and name in one and options.columns is None and name != options.weights:
                left_out[name] = f"only in {'the reference' if i == 0 else 'the current table'}"
    for table in tables:
        for name, reason in table.left_out.items():
            if options.columns is None or name in options.columns:
                left_out[name] = reason if name in known[0] & known[1] else left_out.get(name, reason)
    wanted = None if options.columns is None else set(options.columns) | roles
    common = [n for n in tables[0].columns if n in tables[1].columns and (wanted is None or n in wanted)]
    if not (known[0] & known[1]):
        folded = {n.casefold() for n in known[0]} & {n.casefold() for n in known[1]}
        hint = f"; some differ in capitals only ({listed(sorted(folded))})" if folded else ""
        first = f" ({listed(tables[0].columns, 3)} against {listed(tables[1].columns, 3)})"
        header = any("first line holds only numbers" in note for t in tables for note in t.notes)
        remedy = "give both a header line" if header else "rename the columns of one of them"
        raise DataError(f"{names[0]} and {names[1]} have no column in common{first}{hint}: {remedy}")
    if not common:
        raise DataError(f"no common column of {names[0]} and {names[1]} can be compared: {_reasons(left_out)}")
    return common, left_out


def _reasons(left_out: dict[str, str]) -> str:
    return ", ".join(f"{name!r} {reason}" for name, reason in list(left_out.items())[:3]) or "it has none"


def writes_comma(table: RawTable, evidence: dict[str, Evidence]) -> bool:
    """Whether a table writes a decimal comma: some column allows nothing else, or semicolons suggest it and none forbids."""
    from discrepancy.comparison.cells.numbers import COMMA, GROUPED_POINT, POINT

    facts = [e.numbers for e in evidence.values() if e.numbers is not None and "text" in e.families and not e.numbers.whole]
    if any(COMMA in f.formats and not f.formats & {POINT, GROUPED_POINT} for f in facts):
        return True
    return table.delimiter == ";" and not any(POINT in f.formats and COMMA not in f.formats for f in facts)


def pair_tables(
    reference: RawTable, current: RawTable, options: Options, names: tuple[str, str] | None = None, notes: list[str] | None = None
) -> TablePair:
    """Two raw tables side by side; see `read_pair`. Raw columns are released as they are converted."""
    names = names or (reference.name, current.name)
    tables = [reference, current]
    notes = [*(notes or []), *(note for t in tables for note in t.notes)]
    common, left_out = chosen_columns(tables, options, names)
    notes += [note for t, side in zip(tables, SIDES) if (note := duplicate_note(t, side))]

    weights = (None, None)
    if options.weights is not None:
        weights, weight_notes = row_weights(tables, options.weights, names, counts=options.frequency_weights)
        notes += weight_notes
        left_out[options.weights] = "row weights"
    cluster = (None, None)
    if options.cluster is not None:
        cluster = clusters(tables, options.cluster, names)
        left_out[options.cluster] = "clusters"
    if options.by is not None and options.by not in common:
        raise DataError(f"--by names the column {options.by!r}, which is not in both tables{closest(options.by, common)}")

    compared = [n for n in common if n not in (options.weights, options.cluster)]
    evidence = [{n: gather(t.columns[n], n) for n in compared} for t in tables]
    comma = (writes_comma(tables[0], evidence[0]), writes_comma(tables[1], evidence[1]))
    pairing = Pairing(options, names, comma, set(common))
    columns = []
    for name in compared:
        raws = (tables[0].columns[name], tables[1].columns[name])
        made, reason = pairing.pair(name, raws, (evidence[0].pop(name), evidence[1].pop(name)))
        columns += made
        if reason is not None:
            left_out[name] = reason
    if options.embedding is not None and not any(c.source for c in columns):
        notes.append("No text column was found for the embedding.")
    one_sided = [sum(reason.startswith(f"only in the {side}") for reason in left_out.values()) for side in SIDES]
    for count, side in zip(one_sided, ("the reference", "the current table")):
        if count:
            verb = "column is" if count == 1 else "columns are"
            notes.append(f"{count} {verb} in {side} only and could not be compared.")
    return TablePair(
        columns,
        reference.rows,
        current.rows,
        *weights,
        *cluster,
        names=names,
        left_out=left_out,
        notes=list(dict.fromkeys(notes)),
    )
