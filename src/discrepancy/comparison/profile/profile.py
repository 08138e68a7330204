"""`profile`: a data set as a small file that stands for it in comparisons, merges with others, and holds no row of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from discrepancy.comparison.errors import DataError
from discrepancy.comparison.model import Column, ColumnPair, Kind
from discrepancy.comparison.profile.frozen_map import fit
from discrepancy.comparison.profile.levels import LevelCounts, LevelTally
from discrepancy.comparison.profile.ordered import OrderedCounts
from discrepancy.comparison.profile.plan import Planned, Read, plan, plan_like, read
from discrepancy.comparison.profile.scan import Scan, Source, scan
from discrepancy.comparison.profile.tally import OrderedTally, knots_of_sample
from discrepancy.comparison.profile.unit_sums import UnitSums, UnitTally
from discrepancy.comparison.units import lag_one

_STRETCH = 10_000  # leading rows looked at for serial dependence


@dataclass(frozen=True)
class ColumnProfile:
    """What a profile knows of one column.

    `natures`: what its raw cells could be read as. `truths`, `codes`: how levels are named (see `Decision`). `source`: the
    text column that it was derived from. `serial`: lag-1 autocorrelation in file order and the pairs of rows behind it.
    `moves`: an instant that runs in one direction through the file.
    """

    name: str
    kind: Kind
    unit: str
    counts: OrderedCounts | LevelCounts
    natures: tuple[str, ...] = ()
    truths: tuple[str, str] | None = None
    codes: bool = False
    source: str | None = None
    note: str | None = None
    serial: tuple[float, int] = (0.0, 0)
    moves: bool = False


@dataclass(frozen=True)
class Profile:
    """A data set summed up: for every column its distribution, for all of them together sums of random features.

    `rows` in all, `parts` how many tables were merged into it, `seed` that of its random numbers. About 20 kB a column
    and 2 MB for the joint part; no row can be read from it, but level names and the smallest and largest values can.
    """

    name: str
    rows: int
    columns: tuple[ColumnProfile, ...]
    joint: UnitSums | None
    seed: int = 0
    parts: int = 1
    left_out: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Profile({self.name!r}, {self.rows:,} rows, {len(self.columns)} columns)"

    def column(self, name: str) -> ColumnProfile:
        """The column of that name; KeyError lists those there are."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"no column {name!r} in {self.name}; there are {', '.join(c.name for c in self.columns[:20])}")

    def save(self, path: Any) -> None:
        """Write the profile to one file; see `load_profile`."""
        from discrepancy.comparison.profile.store import to_bytes, write_whole

        write_whole(path, to_bytes(self))

    def raw(self) -> dict[str, tuple[Kind, tuple[str, ...], tuple[str, str] | None, bool]]:
        """Raw column -> its kind, natures, truth names and whether levels are whole numbers; text under its own name."""
        found: dict[str, tuple[Kind, tuple[str, ...], tuple[str, str] | None, bool]] = {}
        for c in self.columns:
            found[c.source or c.name] = (Kind.TEXT if c.source else c.kind, c.natures, c.truths, c.codes)
        return found


def profile(
    data: Any,
    *,
    like: Profile | None = None,
    columns: Sequence[str] | None = None,
    kinds: dict[str, Kind] | None = None,
    seed: int = 0,
    memory: float = 1.0,
    name: str | None = None,
) -> Profile:
    """Sum up a data set in two passes over it, in little memory.

    `data`: whatever `compare` takes (a pipe is spooled to disk first). The first pass decides each column's kind from all
    of its cells, by the rules of a comparison, and draws a sample; the second counts. `like`: take kinds, knots and the map
    of the joint part from this profile, so that the two compare without interpolation and jointly. `kinds` overrides.
    Time linear in cells, about twice that of reading; memory of a chunk and a sample, some 20 % of `memory` GiB. Sources:
    Karnin, Lang and Liberty (2016) for quantiles, Misra and Gries (1982) for levels, Rahimi and Recht (2007) for the features.
    Raises DataError for data that cannot be read or do not fit `like`, OptionError for kinds of columns that do not exist.
    """
    from discrepancy.comparison.reading import is_path, locate, source_name

    shown = name or source_name(data, "the data")
    located = locate(data) if is_path(data) and not _is_files(data) else data
    source = Source(located, shown, None if columns is None else tuple(dict.fromkeys(columns)), memory)
    found = scan(source, seed, "profile")
    if like is None:
        planned, left_out = plan(found, {k: Kind(v) for k, v in (kinds or {}).items()})
    else:
        planned, left_out = plan_like(found, like.raw(), like.name)
    if not planned:
        reasons = ", ".join(f"{k!r} {why}" for k, why in list(left_out.items())[:3])
        raise DataError(f"{shown} has no column that can be profiled: {reasons}")
    return count(source, found, planned, left_out, seed=seed, like=like)


def _is_files(data: Any) -> bool:
    from discrepancy.comparison.reading import Files

    return isinstance(data, Files)


def read_rows(planned: list[Planned], table: Any, taken: set[str]) -> list[Read]:
    """All columns of some rows as what is counted."""
    return [one for column in planned for one in read(column, table.columns.get(column.name), table.rows, taken)]


def count(
    source: Source,
    found: Scan,
    planned: list[Planned],
    left_out: dict[str, str],
    *,
    seed: int,
    like: Profile | None = None,
    knots: dict[str, np.ndarray] | None = None,
    joint: bool = True,
    sketches: bool = True,
) -> Profile:
    """The second pass: count every column, and sum features over units.

    knots: where to cut a column that has too many distinct values (None: at quantiles of the sample). sketches: keep those
    that a merge needs. Linear in cells.
    """
    taken = set(found.evidence)
    sample = read_rows(planned, found.sample, taken)
    known = {} if like is None else {c.name: c for c in like.columns}
    tallies: dict[str, OrderedTally | LevelTally] = {}
    for column in sample:
        tallies[column.name] = _tally(column, known.get(column.name), (knots or {}).get(column.name), planned, sketches)
    map_ = None
    if joint:
        map_ = fit(sample, found.sample.rows, seed) if like is None else like.joint.map if like.joint is not None else None
    units = (
        None
        if map_ is None
        else UnitTally(map_, found.rows, seed, "profile" if like is None else "current", None if like is None else like.joint)
    )
    serial: dict[str, tuple[float, int]] = {}
    runs = {c.name: _Direction() for c in sample if c.kind is Kind.DATETIME}
    meta = {c.name: (c.kind, c.unit, c.source) for c in sample}
    start = 0
    for chunk in source.chunks():
        columns = read_rows(planned, chunk, taken)
        for column in columns:
            tally = tallies[column.name]
            if isinstance(tally, OrderedTally):
                tally.add(np.asarray(column.values, dtype=np.float64))
            else:
                tally.add(column.values, column.missing)  # type: ignore[arg-type]
            if not start:
                serial[column.name] = _serial(column)
            if column.name in runs:
                runs[column.name].add(np.asarray(column.values)[~column.missing])
        if units is not None:
            units.add({c.name: c for c in columns}, start, chunk.rows)
        start += chunk.rows
    by_name = {p.name: p for p in planned}
    made = []
    for name, (kind, unit, origin) in meta.items():
        p = by_name[origin or name]
        first = origin is None or name.startswith(f"{origin}: length")
        made.append(
            ColumnProfile(
                name, kind, unit, tallies[name].finish(), p.natures, p.decision.truths, p.decision.codes, origin,
                p.note if first else None, serial.get(name, (0.0, 0)), name in runs and runs[name].one_way,
            )
        )  # fmt: skip
    sums = None if units is None else units.finish()
    return Profile(source.name, start, tuple(made), sums, seed, 1, left_out, found.notes)


def _tally(
    column: Read, known: ColumnProfile | None, knots: np.ndarray | None, planned: list[Planned], sketch: bool
) -> OrderedTally | LevelTally:
    if not column.kind.ordered:
        truths = next((p.decision.truths for p in planned if p.name == column.name), None)
        return LevelTally(truths or ())
    own = knots_of_sample(np.asarray(column.values, dtype=np.float64)) if knots is None else knots
    if known is not None and isinstance(known.counts, OrderedCounts) and len(known.counts.knots):
        if not known.counts.complete:
            return OrderedTally(own, known.counts.knots, sketch=sketch)
        own = np.union1d(own, known.counts.knots)
    return OrderedTally(own, sketch=sketch)


def _serial(column: Read) -> tuple[float, int]:
    """The lag-1 autocorrelation of the leading rows; none for instants, which show the order and not what depends on it."""
    if column.kind is Kind.DATETIME:
        return 0.0, 0
    values, missing = column.values[:_STRETCH], column.missing[:_STRETCH]
    if column.kind.ordered:
        side, levels = Column(np.asarray(values, dtype=np.float64), missing), None
    else:
        names, codes = np.unique(np.asarray(values, dtype=object).astype(str), return_inverse=True)
        side, levels = Column(np.where(missing, -1, codes), missing), tuple(names.tolist())
    return lag_one(ColumnPair(column.name, column.kind, side, side, levels=levels), "reference")


class _Direction:
    """Whether instants only rise, or only fall, through a stream."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._up = self._down = False

    def add(self, values: np.ndarray) -> None:
        if not len(values):
            return
        steps = np.diff(values if self._last is None else np.concatenate([[self._last], values]))
        self._up |= bool((steps > 0).any())
        self._down |= bool((steps < 0).any())
        self._last = float(values[-1])

    @property
    def one_way(self) -> bool:
        return self._up != self._down
