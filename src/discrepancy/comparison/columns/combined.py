"""The members of a column's test combined into one p-value, and its tail beyond the largest draw."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from discrepancy.comparison.columns.norms import Norms
from discrepancy.comparison.columns.null import NullSample
from discrepancy.inference.montecarlo import clopper_pearson, inverse_sampling_interval
from discrepancy.inference.multiplicity import max_t

STOP_AT = 20  # exceedances after which a clearly null column needs no further draws (Besag and Clifford 1991)
_QUANTILE = 0.95
_NORMAL_95 = 1.6448536269514722  # Phi^-1(0.95)


@dataclass(frozen=True)
class Combined:
    """A column's test: `p_value` of the minimum-effect null, `p_any` of plain equality, and what they rest on.

    [`low`, `high`] covers the p-value that infinitely many permutations would give, 99.9 %. `p_members` (S,) are adjusted
    within the column (NaN for what is followed but not tested), `p_plain` (S,) are each statistic's own with delta 0.
    `noise` (S,) is the mean under the null, `driver` the index of the leading member or None where all are constant.
    """

    p_value: float
    p_any: float
    low: float
    high: float
    p_members: np.ndarray
    p_plain: np.ndarray
    noise: np.ndarray
    driver: int | None
    draws: int


def isoperimetric_tail(excess: float, largest_deviation: float) -> float:
    """The Gaussian isoperimetric bound P(M > t0 + excess) <= 1 - Phi(1.645 + excess / sigma), t0 the 95 % point of M.

    M is a maximum of standardised norms of a Gaussian vector, hence a Lipschitz function of it with constant sigma, the
    largest standard deviation of a linear functional: beyond its 95 % point it falls off no slower than a half-space.
    excess > 0. Asymptotic, on the safe side; 1, no claim, for sigma = 0: tables that are constant each have no noise whose
    law could be bounded, and the permutations alone speak. Sources: Borell 1975; Sudakov and Tsirelson 1974.
    """
    if not largest_deviation > 0:
        return 1.0
    from scipy.special import ndtr

    return float(ndtr(-(_NORMAL_95 + excess / largest_deviation)))


def combine(norms: Norms, observed: np.ndarray, delta: np.ndarray, null: NullSample, *, tail: bool, early: bool) -> Combined:
    """Single-step maxT over the tested members: p = (1 + #{M* >= max_j (T_j - delta_j - mu_j)/sd_j}) / (R + 1).

    observed (S,), less a sketch's error; delta (S,). A member that is constant under the null is dropped. tail: use the
    isoperimetric bound beyond the draws. early: the draws end with the 20th exceedance if it comes within them, p = 20 over
    their number. With an exact null sample the p-values are the shares of all splits, without Monte Carlo error. O(R S).
    """
    tested = np.flatnonzero(norms.tested)
    values = null.values[:, tested]
    with_delta = max_t(observed[tested], values, delta[tested])
    plain = max_t(observed[tested], values)
    R = len(values)
    p_members = np.full(len(observed), np.nan)
    p_members[tested] = with_delta.p_members
    spread = null.values.std(0)
    reach = 1e-9 * np.where(spread > 0, spread, 1.0)
    own = (null.values >= observed - reach).sum(0)
    p_plain = (1 + own) / (R + 1)
    p_value, p_any = with_delta.p_value, plain.p_value
    low, high = (float(end) for end in clopper_pearson(with_delta.exceedances, R))
    if with_delta.driver < 0:
        p_value = p_any = low = high = 1.0
    elif null.exact:
        # The observed split is one of those listed: it need not be counted again.
        p_value, p_any = with_delta.exceedances / R, plain.exceedances / R
        p_members[tested] = np.minimum(1.0, (p_members[tested] * (R + 1) - 1) / R)
        p_plain = own / R
        low = high = p_value
    elif early and with_delta.exceedances >= STOP_AT:
        at = _twentieth(observed[tested] - delta[tested], values)
        p_value = STOP_AT / at
        if plain.exceedances >= STOP_AT:
            p_any = STOP_AT / _twentieth(observed[tested], values)
        p_members[tested] = np.maximum(p_members[tested], p_value)
        low, high = (float(end) for end in inverse_sampling_interval(STOP_AT, at))
    elif tail:
        bounds = _tail(norms, observed - delta, null, tested)
        p_members[tested] = np.minimum(p_members[tested], bounds)
        if (bound := float(bounds.min())) < p_value:
            # The bound is on the p-value itself: nothing above it is left to the draws.
            p_value, high, low = bound, min(high, bound), min(low, bound)
        p_any = min(p_any, float(_tail(norms, observed, null, tested).min()))
    return Combined(
        p_value,
        p_any,
        low,
        high,
        p_members,
        p_plain,
        null.values.mean(0),
        int(tested[with_delta.driver]) if with_delta.driver >= 0 else None,
        R,
    )


def _standardised(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and deviation of each member under the null, and which of them vary at all."""
    mean, sd = values.mean(0), values.std(0)
    varies = sd > 1e-12 * np.maximum(np.abs(values).max(0), np.finfo(np.float64).tiny)
    return mean, sd, varies


def _tail(norms: Norms, shifted: np.ndarray, null: NullSample, tested: np.ndarray) -> np.ndarray:
    """The bound on each tested member's adjusted p-value; 1 where it lies inside the bulk of the null or is constant."""
    values = null.values[:, tested]
    mean, sd, varies = _standardised(values)
    bounds = np.ones(len(tested))
    if not varies.any():
        return bounds
    largest = ((values[:, varies] - mean[varies]) / sd[varies]).max(1)
    start = float(np.quantile(largest, _QUANTILE))
    sigma = float((norms.deviations()[tested][varies] / sd[varies]).max())
    if not math.isfinite(sigma):
        return bounds
    z = (shifted[tested] - mean)[varies] / sd[varies]
    bounds[varies] = [isoperimetric_tail(float(v) - start, sigma) if v > start else 1.0 for v in z]
    return bounds


def _twentieth(shifted: np.ndarray, values: np.ndarray) -> int:
    """The number of the draw with which the 20th exceedance came."""
    mean, sd, varies = _standardised(values)
    z = ((shifted - mean)[varies] / sd[varies]).max()
    largest = ((values[:, varies] - mean[varies]) / sd[varies]).max(1)
    return int(np.flatnonzero(largest >= z - 1e-9)[STOP_AT - 1]) + 1
