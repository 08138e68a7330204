"""Comparisons of what is not held in rows: profiles with profiles, profiles with data, and files above the memory budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from discrepancy.comparison.columns import Draws, compare_counts
from discrepancy.comparison.errors import DataError, OptionError, closest
from discrepancy.comparison.joint import joint_from_sums
from discrepancy.comparison.joint.null import Null
from discrepancy.comparison.model import ColumnResult, JointResult, Options
from discrepancy.comparison.profile.merging import aligned, compatible
from discrepancy.comparison.profile.pairs import CountedPair, counted_pair
from discrepancy.comparison.profile.profile import ColumnProfile, Profile, profile
from discrepancy.comparison.profile.store import is_profile, load_profile
from discrepancy.comparison.verdict import Verdict, decide, stops_early

Progress = Callable[[int, int, str], None]
Joint = Callable[[int | None], JointResult | None]

_ALIKE = 0.05  # relative difference of unit sizes up to which units are exchangeable


@dataclass(frozen=True)
class Findings:
    """What the statistics found, before it is put into a report."""

    verdict: Verdict
    rows: tuple[int, int]
    left_out: dict[str, str]
    notes: tuple[str, ...]


def refuse_rows_options(options: Options, why: str) -> None:
    """Raise OptionError for an option that needs the rows of both tables at once."""
    for name in ("by", "weights", "cluster", "block", "embedding"):
        if getattr(options, name) is not None:
            raise OptionError(f"{name} needs the rows of both tables at once, and {why}: leave it out{_OTHERWISE.get(why, '')}")


PROFILED = "a profile holds none"
STREAMED = "these are too large to hold"
_OTHERWISE = {STREAMED: ", compare a sample with --sample 1000000, or allow more with --memory"}


def compare_profiled(
    reference: Any, current: Any, options: Options, names: tuple[str, str], progress: Progress | None = None
) -> Findings:
    """Two sources of which at least one is a profile (an object or a file).

    The other side's rows are counted exactly at the profile's knots, with the profile's kinds, and seen through its map.
    Raises DataError where they do not fit the profile, OptionError for what needs rows. Two passes over the data.
    """
    refuse_rows_options(options, PROFILED)
    if options.joint == "classifier":
        raise OptionError("the classifier trains on rows, and a profile holds none: use --joint mmd, or --joint none")
    say = progress or (lambda done, total, what: None)
    say(0, 1, "reading")
    given = [load_profile(source) if is_profile(source) else None for source in (reference, current)]
    sides: list[Profile] = []
    notes = []
    for source, own, other, name in zip((reference, current), given, given[::-1], names, strict=True):
        if own is not None:
            sides.append(replace(own, name=name))
            notes.append(_of_profile(own, name))
            continue
        assert other is not None
        data, note = _sampled(source, options, name)
        notes += [note] if note else []
        which = names[1] if name == names[0] else names[0]
        wanted = None if options.columns is None else options.columns
        sides.append(
            profile(data, like=replace(other, name=which), columns=wanted, seed=options.seed, memory=options.memory, name=name)
        )
    if options.sample is not None and all(own is not None for own in given):
        raise OptionError("sample draws rows, and two profiles hold none: leave it out")
    return compare_profiles(sides[0], sides[1], options, notes, progress)


def _of_profile(found: Profile, name: str) -> str:
    merged = f", merged from {found.parts:,} parts" if found.parts > 1 else ""
    return f"{name} is a profile of {found.rows:,} rows{merged}: it holds no rows, so that no typical rows can be shown"


def _sampled(source: Any, options: Options, name: str) -> tuple[Any, str | None]:
    if options.sample is None:
        return source, None
    from discrepancy.comparison.reading import iterate
    from discrepancy.comparison.sampling import reservoir

    table, rows = reservoir(iterate(source, options.columns, name=name), options.sample, options.seed, "current")
    if rows <= table.rows:
        return table, None
    return table, f"{name}: a uniform sample of {table.rows:,} of its {rows:,} rows was compared"


def compare_profiles(
    a: Profile,
    b: Profile,
    options: Options,
    notes: Iterable[str] = (),
    progress: Progress | None = None,
    *,
    joint: Joint | None = None,
) -> Findings:
    """The statistics of two profiles: each column's on common knots, and jointly where both saw their rows through one map.

    joint: how else to test jointly, given a number of draws or None for the default. Time O(R x knots) a column.
    """
    pairs, left_out = _pairs(a, b, options)
    notes = [*notes, *a.notes, *b.notes]
    if joint is None:
        joint, why = _joint_of(a, b, options, pairs)
        notes += [why] if why else []
    if warning := _serial_warning((a, b), {p.facts.name for p in pairs if p.facts.tested}):
        notes.append(warning)
    found = {pair.facts.name: pair for pair in pairs}
    draws = Draws(options.seed)
    early = stops_early(sum(pair.facts.tested for pair in pairs))

    def column(name: str, permutations: int | None) -> ColumnResult:
        pair = found[name]
        return compare_counts(
            pair.counts, pair.facts, options, permutations=permutations, draws=draws,
            early_stop=early and permutations is None, summary=dict(pair.summary),
        )  # fmt: skip

    say = progress or (lambda done, total, what: None)
    results = []
    for i, name in enumerate(found):
        say(i, len(found) + 1, name)
        results.append(column(name, None))
    say(len(found), len(found) + 1, "joint distribution")
    whole = joint(None)
    verdict = decide(results, whole, options, column, refine_joint=None if whole is None else lambda draws: joint(draws) or whole)
    say(len(found) + 1, len(found) + 1, "verdict")
    return Findings(verdict, (a.rows, b.rows), left_out, tuple(notes))


def _pairs(a: Profile, b: Profile, options: Options) -> tuple[list[CountedPair], dict[str, str]]:
    """The columns that both have, side by side, and why others are left out."""
    one, two = {c.name: c for c in a.columns}, {c.name: c for c in b.columns}
    raw = [{c.source or c.name for c in p.columns} for p in (a, b)]
    every = raw[0] | raw[1] | a.left_out.keys() | b.left_out.keys()
    for name in options.columns or ():
        for p, known in ((a, raw[0]), (b, raw[1])):
            if name not in known and name not in p.left_out:
                raise DataError(f"{p.name} has no column {name!r}, which --columns asks for{closest(name, every)}")
    for name, kind in options.kinds.items():
        if name not in every:
            raise OptionError(f"kinds names the column {name!r}, which is in neither table{closest(name, every)}")
        for p in (a, b):
            fixed = p.raw()[name][0] if name in p.raw() else kind
            if fixed is not kind:
                raise OptionError(
                    f"{p.name} has column {name!r} as {fixed.value}: a profile fixes kinds, so make it again with "
                    f"--kind {name}={kind.value}"
                )
    wanted = None if options.columns is None else set(options.columns)
    left_out: dict[str, str] = {}
    for own, other, which in ((a, raw[1], "reference"), (b, raw[0], "current table")):
        for name, why in own.left_out.items():
            if wanted is None or name in wanted:
                left_out.setdefault(name, why)
        for name in dict.fromkeys(column.source or column.name for column in own.columns):
            if name not in other and (wanted is None or name in wanted):
                left_out.setdefault(name, f"only in the {which}")
    pairs = []
    for name, column in one.items():
        if name not in two or (wanted is not None and (column.source or name) not in wanted):
            continue
        x, y = column, two[name]
        if not compatible(x, y):
            raise DataError(
                f"column {x.source or x.name!r} is {x.kind.value} in {a.name} and {y.kind.value} in {b.name}: make the second "
                "profile with --like the first"
            )
        pair = counted_pair(*aligned(x, y))
        if x.source is not None and not pair.facts.tested and not name.startswith(f"{x.source}: length"):
            continue  # a share of characters that is one constant says nothing
        pairs.append(pair)
    if not pairs:
        reasons = ", ".join(f"{n!r} {why}" for n, why in list(left_out.items())[:3])
        raise DataError(f"{a.name} and {b.name} have no column in common that can be compared: {reasons or 'they share none'}")
    return pairs, left_out


def _joint_of(a: Profile, b: Profile, options: Options, pairs: list[CountedPair]) -> tuple[Joint, str | None]:
    """The joint test of two profiles, or why there is none."""
    if options.joint == "none":
        return lambda _: None, None
    one, two = a.joint, b.joint
    if one is None or two is None:
        lacking = a.name if one is None else b.name
        return lambda _: None, f"No joint test: {lacking} has no joint part."
    if one.map.identity != two.map.identity:
        why = (
            f"No joint test: {a.name} and {b.name} saw their rows through different maps; make the second with --like the first."
        )
        return lambda _: None, why
    seen = {axis.name for axis in one.map.axes}
    compared = {pair.facts.name for pair in pairs}
    if not seen <= compared:
        missing = sorted(seen - compared)[0]
        return lambda _: None, f"No joint test: it needs all columns of the profile, and {missing!r} is not compared."
    if min(len(one.sizes), len(two.sizes)) < 2:
        return lambda _: None, None
    sizes = np.concatenate([one.sizes, two.sizes])
    mean = [float(part.sizes.mean()) for part in (one, two)]
    alike = abs(mean[0] / mean[1] - 1) <= _ALIKE
    null = "permutation" if alike else "multiplier"
    note = (
        "by the kernels alone, from sums over units of rows: no pairs, shares of columns or typical rows; "
        "ranks and kernel widths are those of the profile"
    )

    def test(permutations: int | None) -> JointResult:
        drawn = Null(sizes, len(one.sizes), null, permutations or options.permutations, options.seed)
        return joint_from_sums((one.sums, two.sums), drawn, options, note)

    return test, None


def _serial_warning(sides: tuple[Profile, Profile], tested: set[str]) -> str | None:
    """A sentence if some column depends on its neighbour in file order, as in a comparison of rows."""
    worst: tuple[float, ColumnProfile, str] | None = None
    for side in sides:
        for column in side.columns:
            rho, pairs = column.serial
            if column.name in tested and pairs > 1 and rho > max(0.1, 4 / pairs**0.5) and (worst is None or rho > worst[0]):
                worst = rho, column, side.name
    if worst is None:
        return None
    return (
        f"neighbouring rows are alike (lag-1 autocorrelation {worst[0]:.2f} of {worst[1].name!r} in {worst[2]}, in file order): "
        "if the rows are in time order the p-values are too small, so compare the rows themselves with --block auto; if they "
        "are merely sorted, ignore this"
    )


__all__ = ["PROFILED", "STREAMED", "Findings", "compare_profiled", "compare_profiles", "refuse_rows_options"]
