"""Which comparisons work on summaries: those with a profile on either side, and those of files above the memory budget.

Files that are too large are read twice, a chunk at a time: once for the kinds of their columns and a uniform sample, once to
count. Columns are compared on all rows, the joint test runs on the sample.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from discrepancy.comparison.columnpair import Pairing
from discrepancy.comparison.joint import compare_joint
from discrepancy.comparison.kinds import decide
from discrepancy.comparison.model import ColumnPair, JointResult, Options, TablePair, Units
from discrepancy.comparison.natures import natures
from discrepancy.comparison.pairing import GIB, chosen_columns, gib
from discrepancy.comparison.profile.compare import (
    STREAMED,
    Findings,
    Progress,
    compare_profiled,
    compare_profiles,
    refuse_rows_options,
)
from discrepancy.comparison.profile.plan import Planned, sentence
from discrepancy.comparison.profile.profile import count
from discrepancy.comparison.profile.scan import Scan, Source, scan
from discrepancy.comparison.profile.store import is_profile
from discrepancy.comparison.profile.tally import knots_of_sample
from discrepancy.comparison.reading import estimate_bytes


def in_summary(
    reference: Any, current: Any, options: Options, names: tuple[str, str], progress: Progress | None = None
) -> Findings | None:
    """The findings where a side is a profile, or the files are above the budget and no sample is asked for; else None.

    Raises as `compare_profiled` and `compare_streamed`.
    """
    if is_profile(reference) or is_profile(current):
        return compare_profiled(reference, current, options, names, progress)
    if options.sample is not None:
        return None
    wanted = None if options.columns is None else len(options.columns)
    need = sum(estimate_bytes(source, wanted) for source in (reference, current))
    if need <= options.memory * GIB:
        return None
    return compare_streamed(reference, current, options, names, progress, need=need)


def compare_streamed(
    reference: Any,
    current: Any,
    options: Options,
    names: tuple[str, str],
    progress: Progress | None = None,
    *,
    need: float | None = None,
) -> Findings:
    """Two sources of any size in little memory, in two passes over each.

    Kinds come from all cells of both tables, as in a comparison of rows. Knots come from a sample of both tables pooled, so
    that under the null neither is favoured; counts at them are exact. The joint test sees a uniform sample of each table, of up
    to 100,000 rows. `need`: bytes that rows would take, for the note. Time twice that of reading, memory of a chunk
    and two samples: some 30 % of `options.memory`, but not below some 200 MB.
    Raises OptionError for options that need all rows at once, DataError as `compare`.
    """
    refuse_rows_options(options, STREAMED)
    say = progress or (lambda done, total, what: None)
    sources = [Source(s, name, options.columns, options.memory) for s, name in zip((reference, current), names, strict=True)]
    scans: list[Scan] = []
    for i, (source, side) in enumerate(zip(sources, ("reference", "current"), strict=True)):
        say(i, 4, f"reading {source.name}")
        scans.append(scan(source, options.seed, side))
    samples = [s.sample for s in scans]
    common, left_out = chosen_columns(samples, options, names)
    pairing = Pairing(options, names, (scans[0].comma, scans[1].comma), set(common))
    planned: tuple[list[Planned], list[Planned]] = ([], [])
    pairs: list[ColumnPair] = []
    for name in common:
        evidence = (scans[0].evidence[name], scans[1].evidence[name])
        # Pairing refuses clashing kinds, with a cell that shows it where the sample has one.
        made, reason = pairing.pair(name, (samples[0].columns[name], samples[1].columns[name]), evidence)
        if reason is not None:
            left_out[name] = reason
            continue
        pairs += made
        decision = decide(name, *evidence, options.kinds.get(name), pairing.comma)
        can = tuple(sorted(natures(evidence[0]) | natures(evidence[1])))
        for side in (0, 1):
            planned[side].append(Planned(name, decision, can, sentence(decision.notes), side))
    table = TablePair(pairs, samples[0].rows, samples[1].rows, names=names)
    knots = {p.name: _pooled_knots(p) for p in pairs if p.kind.ordered}
    counted = []
    for i, (source, found, mine) in enumerate(zip(sources, scans, planned, strict=True)):
        say(2 + i, 4, f"counting {source.name}")
        counted.append(count(source, found, mine, {}, seed=options.seed, knots=knots, joint=False, sketches=False))

    def joint(permutations: int | None) -> JointResult | None:
        units = Units(table.rows_reference, table.rows_current)
        result = compare_joint(table, units, options, permutations=permutations)
        return None if result is None else _numbered(result, scans)

    notes = []
    if need is not None:
        notes.append(
            f"the tables would take about {gib(need)} in memory and {gib(options.memory * GIB)} is allowed (--memory), so that "
            "they were read twice in pieces: columns are compared on all rows, each counted at up to 2,048 values or cut into "
            "cells at up to 1,024"
        )
    sampled = [(name, s) for name, s in zip(names, scans, strict=True) if s.rows > s.sample.rows]
    if sampled and options.joint != "none":
        shown = " and ".join(f"{s.sample.rows:,} rows of {name}" for name, s in sampled)
        notes.append(f"the joint test is on a uniform sample of {shown}")
    found = compare_profiles(counted[0], counted[1], replace(options, kinds={}), notes, progress, joint=joint)
    return replace(found, left_out={**found.left_out, **left_out})


def _pooled_knots(pair: ColumnPair) -> np.ndarray:
    return knots_of_sample(np.concatenate([pair.reference.values, pair.current.values]))


def _numbered(result: JointResult, scans: list[Scan]) -> JointResult:
    """Typical rows by their number in the file, not in the sample."""
    typical = {
        side: [{**row, "row": int(found.picked[row["row"]])} for row in result.typical.get(side, [])]
        for side, found in zip(("reference", "current"), scans, strict=True)
    }
    return replace(result, typical=typical if result.typical else {})


__all__ = ["compare_streamed", "in_summary", "is_profile"]
