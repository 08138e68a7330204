"""What carries a joint difference: the columns without which it shrinks, and the rows that are most typical of it.

Both describe; neither is a test. Source for the witness: Gretton et al. (2012).
"""

from __future__ import annotations

import datetime
import math
from typing import Any

import numpy as np

from discrepancy.comparison.joint.features import Features, waves
from discrepancy.comparison.joint.scores import Representation
from discrepancy.comparison.joint.sides import Side
from discrepancy.comparison.model import ColumnPair, Kind, TablePair
from discrepancy.comparison.streams import stream

_SHARE_ROWS = 5_000  # of each table
_SHARE_WORK = 2_000_000  # rows x columns of each table
_WITNESS_ROWS = 20_000  # of each table
_EXAMPLES = 10
_CELLS = 50  # columns shown of an example row
_YEAR_1, _YEAR_10000 = -62_135_596_800, 253_402_300_800  # seconds since 1970: the years that have a calendar date


def column_shares(
    representation: Representation, both: tuple[Side, Side], phi: Features, seed: int
) -> tuple[dict[str, Any], ...]:
    """{column, share}: how much of the distance goes when a column is left out, largest first, adding up to 1.

    The distance without column j has row j of the frequencies set to 0; both distances are unbiased and taken relative to
    the mean similarity of the pooled rows, since leaving any column out makes all rows more alike. Correlated columns
    share the credit. At most 5,000 rows a table: time O(rows x 128 x columns). Empty where no column carries anything.
    """
    random = stream(seed, "joint", "shares")
    most = max(200, min(_SHARE_ROWS, _SHARE_WORK // max(len(representation.columns), 1)))
    rows, weights = [], []
    for current, side in ((False, both[0]), (True, both[1])):
        where = side.some_rows(most, random)
        rows.append(representation.pooled(current, side.rows[where]))
        weights.append(np.ones(len(where)) if side.weight is None else side.weight[where])
    x, n = np.concatenate(rows), len(rows[0])
    phase = x @ phi.frequencies
    owner = representation.owner()
    whole = _relative(phase, n, weights)
    if whole <= 0:
        return ()
    drops = []
    for column in range(len(representation.columns)):
        own = np.flatnonzero(owner == column)
        drops.append(max(0.0, whole - _relative(phase - x[:, own] @ phi.frequencies[own], n, weights)))
    total = sum(drops)
    if total <= 0:
        return ()
    found = [
        {"column": pair.name, "share": drop / total} for pair, drop in zip(representation.columns, drops, strict=True) if drop > 0
    ]
    return tuple(sorted(found, key=lambda item: -item["share"]))


def _relative(phase: np.ndarray, n: int, weights: list[np.ndarray]) -> float:
    """The unbiased squared distance of the first n rows from the others, over the pooled rows' mean similarity."""
    z = waves(phase)
    parts = []
    for block, weight in ((z[:n], weights[0]), (z[n:], weights[1])):
        w = weight / weight.sum()
        mean = w.astype(np.float32) @ block
        diagonal = float(w @ w)  # every row's similarity to itself is 1
        parts.append((mean.astype(np.float64), diagonal))
    (a, da), (b, db) = parts
    within = sum((float(v @ v) - d) / (1 - d) for v, d in ((a, da), (b, db)) if d < 1)
    pooled = (n * a + (len(z) - n) * b) / len(z)
    return (within - 2 * float(a @ b)) / max(float(pooled @ pooled), 1e-12)


def typical_rows(
    table: TablePair,
    representation: Representation,
    both: tuple[Side, Side],
    phi: Features,
    sums: tuple[np.ndarray, np.ndarray],
    columns_first: list[str],
    seed: int,
) -> dict[str, list[dict[str, Any]]]:
    """Ten rows of each table that are most unlike the other table: {row, score, values}, by a cross-fitted witness.

    w(z) = phi(z)' (mean phi_ref - mean phi_cur)/norm, the direction from one half of the units and the scores for the other
    half, since a direction favours the rows that it was made from. The score is w for reference rows and -w for current
    ones. At most 20,000 rows a table are scored. `columns_first` are the columns whose cells come first.
    """
    random = stream(seed, "joint", "halves")
    halves = []
    for side in both:
        if side.count < 4:
            return {}
        half = np.zeros(side.count, dtype=bool)
        half[random.permutation(side.count)[: side.count // 2]] = True
        halves.append(half)
    sizes = [side.sizes() for side in both]
    direction = {}
    for half in (True, False):
        means = [s[h == half].sum(0, dtype=np.float64) / z[h == half].sum() for s, z, h in zip(sums, sizes, halves, strict=True)]
        gap = means[0] - means[1]
        direction[half] = (gap / max(float(np.linalg.norm(gap)), 1e-300)).astype(np.float32)
    found = {}
    for name, current, side, half in (("reference", False, both[0], halves[0]), ("current", True, both[1], halves[1])):
        where = side.some_rows(_WITNESS_ROWS, random)
        rows = side.rows[where]
        z = phi(representation.pooled(current, rows))
        mine = half[side.unit[where]]
        score = np.where(mine, z @ direction[False], z @ direction[True]) * (-1.0 if current else 1.0)
        top = np.argsort(-score, kind="stable")
        # Rows that frequency weights repeat are one row; equal rows say nothing twice.
        seen: dict[int, float] = {}
        for i in top:
            seen.setdefault(int(rows[i]), float(score[i]))
            if len(seen) == _EXAMPLES:
                break
        found[name] = [
            {"row": row, "score": value, "values": cells(table, current, row, columns_first)} for row, value in seen.items()
        ]
    return found


def cells(table: TablePair, current: bool, row: int, columns_first: list[str]) -> dict[str, Any]:
    """One row as a reader would see it, at most 50 columns: numbers, level names, ISO 8601 times, None where missing."""
    by_name = {pair.name: pair for pair in table.columns}
    names = [*columns_first, *(n for n in by_name if n not in set(columns_first))][:_CELLS]
    return {name: _cell(by_name[name], current, row) for name in names}


def _cell(pair: ColumnPair, current: bool, row: int) -> Any:
    column = pair.current if current else pair.reference
    if column.missing[row]:
        return None
    value = column.values[row]
    if pair.levels is not None and not pair.kind.ordered:
        code = int(value)
        return pair.levels[code] if 0 <= code < len(pair.levels) else None
    if not isinstance(value, np.floating | np.integer | np.bool_ | float | int):
        return str(value)
    number = float(value)
    if not math.isfinite(number):
        return "inf" if number > 0 else "-inf"
    if pair.kind is Kind.DATETIME and _YEAR_1 <= number < _YEAR_10000:
        moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=number)
        return moment.isoformat(sep=" ", timespec="seconds")
    return int(number) if pair.kind is Kind.INTEGER and number.is_integer() else number
