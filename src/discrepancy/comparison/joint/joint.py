"""Is the whole different? Kernels and pairs in one test, with a distance, an interval, and what carries it.

Kernels alone do not see a change of dependence in a handful of columns, pairs alone do not see a change of margins; the
maximum of both, standardised under the same draws, keeps the power of either.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from discrepancy.comparison.columns.combined import isoperimetric_tail
from discrepancy.comparison.joint.attribution import column_shares, typical_rows
from discrepancy.comparison.joint.classifier import separation
from discrepancy.comparison.joint.dependence import PairChanges, pair_changes
from discrepancy.comparison.joint.features import FACTORS, MIDDLE, feature_sums, features
from discrepancy.comparison.joint.mmd import KernelDistance, kernel_distance
from discrepancy.comparison.joint.null import Null
from discrepancy.comparison.joint.scores import Representation, represent
from discrepancy.comparison.joint.sides import Side, sides
from discrepancy.comparison.model import JointResult, Member, Options, TablePair, Units
from discrepancy.inference import clopper_pearson, max_t

DELTA_KERNEL = 0.01  # what about every column moved by 0.02 sd makes
DELTA_PAIR = 0.05  # change of one (transformed) correlation
DELTA_COLUMN = 0.02  # the columns' default minimum effect, to which the two above belong
DELTA_SEPARATION = 0.01  # 2 AUC - 1 of a shift by 0.02 sd
_TAIL_UNITS = 100  # below, the Gaussian tail is not trusted
_MOST_PAIRS = 200
_TINY = 1e-300


@dataclass(frozen=True)
class _Member:
    """One statistic of the joint test.

    `value` and `delta` as reported. `plain` against `draws` (R,) tests that nothing changed, `reduced` against
    `reduced_draws` (R,) that nothing changed by more than delta. `spread`: the largest standard deviation of the noise in any
    direction.
    """

    name: str
    value: float
    delta: float
    plain: float
    reduced: float
    draws: np.ndarray
    reduced_draws: np.ndarray
    spread: float


@dataclass(frozen=True)
class _Combined:
    p_value: float
    p_any: float
    low: float
    high: float
    members: tuple[Member, ...]
    driver: str | None


def compare_joint(
    table: TablePair,
    units: Units,
    options: Options,
    *,
    weights: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
    permutations: int | None = None,
) -> JointResult | None:
    """The multivariate test of two tables on their tested columns, mixed kinds included.

    Members: the MMD at three widths and the largest change of a pair's dependence; combined as maximum of the standardised,
    by the draws that `units` allow. `distance` is the MMD at 0.7 of the median distance, in [0, sqrt 2], with a 95 % interval.
    Pairs, shares of columns and typical rows are given where the test rejects by itself at `options.level`. `weights` are row
    weights on any scale (default: the table's own); `permutations` overrides the option's number of draws. The result is a
    function of (data, seed, number of draws).
    Time O(rows x (d + 768) + draws x units x (768 + pairs)), memory some 500 MB at most; None if the joint test is off, or
    fewer than two columns vary or two rows exist in either table.
    """
    if options.joint == "none" or min(table.rows_reference, table.rows_current) < 2:
        return None
    own = (
        table.weights_reference if weights[0] is None else weights[0],
        table.weights_current if weights[1] is None else weights[1],
    )
    first, second, notes = sides(table, units, options, own)
    both = (first, second)
    scaled = tuple(_mean_one(w, options) for w in own)
    representation = represent(table.columns, (scaled[0], scaled[1]), (table.rows_reference, table.rows_current), options.seed)
    if len(representation.columns) < 2 or min(first.count, second.count) < 2:
        return None
    sizes = np.concatenate([first.sizes(), second.sizes()])
    if not (sizes > 0).all():
        kept = [side.keep(side.sizes() > 0) for side in both]
        both = (kept[0], kept[1])
        sizes = np.concatenate([side.sizes() for side in both])
    null = Null(sizes, both[0].count, units.null, permutations or options.permutations, options.seed)
    if options.joint == "classifier":
        return _by_classifier(representation, both, null, options, notes)
    return _by_kernels(table, representation, both, null, options, notes)


def _mean_one(weights: np.ndarray | None, options: Options) -> np.ndarray | None:
    if weights is None:
        return None
    weights = np.asarray(weights, dtype=float)
    return weights if options.frequency_weights else weights * (len(weights) / weights.sum())


def _factor(options: Options) -> float:
    """How far the user's minimum effect is from the default one; the joint deltas move with it."""
    return 1.0 if options.delta is None else options.delta / DELTA_COLUMN


def _by_kernels(
    table: TablePair, representation: Representation, both: tuple[Side, Side], null: Null, options: Options, notes: list[str]
) -> JointResult | None:
    phi = features(representation, both, options.seed)
    if phi is None:
        return None
    sums = feature_sums(representation, both, phi)
    kernel = kernel_distance(sums, null, options.seed)
    members = _kernel_members(kernel, options)
    changes = pair_changes(representation, both, null)
    pair_delta = DELTA_PAIR * _factor(options)
    if changes is not None:
        plain, reduced = changes.excess(0.0), changes.excess(pair_delta)
        top = float(changes.change[int(np.argmax(reduced))])
        members.append(
            _Member(
                "pairs", top, pair_delta, float(plain.max()), float(reduced.max()), changes.draws, changes.draws, changes.spread
            )
        )
    combined = _combine(members, len(null.sizes))
    pairs: tuple[dict[str, Any], ...] = ()
    shares: tuple[dict[str, Any], ...] = ()
    typical: dict[str, list[dict[str, Any]]] = {}
    if combined.p_value <= options.level:
        if changes is not None:
            pairs = _listed(representation, changes, pair_delta, options.level)
        width = sums[0].shape[1] // len(FACTORS)
        middle = slice(MIDDLE * width, (MIDDLE + 1) * width)
        one = phi.of_width(MIDDLE)
        shares = column_shares(representation, both, one, options.seed)
        first = [item["column"] for item in shares]
        typical = typical_rows(table, representation, both, one, (sums[0][:, middle], sums[1][:, middle]), first, options.seed)
    low, high = kernel.interval
    distance = float(kernel.values[MIDDLE])
    return JointResult(
        p_value=combined.p_value,
        p_any=combined.p_any,
        p_value_low=combined.low,
        p_value_high=combined.high,
        distance=distance,
        low=low,
        high=min(high, math.sqrt(2)) if distance <= math.sqrt(2) else high,
        size=distance,
        members=combined.members,
        driver=combined.driver,
        pairs=pairs,
        shares=shares,
        typical=typical,
        note="; ".join(notes) or None,
    )


def _kernel_members(kernel: KernelDistance, options: Options) -> list[_Member]:
    delta = DELTA_KERNEL * _factor(options)
    return [
        _Member(f"MMD {factor:g}", float(value), delta, float(value), float(value), draws, moved, float(spread))
        for factor, value, draws, moved, spread in zip(
            FACTORS, kernel.values, kernel.draws.T, kernel.moved(delta).T, kernel.spread, strict=True
        )
    ]


def joint_from_sums(sums: tuple[np.ndarray, np.ndarray], null: Null, options: Options, note: str | None = None) -> JointResult:
    """The test of the kernels alone, from sums of random features over the units (units, 768) of each table.

    For tables that are known by such sums only (profiles): no pairs, shares or rows. Time O(draws x units x 768).
    """
    kernel = kernel_distance(sums, null, options.seed)
    combined = _combine(_kernel_members(kernel, options), len(null.sizes))
    distance = float(kernel.values[MIDDLE])
    low, high = kernel.interval
    return JointResult(
        p_value=combined.p_value,
        p_any=combined.p_any,
        p_value_low=combined.low,
        p_value_high=combined.high,
        distance=distance,
        low=low,
        high=min(high, math.sqrt(2)) if distance <= math.sqrt(2) else high,
        size=distance,
        members=combined.members,
        driver=combined.driver,
        note=note,
    )


def _by_classifier(
    representation: Representation, both: tuple[Side, Side], null: Null, options: Options, notes: list[str]
) -> JointResult | None:
    found = separation(representation, both, null)
    if found is None:
        return None
    delta = DELTA_SEPARATION * _factor(options)
    name = f"2 AUC - 1, {found.classifier}"
    member = _Member(name, max(found.value, 0.0), delta, found.value, found.value - delta, found.draws, found.draws, found.spread)
    combined = _combine([member], sum(found.units))
    notes = [*notes, "the joint distance is 2 AUC - 1 of a classifier on the half of the rows that did not train it"]
    return JointResult(
        p_value=combined.p_value,
        p_any=combined.p_any,
        p_value_low=combined.low,
        p_value_high=combined.high,
        distance=max(found.value, 0.0),
        low=found.interval[0],
        high=found.interval[1],
        size=max(found.value, 0.0),
        members=combined.members,
        driver=combined.driver,
        shares=found.shares if combined.p_value <= options.level else (),
        note="; ".join(notes),
    )


def _combine(members: list[_Member], units: int) -> _Combined:
    """One p-value of all members: the largest standardised, under the same draws, with the Gaussian tail beyond them.

    p = (1 + #{M* >= M(delta)})/(R + 1) or the tail bound, whichever is less; the bound needs 100 units. The interval is the
    Clopper-Pearson 99.9 % one of the draws.
    """
    reduced, plain = np.array([m.reduced for m in members]), np.array([m.plain for m in members])
    null = np.stack([m.reduced_draws for m in members], axis=1)
    null_plain = np.stack([m.draws for m in members], axis=1)
    tested, any_change = max_t(reduced, null), max_t(plain, null_plain)
    if tested.driver < 0:
        listed = tuple(Member(m.name, m.value, m.delta, 1.0) for m in members)
        return _Combined(1.0, 1.0, 1.0, 1.0, listed, None)
    low, high = (float(v) for v in clopper_pearson(tested.exceedances, len(null)))
    p_value, p_any, p_members = tested.p_value, any_change.p_value, tested.p_members
    if units >= _TAIL_UNITS:
        spread = np.array([m.spread for m in members])
        bounds = gaussian_tail(reduced, null, spread)
        bound = float(bounds.min())
        p_value, p_members = min(p_value, bound), np.minimum(p_members, bounds)
        p_any = min(p_any, float(gaussian_tail(plain, null_plain, spread).min()))
        high = min(high, bound)  # a bound on the p-value itself, free of Monte Carlo error
        low = min(low, high)
    listed = tuple(Member(m.name, m.value, m.delta, float(p)) for m, p in zip(members, p_members, strict=True))
    return _Combined(p_value, min(p_any, p_value), low, high, listed, members[tested.driver].name)


def gaussian_tail(values: np.ndarray, null: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """The isoperimetric bound on P(M* >= z_j) beyond the 95 % point of the draws (R, J); 1 below it.

    z_j and M* are standardised by the draws; sigma is the largest `spread` (J,) in units of its member's null deviation.
    """
    mean, sd = null.mean(0), null.std(0)
    alive = sd > 0
    scale = np.where(alive, sd, 1.0)
    t0 = float(np.quantile(np.where(alive, (null - mean) / scale, -np.inf).max(1), 0.95))
    sigma = float((spread / scale)[alive].max())
    z = np.where(alive, (values - mean) / scale, -np.inf)
    # Never 0: the bound is asymptotic, and a p-value of 0 would claim certainty.
    return np.array([max(isoperimetric_tail(float(v) - t0, sigma), _TINY) if v > t0 else 1.0 for v in z])


def _listed(representation: Representation, changes: PairChanges, delta: float, level: float) -> tuple[dict[str, Any], ...]:
    """The pairs of columns whose own change exceeds the null maximum over all pairs: family-wise over the list.

    A pair of columns with levels stands with the pair of levels that changed most; at most the 200 clearest are given.
    """
    excess = changes.excess(delta)
    ordered = np.sort(changes.draws)
    exceed = len(ordered) - np.searchsorted(ordered, excess - 1e-9, side="left")
    p = (1 + exceed) / (len(ordered) + 1)
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for index in np.lexsort((-excess, p)):
        if p[index] > level or len(found) == _MOST_PAIRS:
            break
        a, b = (representation.coordinates[k[index]] for k in (changes.first, changes.second))
        if (a.column, b.column) in found:
            continue
        found[a.column, b.column] = {
            "columns": [representation.columns[a.column].name, representation.columns[b.column].name],
            "levels": [a.level, b.level],
            "reference": float(changes.before[index]),
            "current": float(changes.after[index]),
            "change": float(changes.change[index]),
            "p_value": float(p[index]),
        }
    return tuple(found.values())
