"""One column compared: from cells to a `ColumnResult`. Multiplicity and the verdict come later, when all columns are known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from discrepancy.comparison.columns.combined import STOP_AT, Combined, combine
from discrepancy.comparison.columns.counts import KnotCounts, count_column
from discrepancy.comparison.columns.draws import Draws
from discrepancy.comparison.columns.influence import HEAVY, tail_share
from discrepancy.comparison.columns.interval import Z_95, Interval, ordered_interval, share_interval
from discrepancy.comparison.columns.level_interval import level_interval
from discrepancy.comparison.columns.norms import LevelNorms, Norms, OrderedNorms, norms_of
from discrepancy.comparison.columns.null import null_sample
from discrepancy.comparison.columns.summary import summarise
from discrepancy.comparison.model import ColumnPair, ColumnResult, Kind, Member, Options, Units
from discrepancy.comparison.streams import stream
from discrepancy.inference.multiplicity import max_t

ORDERED_DELTA, ORDERED_MARGIN = 0.02, 0.10
SHARE_DELTA, SHARE_MARGIN = 0.01, 0.05
_FEW_UNITS = 100  # units in all below which the Gaussian tail has nothing to rest on
_FEW_ROWS = 100  # effective rows of a table below which an interval is approximate


@dataclass(frozen=True)
class Facts:
    """What a result says of its column besides the statistics."""

    name: str
    kind: Kind
    unit: str = ""
    tested: bool = True
    rows: tuple[int, int] = (0, 0)
    units: tuple[int, int] = (0, 0)
    note: str | None = None
    source: str | None = None


def compare_column(
    pair: ColumnPair,
    units: Units,
    options: Options,
    *,
    weights: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
    permutations: int | None = None,
    draws: Draws | None = None,
    early_stop: bool = False,
) -> ColumnResult:
    """Compares one column: distance, interval, size, test, equivalence, missingness, and what a report draws of it.

    weights: row weights of both tables, on any scale, or None. permutations: how many (None: those of the options); the
    result is a function of (seed, column name, permutations) alone, so a verdict step may call again with more. draws: the
    random subsets that the columns of one comparison share; without it they are drawn anew, to the same result. early_stop:
    stop after 200 permutations if 20 have exceeded, with p = 20 / their number (for tables of many columns).
    Raises ValueError for weights that are no weights and codes that are no levels.
    O(N log N + R N) time at N rows up to 20,000 and O(N log N + R cells) beyond; O(N) memory.
    """
    draws = Draws(options.seed) if draws is None else draws
    counts = count_column(pair, units, options, weights, draws)
    facts = Facts(
        pair.name,
        pair.kind,
        pair.unit,
        pair.tested,
        (pair.reference.rows, pair.current.rows),
        (units.count_reference, units.count_current),
        pair.note,
        pair.source,
    )
    summary = summarise(pair, (counts.reference.weights, counts.current.weights))
    return compare_counts(counts, facts, options, permutations=permutations, draws=draws, early_stop=early_stop, summary=summary)


def compare_counts(
    counts: KnotCounts,
    facts: Facts,
    options: Options,
    *,
    permutations: int | None = None,
    draws: Draws | None = None,
    early_stop: bool = False,
    summary: dict[str, Any] | None = None,
) -> ColumnResult:
    """Compares one column from its cells, whether they were counted from rows or come from stored profiles.

    A sketch's error bound enters by plain addition: low - error, high + error, and T - error in the test.
    """
    draws = Draws(options.seed) if draws is None else draws
    norms = norms_of(counts)
    observed = norms.observed()
    T = norms.values(observed[None].copy())[0]
    error = np.array([counts.errors.get(name, 0.0) for name in norms.names])
    delta = norms.deltas(_by_column(options.deltas, options.delta, facts))
    size_delta = _by_column(options.deltas, options.delta, facts)
    margin = _by_column(options.margins, options.margin, facts)
    by_value = facts.kind.ordered or not counts.ordered
    notes = [facts.note] if facts.note else []

    heavy = by_value and isinstance(norms, OrderedNorms) and tail_share(counts, norms.gaps) > HEAVY
    shifted = np.maximum(T - error, 0.0)
    movable = _movable(counts)
    null = null_sample(
        norms,
        max(1, options.permutations if permutations is None else permutations),
        draws,
        facts.name,
        enough=lambda values: early_stop and _clearly_null(norms, shifted - delta, values),
    )
    tail = counts.null == "permutation" and not counts.dependent and counts.whole and not null.exact
    test = combine(
        norms, shifted, delta, null, tail=tail and movable >= _FEW_UNITS and not heavy, early=early_stop and _stopped(null.values)
    )

    rng = stream(draws.seed, facts.name, "interval")
    js: dict[str, float | None] | None = None
    interval: Interval | None = None
    distance, scale = _distance(counts, T) if by_value else (None, None)
    if distance is not None and isinstance(norms, OrderedNorms):
        interval = ordered_interval(norms, observed, distance, float(test.p_plain[0]), rng)
    elif distance is not None and isinstance(norms, LevelNorms):
        found = level_interval(norms, observed, float(test.p_plain[0]), rng)
        interval, js = found if found is not None else (None, {"value": None, "low": None, "high": None})
        js = _widened(js, counts)
    if heavy and distance is not None and isinstance(norms, OrderedNorms):
        ks = ordered_interval(norms, observed, float(T[2]), float(test.p_plain[2]), rng, statistic="KS")
        if ks is not None:
            summary = {**(summary or {}), "ks": {"value": float(T[2]), "low": ks.low, "high": min(1.0, ks.high)}}
            notes.append(
                f"heavy tails: a few far values carry the distance, so it has no usable interval and cannot be called "
                f"equivalent; look at the largest difference of shares below any value, {T[2]:.3g} "
                f"[{ks.low:.3g}, {min(1.0, ks.high):.3g}]"
            )
    if interval is not None and not heavy and min(counts.effective()) < _FEW_ROWS:
        notes.append("the interval is approximate: fewer than 100 effective rows in a table")
    missing, shares_pass = _shares(norms, counts, T, test, margin, facts)
    # Cells between knots may hide more of a distance than the knots themselves are off by.
    off = float(counts.errors.get("distance", error[0]))
    low, high = _ends(interval, counts, off) if not heavy else (None, None)
    corrected = interval.corrected if interval is not None else None
    equivalent = _equivalent(interval, distance, off, scale, heavy, margin, facts, shares_pass)
    n, m = counts.effective()

    def sized(value: float | None) -> float | None:
        return None if value is None or scale is None else value / scale if scale > 0 else 0.0

    def own(value: float | None) -> float | None:
        return None if value is None else value * counts.factor if facts.kind.ordered else value

    return ColumnResult(
        name=facts.name,
        kind=facts.kind,
        unit=facts.unit,
        tested=facts.tested,
        distance=own(distance),
        low=own(low),
        high=own(high),
        noise=own(float(test.noise[0])) if distance is not None else None,
        corrected=own(corrected),
        scale=own(scale),
        size=sized(corrected),
        size_low=sized(low),
        size_high=sized(high),
        delta=size_delta if size_delta is not None else ORDERED_DELTA if facts.kind.ordered else SHARE_DELTA,
        margin=margin if margin is not None else ORDERED_MARGIN if facts.kind.ordered else SHARE_MARGIN,
        p_value=test.p_value,
        p_any=test.p_any,
        p_value_low=test.low,
        p_value_high=test.high,
        driver=norms.names[test.driver] if test.driver is not None else None,
        members=_members(norms, T, delta, test, counts, distance is not None),
        equivalent=equivalent,
        small=equivalent,
        units=facts.units,
        n_eff=(n, m),
        rows=facts.rows,
        missing=missing,
        js=js,
        note="; ".join(notes) or None,
        source=facts.source,
        summary=summary or {},
    )


def _by_column(each: dict[str, float], common: float | None, facts: Facts) -> float | None:
    """An option of this column, of the column that it was derived from, or of all; None: the documented default."""
    return each.get(facts.name, each.get(facts.source, common) if facts.source is not None else common)


def _movable(counts: KnotCounts) -> float:
    """How many units a permutation moves, both tables together."""
    if counts.movable == "units":
        return float(sum(len(side.units) for side in counts.sides if side.units is not None))
    return float(sum(side.total if counts.whole else side.rows for side in counts.sides))


def _clearly_null(norms: Norms, shifted: np.ndarray, values: np.ndarray) -> bool:
    tested = np.flatnonzero(norms.tested)
    return max_t(shifted[tested], values[:, tested]).exceedances >= STOP_AT


def _stopped(values: np.ndarray) -> bool:
    from discrepancy.comparison.columns.draws import CHUNK

    return len(values) <= CHUNK


def _distance(counts: KnotCounts, T: np.ndarray) -> tuple[float | None, float | None]:
    """The plug-in distance and the scale of its size; None where a table has no value."""
    if min(side.mass[: counts.values].sum() for side in counts.sides) <= 0:
        return None, None
    if counts.line is None:
        return float(T[0]), 1.0
    return (float(T[0]) if math.isnan(counts.line.distance) else counts.line.distance), counts.line.scale


def _ends(interval: Interval | None, counts: KnotCounts, error: float) -> tuple[float | None, float | None]:
    if interval is None:
        return None, None
    high = interval.high + error
    return max(0.0, interval.low - error), high if counts.ordered else min(1.0, high)


def _widened(js: dict[str, float | None] | None, counts: KnotCounts) -> dict[str, float | None] | None:
    """Jensen-Shannon under a sketch: its own error bound if there is one, no interval if there is only one for TV."""
    if js is None or js["value"] is None or js["low"] is None or js["high"] is None:
        return js
    if "JS" in counts.errors:
        bound = counts.errors["JS"]
        return {**js, "low": max(0.0, js["low"] - bound), "high": min(math.log(2.0), js["high"] + bound)}
    return {**js, "low": None, "high": None} if counts.errors.get("TV", 0.0) > 0 else js


def _members(
    norms: Norms, T: np.ndarray, delta: np.ndarray, test: Combined, counts: KnotCounts, by_value: bool
) -> tuple[Member, ...]:
    found = []
    for j, (name, tested) in enumerate(zip(norms.names, norms.tested, strict=True)):
        if not tested or (not by_value and name in ("W1", "A", "KS")):
            continue
        unit = counts.factor if name == "W1" else 1.0
        found.append(Member(name, float(T[j]) * unit, float(delta[j]) * unit, float(test.p_members[j])))
    return tuple(found)


def _shares(
    norms: Norms, counts: KnotCounts, T: np.ndarray, test: Combined, margin: float | None, facts: Facts
) -> tuple[dict[str, Any], bool]:
    """The missing shares with their interval, and whether every share beside the values is shown to be within its margin."""
    share_margin = SHARE_MARGIN if margin is None else margin / 2 if facts.kind.ordered else margin
    names = {counts.values + e: name for e, name in enumerate(counts.extras)}
    if counts.missing_cell is not None:
        names[counts.missing_cell] = "missing"
    totals = [side.total for side in counts.sides]
    missing: dict[str, Any] = {
        "reference": 0.0 if totals[0] > 0 else None,
        "current": 0.0 if totals[1] > 0 else None,
        "low": None,
        "high": None,
        "p_value": None,
    }
    all_pass = True
    for cell, name in names.items():
        j = norms.names.index(name)
        interval = share_interval(counts, cell, float(test.p_plain[j])) if min(totals) > 0 else None
        all_pass &= interval is not None and float(T[j]) + Z_95 * interval.reach < share_margin
        if name != "missing":
            continue
        for side, table in zip(counts.sides, ("reference", "current"), strict=True):
            missing[table] = float(side.mass[cell]) / side.total if side.total > 0 else None
        if interval is not None:
            missing["low"], missing["high"] = interval.low, interval.high
        missing["p_value"] = float(test.p_members[j]) if norms.tested[j] else float(test.p_plain[j])
    return missing, all_pass


def _equivalent(
    interval: Interval | None,
    distance: float | None,
    error: float,
    scale: float | None,
    heavy: bool,
    margin: float | None,
    facts: Facts,
    shares_pass: bool,
) -> bool | None:
    """Whether (T + 1.645 max(se, sigma_T)) / scale < margin and every share passes; None where nothing can be said."""
    if distance is None or scale is None or interval is None:
        return None
    if heavy:
        return False
    bound = ORDERED_MARGIN if facts.kind.ordered else SHARE_MARGIN
    limit = bound if margin is None else margin
    inside = distance + error + Z_95 * interval.reach < limit * scale if scale > 0 else True
    return bool(inside and shares_pass)
