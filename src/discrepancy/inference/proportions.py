"""Shares of binomial counts: intervals of one share, of a difference and of a ratio, and Fisher's exact test of two."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from discrepancy._results import Estimate, Result

# (events, trials, confidence) -> (low, high): `wilson`, `clopper_pearson`, or one's own
ShareInterval = Callable[[ArrayLike, ArrayLike, float], tuple[ArrayLike, ArrayLike]]

# Probabilities of tables that are equal in exact arithmetic differ by rounding; the tolerance is that of R's and SciPy's tests.
_TIE = 1e-7


def whole_counts(events: ArrayLike, trials: ArrayLike, of: str = "") -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Both as integer arrays of one shape; ValueError unless 0 <= events <= trials and all are whole numbers."""
    k, n = np.broadcast_arrays(np.asarray(events, dtype=np.float64), np.asarray(trials, dtype=np.float64))
    if not (np.isfinite(k).all() and np.isfinite(n).all()) or (k != np.floor(k)).any() or (n != np.floor(n)).any():
        raise ValueError(f"events{of} and trials{of} must be whole numbers, got {events!r} of {trials!r}")
    if (k < 0).any() or (k > n).any():
        raise ValueError(f"events{of} must lie between 0 and trials{of}, got {events!r} of {trials!r}")
    return k.astype(np.int64), n.astype(np.int64)


def normal_quantile(confidence: float) -> float:
    """z with P(|Z| <= z) = confidence; ValueError outside (0, 1)."""
    from scipy.special import ndtri

    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie strictly between 0 and 1, got {confidence!r}")
    return float(ndtri(0.5 + confidence / 2))


def wilson(
    events: ArrayLike, trials: ArrayLike, confidence: float = 0.95
) -> tuple[np.float64 | NDArray[np.float64], np.float64 | NDArray[np.float64]]:
    """Wilson's score interval of the probability behind `events` successes in `trials` draws.

    The p with |k/n - p| <= z sqrt(p (1 - p) / n); coverage is near the level on average, also for rare events, where
    k/n +- z se fails. Arrays broadcast. Raises ValueError for counts that cannot be, or no trial. Source: Wilson 1927.
    """
    k, n = whole_counts(events, trials)
    if (n < 1).any():
        raise ValueError("a share needs at least one trial, got 0")
    z2 = normal_quantile(confidence) ** 2
    share = k / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2) / (1 + z2 / n) * np.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # At 0 and n the ends are exactly 0 and 1; rounding would leave 1e-18.
    low = np.where(k == 0, 0.0, np.maximum(centre - half, 0.0))
    high = np.where(k == n, 1.0, np.minimum(centre + half, 1.0))
    return low[()], high[()]


def rate(events: int, trials: int, *, level: float = 0.95, interval: ShareInterval = wilson) -> Estimate:
    """The share events/trials with an interval: `wilson` (default), or `clopper_pearson`, never below its level.

    Without a trial there is no share: the value is NaN and the interval [0, 1]. Raises ValueError for counts that cannot be.
    """
    k, n = (int(v) for v in whole_counts(events, trials))
    name = getattr(interval, "__name__", type(interval).__name__).replace("_", "-")
    if n == 0:
        return Estimate(math.nan, None, 0.0, 1.0, level, method=f"share, {name}", note="no trial: nothing is known")
    low, high = (float(np.asarray(v)) for v in interval(k, n, level))
    share = k / n
    return Estimate(share, math.sqrt(share * (1 - share) / n), low, high, level, method=f"share {k} of {n}, {name} interval")


def rate_difference(events_a: int, trials_a: int, events_b: int, trials_b: int, *, level: float = 0.95) -> Estimate:
    """p_a - p_b with Newcombe's hybrid score interval: each end combines the Wilson ends of the two shares.

    d - sqrt((p_a - l_a)^2 + (u_b - p_b)^2), d + sqrt((u_a - p_a)^2 + (p_b - l_b)^2). Valid with no event in either arm.
    Raises ValueError for counts that cannot be, or an arm without a trial. Source: Newcombe 1998.
    """
    a, n, b, m = _two_arms(events_a, trials_a, events_b, trials_b)
    p, q = a / n, b / m
    (la, ua), (lb, ub) = wilson(a, n, level), wilson(b, m, level)
    d = p - q
    low, high = d - math.hypot(p - la, ub - q), d + math.hypot(ua - p, q - lb)
    se = math.sqrt(p * (1 - p) / n + q * (1 - q) / m)
    note = "no event in either arm: the interval is all that these counts tell" if a + b == 0 else None
    return Estimate(
        d, se, float(max(low, -1.0)), float(min(high, 1.0)), level, method="difference of shares, Newcombe", note=note
    )


def rate_ratio(events_a: int, trials_a: int, events_b: int, trials_b: int, *, level: float = 0.95) -> Estimate:
    """p_a / p_b with the interval that is symmetric on the logarithm: exp(log ratio -+ z sqrt(1/a - 1/n + 1/b - 1/m)).

    With no event in an arm the logarithm is infinite: the ratio is given (NaN for 0/0) and no interval, with a note.
    Raises ValueError for counts that cannot be, or an arm without a trial. Source: Katz, Baptista, Azen and Pike 1978.
    """
    a, n, b, m = _two_arms(events_a, trials_a, events_b, trials_b)
    if a == 0 or b == 0:
        value = math.nan if a == b else (math.inf if b == 0 else 0.0)
        note = "no event in one arm: the logarithm has no interval, see the difference"
        return Estimate(value, None, None, None, level, method="ratio of shares", note=note)
    ratio = (a / n) / (b / m)
    se = math.sqrt(1 / a - 1 / n + 1 / b - 1 / m)
    reach = math.exp(normal_quantile(level) * se)
    return Estimate(ratio, ratio * se, ratio / reach, ratio * reach, level, method="ratio of shares, interval on the logarithm")


@dataclass(frozen=True, repr=False)
class FisherResult(Result):
    """Fisher's exact test of a 2 x 2 table: `p_value` two-sided, `p_greater` against p_a > p_b, `p_less` against p_a < p_b.

    `odds_ratio` is a d / (b c), the sample's: inf or NaN where the table has zeros.
    """

    odds_ratio: float
    p_value: float
    p_greater: float
    p_less: float


def fisher_exact(events_a: int, trials_a: int, events_b: int, trials_b: int) -> FisherResult:
    """Fisher's exact test that two shares are equal, given both margins.

    Events of arm a are hypergeometric under the null hypothesis; the two-sided p adds the probabilities of all tables no more
    probable than the observed one. Never anti-conservative; no event at all gives p = 1. Time O(events).
    Raises ValueError for counts that cannot be. Source: Fisher 1935.
    """
    a, n, b, m = (int(v) for v in _two_arms(events_a, trials_a, events_b, trials_b, empty=True))
    log_p, low = hypergeometric_log_pmf(a + b, n, m)
    p, here = np.exp(log_p), a - low
    two = float(p[log_p <= log_p[here] + math.log1p(_TIE)].sum())
    cross = b * (n - a)
    odds = a * (m - b) / cross if cross else (math.nan if a * (m - b) == 0 else math.inf)
    return FisherResult(odds, min(1.0, two), min(1.0, float(p[here:].sum())), min(1.0, float(p[: here + 1].sum())))


def hypergeometric_log_pmf(events: int, n: int, m: int) -> tuple[NDArray[np.float64], int]:
    """log P(A = low + i) for A events in arm a of n, when n + m rows hold `events` in all; and `low`, the least possible A.

    log C(n, A) + log C(m, events - A) - log C(n + m, events), normalised.
    """
    from scipy.special import gammaln, logsumexp

    low, high = max(0, events - m), min(n, events)
    k = np.arange(low, high + 1, dtype=np.float64)
    left = gammaln(k + 1) + gammaln(n - k + 1)
    right = gammaln(events - k + 1) + gammaln(m - events + k + 1)
    log_p = -(left + right)
    return log_p - logsumexp(log_p), low


def _two_arms(a: ArrayLike, n: ArrayLike, b: ArrayLike, m: ArrayLike, *, empty: bool = False) -> tuple[int, int, int, int]:
    (a, n), (b, m) = whole_counts(a, n, "_a"), whole_counts(b, m, "_b")
    if not empty and (int(n) < 1 or int(m) < 1):
        raise ValueError(f"each arm needs at least one trial, got {int(n)} and {int(m)}")
    return int(a), int(n), int(b), int(m)


__all__ = [
    "FisherResult",
    "ShareInterval",
    "fisher_exact",
    "hypergeometric_log_pmf",
    "normal_quantile",
    "rate",
    "rate_difference",
    "rate_ratio",
    "whole_counts",
    "wilson",
]
