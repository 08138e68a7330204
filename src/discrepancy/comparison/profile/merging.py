"""Profiles of parts of a data set added up to the profile of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from discrepancy.comparison.errors import DataError, listed
from discrepancy.comparison.model import Kind
from discrepancy.comparison.profile import levels, ordered
from discrepancy.comparison.profile.levels import LevelCounts
from discrepancy.comparison.profile.ordered import OrderedCounts
from discrepancy.comparison.profile.profile import ColumnProfile, Profile
from discrepancy.comparison.profile.unit_sums import UnitSums
from discrepancy.comparison.units import GROUPS

_REMEDY = "make both with the same kinds: discrepancy profile DATA --like FIRST.profile"


def merge(profiles: Sequence[Profile], name: str | None = None) -> Profile:
    """One profile of the rows of several, which need the same columns of the same kinds.

    Counts add. Where knots differ, as they do unless the profiles were made `like` one another, a column is interpolated and
    its error bound kept; adding in another order gives the same up to that bound. The joint part needs one map in all: made
    `like` one another they have it, and else the merged profile has none and says so. Linear in the profiles' sizes.
    Raises DataError for columns or kinds that differ, ValueError for no profile.
    """
    if not profiles:
        raise ValueError("merge needs at least one profile, got none")
    whole = profiles[0]
    for part in profiles[1:]:
        whole = _two(whole, part)
    return whole if name is None else replace(whole, name=name)


def compatible(a: ColumnProfile, b: ColumnProfile) -> bool:
    """Whether two columns of one name can be seen together: numbers with numbers, instants with instants, levels with levels."""
    if _void(a) or _void(b):
        return True
    if (a.kind is Kind.DATETIME) != (b.kind is Kind.DATETIME):
        return False
    if a.kind.ordered != b.kind.ordered:
        return False
    return not a.natures or not b.natures or bool(set(a.natures) & set(b.natures)) or a.source is not None


def _void(column: ColumnProfile) -> bool:
    return not column.counts.rows - column.counts.missing


def aligned(a: ColumnProfile, b: ColumnProfile) -> tuple[ColumnProfile, ColumnProfile]:
    """Two compatible columns in one form: one without a value takes that of the other, truth values the other's spelling."""
    if _void(a) and type(a.counts) is not type(b.counts):
        return _as(a, b), b
    if _void(b) and type(a.counts) is not type(b.counts):
        return a, _as(b, a)
    two_spellings = a.truths is not None and b.truths is not None
    if two_spellings and a.truths != b.truths and isinstance(b.counts, LevelCounts):
        spelled = dict(zip(b.truths or (), a.truths or (), strict=True))
        b = replace(b, counts=replace(b.counts, names=tuple(spelled.get(n, n) for n in b.counts.names)), truths=a.truths)
    return a, b


def _as(void: ColumnProfile, full: ColumnProfile) -> ColumnProfile:
    missing = void.counts.missing
    counts = ordered.empty(missing) if isinstance(full.counts, OrderedCounts) else LevelCounts((), np.empty(0), 0.0, missing)
    return replace(void, kind=full.kind, unit=full.unit, counts=counts)


def _two(a: Profile, b: Profile) -> Profile:
    one, two = {c.name: c for c in a.columns}, {c.name: c for c in b.columns}
    if one.keys() != two.keys():
        differ = sorted(one.keys() ^ two.keys())
        raise DataError(f"{a.name} and {b.name} cannot be merged: only one of them has {listed(differ)}; {_REMEDY}")
    columns = []
    for name, column in one.items():
        columns.append(_column(column, two[name], a, b))
    joint, notes = None, [*a.notes, *b.notes]
    if a.joint is not None and b.joint is not None:
        joint = _joined(a.joint, b.joint, (a.rows, b.rows))
        if joint is None:
            notes.append(
                "The merged profiles saw their rows through different maps, so that there is no joint test; "
                "profiles made with --like of the first share one."
            )
    return Profile(
        f"{a.name} + {b.name}" if a.parts + b.parts <= 3 else f"{a.name.split(' + ')[0]} + {a.parts + b.parts - 1} more",
        a.rows + b.rows, tuple(columns), joint, a.seed, a.parts + b.parts,
        {**a.left_out, **b.left_out}, tuple(dict.fromkeys(notes)),
    )  # fmt: skip


def _column(a: ColumnProfile, b: ColumnProfile, p: Profile, q: Profile) -> ColumnProfile:
    if not compatible(a, b):
        raise DataError(f"column {a.name!r} is {a.kind.value} in {p.name} and {b.kind.value} in {q.name}; {_REMEDY}")
    a, b = aligned(a, b)
    if isinstance(a.counts, OrderedCounts) and isinstance(b.counts, OrderedCounts):
        counts: OrderedCounts | LevelCounts = ordered.merged(a.counts, b.counts)
        kind = a.kind if a.kind is b.kind else Kind.NUMERIC
    else:
        assert isinstance(a.counts, LevelCounts)
        assert isinstance(b.counts, LevelCounts)
        counts, kind = levels.merged(a.counts, b.counts), a.kind
    pairs = a.serial[1] + b.serial[1]
    rho = (a.serial[0] * a.serial[1] + b.serial[0] * b.serial[1]) / pairs if pairs else 0.0
    natures = tuple(sorted(set(a.natures) & set(b.natures))) or a.natures or b.natures
    unit = a.unit if a.unit == b.unit else a.unit or b.unit
    return replace(
        a, counts=counts, kind=kind, unit=unit, natures=natures, truths=a.truths or b.truths, codes=a.codes and b.codes,
        note=a.note or b.note, serial=(rho, pairs), moves=a.moves and b.moves,
    )  # fmt: skip


def _joined(a: UnitSums, b: UnitSums, rows: tuple[int, int]) -> UnitSums | None:
    """The units of both, joined in pairs while there are over 1,000; None for different maps."""
    if a.map.identity != b.map.identity:
        return None
    # Where only a share of the rows was summed, a unit stands for more rows than it holds; else the shares would not add up.
    stand_for = [n / float(part.sizes.sum()) for n, part in zip(rows, (a, b), strict=True)]
    times = [f / min(stand_for) for f in stand_for]
    sums = np.concatenate([a.sums * np.float32(times[0]), b.sums * np.float32(times[1])])
    sizes = np.concatenate([a.sizes * times[0], b.sizes * times[1]])
    while len(sizes) > 2 * GROUPS:
        # Large with small, so that the joined ones are of about one size.
        order = np.argsort(-sizes, kind="stable")
        half = len(order) // 2
        first, second = order[:half], order[::-1][:half]
        left = order[half : len(order) - half]
        sums = np.concatenate([sums[first] + sums[second], sums[left]])
        sizes = np.concatenate([sizes[first] + sizes[second], sizes[left]])
    return UnitSums(a.map, sums, sizes)
