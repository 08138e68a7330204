"""Many tests at once: adjusted p-values that keep a family's error rate."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


def _p_values(p: ArrayLike) -> NDArray[np.float64]:
    """A 1-D float64 array of p-values; ValueError names the first that is none."""
    values = np.asarray(p, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"p must be one-dimensional, got shape {values.shape}")
    bad = ~((values >= 0) & (values <= 1))
    if bad.any():
        where = int(np.argmax(bad))
        raise ValueError(f"p-values lie between 0 and 1, got {values[where]} at index {where}: leave untested members out")
    return values


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Holm's adjusted p-values: rejecting those <= alpha keeps the probability of any false rejection at alpha.

    p_(i) sorted upward, adjusted_(i) = max_{j <= i} min(1, (k - j + 1) p_(j)). Holds under any dependence.
    p (k,) in [0, 1] without NaN; returns (k,) in the order given. O(k log k). Source: Holm 1979.
    """
    values = _p_values(p)
    k = len(values)
    order = np.argsort(values, kind="stable")
    steps = np.minimum(values[order] * np.arange(k, 0, -1), 1.0)
    adjusted = np.empty(k)
    adjusted[order] = np.maximum.accumulate(steps)
    return adjusted


def benjamini_hochberg(p: ArrayLike) -> NDArray[np.float64]:
    """Benjamini-Hochberg adjusted p-values: rejecting those <= alpha keeps the expected share of false ones at alpha.

    adjusted_(i) = min_{j >= i} min(1, k p_(j) / j). Holds for independent or positively dependent tests.
    p (k,) in [0, 1] without NaN; returns (k,) in the order given. O(k log k). Source: Benjamini and Hochberg 1995.
    """
    values = _p_values(p)
    k = len(values)
    order = np.argsort(values, kind="stable")
    # The factor first: it is at least 1, so that rounding puts no adjusted p-value below its own.
    steps = np.minimum(values[order] * (k / np.arange(1, k + 1)), 1.0)
    adjusted = np.empty(k)
    adjusted[order] = np.minimum.accumulate(steps[::-1])[::-1]
    return adjusted


class MaxT(NamedTuple):
    """Single-step maxT: the combined test and each member's share in it.

    `p_value` of the maximum, `exceedances` behind it (for its Monte Carlo interval), `p_members` (J,) adjusted within the
    family, `driver` the index of the largest standardised member, or -1 where every member is constant.
    """

    p_value: float
    exceedances: int
    p_members: NDArray[np.float64]
    driver: int


def max_t(observed: ArrayLike, null: ArrayLike, shift: ArrayLike = 0.0) -> MaxT:
    """Combine J statistics of one null by the largest standardised one (Westfall and Young's single step).

    z_j = (T_j - shift_j - mu_j) / sd_j with mu_j, sd_j the mean and standard deviation of the null draws,
    M*_r = max_j (T*_rj - mu_j) / sd_j, p_j = (1 + #{M* >= z_j}) / (R + 1), and the p-value that of max_j z_j.
    observed (J,), null (R, J), shift (J,) or a number (the minimum effect that a member must exceed). A member that is
    constant under the null is dropped (its p is 1). Ties count as exceedances (tolerance 1e-9 in standard units).
    O(R J) time and memory. Source: Westfall and Young 1993.
    """
    T, draws = np.asarray(observed, dtype=np.float64), np.asarray(null, dtype=np.float64)
    if T.ndim != 1 or draws.ndim != 2 or draws.shape[1] != len(T) or len(draws) == 0:
        raise ValueError(f"observed (J,) and null (R, J) must agree, got shapes {T.shape} and {draws.shape}")
    if not (np.isfinite(T).all() and np.isfinite(draws).all()):
        raise ValueError("observed and null must be finite: leave out members that do not exist")
    mean, sd = draws.mean(0), draws.std(0)
    # Rounding leaves a constant member with a standard deviation of some ulp, not of zero.
    varies = sd > 1e-12 * np.maximum(np.abs(draws).max(0), np.finfo(np.float64).tiny)
    p_members = np.ones(len(T))
    if not varies.any():
        return MaxT(1.0, len(draws), p_members, -1)
    z = ((T - np.asarray(shift, dtype=np.float64) - mean)[varies]) / sd[varies]
    largest = ((draws[:, varies] - mean[varies]) / sd[varies]).max(1)
    counts = (largest[:, None] >= z[None, :] - 1e-9).sum(0)
    p_members[varies] = (1 + counts) / (len(draws) + 1)
    best = int(np.argmax(z))
    return MaxT(float((1 + counts[best]) / (len(draws) + 1)), int(counts[best]), p_members, int(np.flatnonzero(varies)[best]))
