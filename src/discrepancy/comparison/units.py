"""Which rows move together under a permutation: rows, clusters, blocks of time, or random groups.

Every statistic of a comparison is a norm of a difference of unit means, so the units decide what the null distribution
holds fixed. Source: Politis and White (2004), "Automatic Block-Length Selection for the Dependent Bootstrap".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from discrepancy.comparison.errors import OptionError
from discrepancy.comparison.model import ColumnPair, Kind, Options, TablePair, Units
from discrepancy.comparison.streams import row_keys

GROUPED_ABOVE = 20_000  # units in the smaller table beyond which random groups take their place
GROUPS = 500  # of them in the smaller table
FEWEST = 20  # units in all: below, no verdict
_STRETCH, _STRETCHES = 10_000, 5  # rows looked at for autocorrelation in a long table
_KS_ONE_PERCENT = 1.628  # 1 % point of the Kolmogorov distribution


def make_units(table: TablePair, options: Options) -> Units:
    """The units of a comparison, with the null distribution that they allow and what the reader should know of them.

    Clusters where the user names their column, blocks of consecutive rows where the rows are in time order, random groups
    of one size where the smaller table has over 20,000 units, else rows. The null is by permutation; by multipliers if
    exactly one table is weighted, or if clusters differ in size between the tables, since then units are not exchangeable.
    Time O(rows log rows), memory O(rows) where rows are not units themselves.
    Raises OptionError if both clusters and blocks are asked for.
    """
    n, m = table.rows_reference, table.rows_current
    notes: list[str] = []
    if table.cluster_reference is not None and options.block is not None:
        raise OptionError("--cluster and --block both say which rows move together: give one of them")
    null = "multiplier" if _weighted(table.weights_reference) != _weighted(table.weights_current) else "permutation"
    if options.frequency_weights:
        null = "permutation"  # such weights count rows: they say nothing about how a row was drawn

    if table.cluster_reference is not None and table.cluster_current is not None:
        units, note = _clusters(table.cluster_reference, table.cluster_current)
        if note:
            null = "multiplier"
            notes.append(note)
    elif options.block is not None:
        units, block_notes = _blocks(table, options)
        notes += block_notes
    else:
        counted = (table.weights_reference, table.weights_current) if options.frequency_weights else (None, None)
        stand_for = [rows if w is None else round(float(np.sum(w))) for rows, w in zip((n, m), counted, strict=True)]
        units = Units(stand_for[0], stand_for[1])
        warning = _order_warning(table)
        if warning:
            notes.append(warning)
    units = replace(units, null=null)
    # Frequency-weighted rows stand for many: columns permute fixed-margin tables and the joint test expands them.
    if not (options.frequency_weights and units.kind == "rows"):
        units = coarsen(units, options.seed, above=GROUPED_ABOVE, groups=GROUPS)
    total = units.count_reference + units.count_current
    if total < FEWEST:
        notes.append(
            f"only {total} {units.kind} in both tables together: fewer than {FEWEST} cannot support a verdict, so everything "
            "stays undecided"
        )
    return replace(units, note="; ".join(notes) or None)


def coarsen(units: Units, seed: int, *, above: int, groups: int) -> Units:
    """Random groups of one size g = floor(min(counts)/groups) of the units, or the units themselves if they are few.

    Groups of the same size in both tables are exchangeable under F = G (equal numbers of groups would not be). What is
    left over is spread, one unit a group. A row's group depends on (seed, table, row) only.
    """
    small = min(units.count_reference, units.count_current)
    if small <= above:
        return units
    size = small // groups
    ids, counts = [], []
    for name, count, own in (
        ("reference", units.count_reference, units.reference),
        ("current", units.count_current, units.current),
    ):
        group, k = _random_groups(count, size, seed, name)
        ids.append(group if own is None else group[own])
        counts.append(k)
    kind = "groups" if units.kind == "rows" else units.kind
    return replace(units, count_reference=counts[0], count_current=counts[1], reference=ids[0], current=ids[1], kind=kind)


def _random_groups(count: int, size: int, seed: int, table: str) -> tuple[np.ndarray, int]:
    """A uniformly random partition of `count` things into floor(count/size) groups whose sizes differ by at most one."""
    k = count // size
    # One sort of keys that carry their index in the low bits: faster than an argsort, and ties are harmless.
    bits = max(1, (count - 1).bit_length())
    keys = (row_keys(count, seed, "groups", table) >> np.uint64(bits) << np.uint64(bits)) | np.arange(count, dtype=np.uint64)
    keys.sort()
    order = (keys & np.uint64((1 << bits) - 1)).astype(np.int64)
    group = np.empty(count, dtype=np.int64)
    group[order] = np.arange(count, dtype=np.int64) * k // count
    return group, k


def _weighted(weights: np.ndarray | None) -> bool:
    """Whether the weights say anything: equal ones do not."""
    return weights is not None and len(weights) > 0 and bool(np.ptp(weights) > 1e-12 * np.max(np.abs(weights)))


def _clusters(reference: np.ndarray, current: np.ndarray) -> tuple[Units, str | None]:
    """Clusters as units, and a sentence if their sizes differ between the tables, so that they are not exchangeable."""
    first, a, size_a = np.unique(reference, return_inverse=True, return_counts=True)
    second, b, size_b = np.unique(current, return_inverse=True, return_counts=True)
    units = Units(len(first), len(second), a.astype(np.int64), b.astype(np.int64), kind="clusters")
    sizes = np.union1d(size_a, size_b)
    gap = np.abs(
        np.searchsorted(np.sort(size_a), sizes, "right") / len(first)
        - np.searchsorted(np.sort(size_b), sizes, "right") / len(second)
    ).max()
    if gap > _KS_ONE_PERCENT * math.sqrt(1 / len(first) + 1 / len(second)):
        return (
            units,
            "cluster sizes differ between the tables: the null is drawn inside each table (multipliers), not by permutation",
        )
    return units, None


def _blocks(table: TablePair, options: Options) -> tuple[Units, list[str]]:
    """Consecutive blocks inside each table, never across the join, of the asked or the automatic length."""
    n, m = table.rows_reference, table.rows_current
    notes: list[str] = []
    if options.block == "auto":
        rho = max((s.pooled for s in _serial_dependence(table)), default=0.0)
        length, wanted = automatic_block_length(rho, n, m)
        if wanted > length:
            notes.append(
                f"strong serial dependence (lag-1 autocorrelation {rho:.2f}) asks for blocks of {wanted} rows, cut to {length} "
                f"so that {FEWEST} remain: expect false flags in 6 to 9 % of null columns, not 5 %"
            )
        elif rho > 0.8:
            notes.append(
                f"strong serial dependence (lag-1 autocorrelation {rho:.2f}): "
                "expect false flags in 6 to 9 % of null columns, not 5 %"
            )
    else:
        length = int(options.block or 1)
    counts = [max(1, rows // length) if rows else 0 for rows in (n, m)]
    ids = [np.arange(rows, dtype=np.int64) * k // max(rows, 1) for rows, k in zip((n, m), counts, strict=True)]
    return Units(counts[0], counts[1], ids[0], ids[1], kind="blocks", block_length=length), notes


def automatic_block_length(rho: float, n: int, m: int) -> tuple[int, int]:
    """The block length for n and m rows with lag-1 autocorrelation rho: (after the cut that leaves 20 blocks, before it).

    ceil(3 b), b = (1.5 (2 rho/(1 - rho^2))^2)^(1/3) N^(1/3), rho cut at 0.97, N the harmonic mean of the row counts:
    three times the length that is best for the variance of a mean, since a test needs its tail.
    """
    rho = min(max(rho, 0.0), 0.97)
    rows = 2 * n * m / max(n + m, 1)
    b = (1.5 * (2 * rho / (1 - rho * rho)) ** 2) ** (1 / 3) * rows ** (1 / 3)
    wanted = max(1, math.ceil(3 * b))
    return max(1, min(wanted, (n + m) // FEWEST)), wanted


@dataclass(frozen=True)
class _Serial:
    """The lag-1 autocorrelation of one column in file order, in each table with the number of pairs, and pooled."""

    name: str
    tables: tuple[tuple[float, int], tuple[float, int]]

    @property
    def pooled(self) -> float:
        (r, n), (s, m) = self.tables
        return (r * n + s * m) / max(n + m, 1)


def _serial_dependence(table: TablePair) -> list[_Serial]:
    """Each tested column's serial dependence; datetimes are left out, since they show the order and not what depends on it."""
    found = []
    for pair in table.columns:
        if not pair.tested or pair.kind in (Kind.DATETIME, Kind.TEXT, Kind.IDENTIFIER):
            continue
        found.append(_Serial(pair.name, (lag_one(pair, "reference"), lag_one(pair, "current"))))
    return found


def lag_one(pair: ColumnPair, side: str) -> tuple[float, int]:
    """The lag-1 autocorrelation of a column in file order, and the number of neighbouring pairs that it rests on.

    Ordered kinds: of the normal scores. Level kinds: of the one-hot vectors, (P(equal neighbours) - sum p^2)/(1 - sum p^2),
    a missing cell being a level. A long table is looked at in five stretches of 10,000 rows.
    """
    column = pair.reference if side == "reference" else pair.current
    rows = column.rows
    starts = [0] if rows <= _STRETCH * _STRETCHES else np.linspace(0, rows - _STRETCH, _STRETCHES).astype(int).tolist()
    length = rows if len(starts) == 1 else _STRETCH
    where = np.concatenate([np.arange(s, s + length) for s in starts])
    joined = np.ones(max(len(where) - 1, 0), dtype=bool)
    joined[length - 1 :: length] = False  # the ends of two stretches are not neighbours
    if not pair.kind.ordered:
        codes = column.values[where].astype(np.int64) + 1
        share = np.bincount(codes) / max(len(codes), 1)
        chance = float(share @ share)
        if chance >= 1 or not joined.any():
            return 0.0, 0
        return (float((codes[1:] == codes[:-1])[joined].mean()) - chance) / (1 - chance), int(joined.sum())
    present = ~column.missing[where]
    values = column.values[where]
    score = np.zeros(len(where))
    score[present] = normal_scores(values[present])
    joined &= present[1:] & present[:-1]
    variance = float(score[present].var()) if present.any() else 0.0
    if variance == 0 or not joined.any():
        return 0.0, 0
    return float((score[1:] * score[:-1])[joined].mean()) / variance, int(joined.sum())


def normal_scores(values: np.ndarray) -> np.ndarray:
    """Phi^-1((mid-rank - 1/2)/n) of each value: standard normal whatever the column's law; ties share their mid-rank."""
    from scipy.special import ndtri

    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = (np.cumsum(counts) - counts / 2) / max(len(values), 1)
    return ndtri(middle)[inverse]


def _order_warning(table: TablePair) -> str | None:
    """One sentence if some column depends on its neighbour in file order, for which rows as units flag far too often."""
    worst: tuple[float, str, str] | None = None
    for found in _serial_dependence(table):
        for (rho, pairs), name in zip(found.tables, table.names, strict=True):
            if pairs > 1 and rho > max(0.1, 4 / math.sqrt(pairs)) and (worst is None or rho > worst[0]):
                worst = (rho, found.name, name)
    if worst is None:
        return None
    rho, column, name = worst
    return (
        f"neighbouring rows are alike (lag-1 autocorrelation {rho:.2f} of {column!r} in {name}, in file order): if the rows are "
        "in time order the p-values are too small, so use --block auto; if they are merely sorted, ignore this"
    )


__all__ = ["FEWEST", "automatic_block_length", "coarsen", "lag_one", "make_units", "normal_scores"]
