"""How a distance moves with the rows: influence functions, their standard error, and the sign of heavy tails.

T = <psi, F_n - G_m> near the data for the psi that attains the norm, so its error is that of two means of psi.
Sources: Munk and Czado 1998; del Barrio, Gordaliza and Loubes 2019; Sommerfeld and Munk 2018.
"""

from __future__ import annotations

import math

import numpy as np

from discrepancy.comparison.columns.counts import KnotCounts, Side

FEW_BEYOND = 10  # rows beyond a gap: fewer make it part of a tail rather than of the bulk
LARGEST_GAPS = 5
HEAVY = 0.25


def kantorovich_potential(difference: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """psi(v_1) = 0, psi(v_{k+1}) = psi(v_k) - sign(F - G)(v_k) gap_k: W1 = E_F psi - E_G psi. (K - 1,) twice -> (K,)."""
    return np.concatenate([[0.0], np.cumsum(-np.sign(difference) * gaps)])


def mean_variance(side: Side, psi: np.ndarray, *, dependent: bool = False, cells: slice = slice(None)) -> float:
    """The variance of the weighted mean of psi (cells,) over the rows in some cells of one table.

    sum w^2 (psi - mean)^2 / (sum w)^2 times n_eff/(n_eff - 1): for equal weights the sample variance over n. dependent: from
    the sums over units instead, sum_u s_u^2 / (sum w)^2 times U/(U - 1). NaN for fewer than two rows or units.
    """
    mass = side.mass[cells]
    total = float(mass.sum())
    if total <= 0:
        return math.nan
    centred = psi - float(mass @ psi) / total
    if dependent:
        assert side.units is not None
        number = int((side.units[:, cells].sum(1) > 0).sum())
        if number < 2:
            return math.nan
        sums = side.units[:, cells] @ centred
        return float(sums @ sums) / total**2 * number / (number - 1)
    n = side.effective(cells)
    if n <= 1 + 1e-9:
        return math.nan
    return float(side.square[cells] @ centred**2) / total**2 * n / (n - 1)


def standard_error(counts: KnotCounts, psi: np.ndarray, cells: slice, *, dependent: bool | None = None) -> float:
    """The standard error of <psi, F_n - G_m> over some cells; NaN where a table has fewer than two rows or units."""
    unitwise = counts.dependent if dependent is None else dependent
    return math.sqrt(sum(mean_variance(side, psi, dependent=unitwise, cells=cells) for side in counts.sides))


def design_effect(counts: KnotCounts, psi: np.ndarray, cells: slice) -> float:
    """By how much dependence inside units multiplies the variance of <psi, F_n - G_m>; at least 1, and 1 for independent rows."""
    if not counts.dependent:
        return 1.0
    rows = standard_error(counts, psi, cells, dependent=False)
    units = standard_error(counts, psi, cells)
    return max(1.0, (units / rows) ** 2) if rows > 0 else 1.0


def tail_share(counts: KnotCounts, difference: np.ndarray, gaps: np.ndarray) -> float:
    """The share of se^2 that the five largest tail gaps carry: 1 - se^2 without them over se^2.

    A tail gap has at most 10 pooled rows beyond it. Where a handful of gaps carries much of the variance, a central limit
    theorem has nothing to stand on, and an infinite variance is likely. (K - 1,) twice; O(K).
    """
    beyond = np.cumsum(counts.pooled[: counts.values])[:-1]
    beyond = np.minimum(beyond, counts.pooled[: counts.values].sum() - beyond)
    tail = np.flatnonzero(beyond <= FEW_BEYOND)
    if not len(tail):
        return 0.0
    largest = tail[np.argsort(-gaps[tail], kind="stable")[:LARGEST_GAPS]]
    cells = slice(0, counts.values)
    whole = standard_error(counts, kantorovich_potential(difference, gaps), cells)
    if not whole > 0:
        return 0.0
    kept = gaps.copy()
    kept[largest] = 0.0
    rest = standard_error(counts, kantorovich_potential(difference, kept), cells)
    return max(0.0, 1 - (rest / whole) ** 2)
