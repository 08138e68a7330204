"""Monte Carlo p-values and their own error: exact binomial intervals and bands."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def _counts(exceedances: ArrayLike, draws: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both as float64 arrays; ValueError unless 0 <= exceedances <= draws, draws >= 1 and all are whole numbers."""
    k, r = np.asarray(exceedances, dtype=np.float64), np.asarray(draws, dtype=np.float64)
    if np.any(r < 1) or np.any(r != np.floor(r)):
        raise ValueError(f"draws must be a whole number of at least 1, got {draws!r}")
    if np.any(k != np.floor(k)) or np.any(k < 0) or np.any(k > r):
        raise ValueError(f"exceedances must be whole numbers between 0 and draws, got {exceedances!r} of {draws!r}")
    return k, r


def _tail(confidence: float) -> float:
    """Half of what the confidence leaves; ValueError outside (0, 1)."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie strictly between 0 and 1, got {confidence!r}")
    return (1 - confidence) / 2


def monte_carlo_p(exceedances: ArrayLike, draws: ArrayLike) -> np.float64 | NDArray[np.float64]:
    """The p-value (1 + #{T* >= T}) / (R + 1) of R draws from the null.

    The observed value counts as one draw of its own, so the p-value is never 0 and rejecting at p <= alpha has
    probability at most alpha, exactly, if the draws are exchangeable with the observed value. Arrays broadcast.
    Source: Phipson and Smyth 2010.
    """
    k, r = _counts(exceedances, draws)
    return (1 + k) / (r + 1)


def clopper_pearson(
    exceedances: ArrayLike, draws: ArrayLike, confidence: float = 0.999
) -> tuple[np.float64 | NDArray[np.float64], np.float64 | NDArray[np.float64]]:
    """Exact interval of the probability behind k successes in R draws.

    [B(alpha/2; k, R - k + 1), B(1 - alpha/2; k + 1, R - k)], B the quantile of the Beta law; 0 below when k = 0 and 1
    above when k = R. For a permutation test it covers the p-value that infinitely many permutations would give.
    Arrays broadcast. Raises ValueError for counts that cannot be. Source: Clopper and Pearson 1934.
    """
    from scipy.special import betaincinv

    k, r = _counts(exceedances, draws)
    tail = _tail(confidence)
    k, r = np.broadcast_arrays(k, r)
    # The Beta law has no density at a parameter of 0: there the limit is the end of the unit interval itself.
    low = np.where(k > 0, betaincinv(np.maximum(k, 1), r - k + 1, tail), 0.0)
    high = np.where(k < r, betaincinv(k + 1, np.maximum(r - k, 1), 1 - tail), 1.0)
    return low[()], high[()]


def inverse_sampling_interval(
    exceedances: ArrayLike, draws: ArrayLike, confidence: float = 0.999
) -> tuple[np.float64 | NDArray[np.float64], np.float64 | NDArray[np.float64]]:
    """Exact interval of the probability when sampling stopped at the k-th success, which was draw number L.

    The number of draws is random here: P(L <= l) = P(Bin(l, p) >= k), hence [B(alpha/2; k, L - k + 1),
    B(1 - alpha/2; k, L - k)], and 1 above when L = k. Arrays broadcast. Raises ValueError for k = 0 (it never stopped).
    """
    from scipy.special import betaincinv

    k, r = _counts(exceedances, draws)
    if np.any(k < 1):
        raise ValueError("sampling that stopped at a success has at least one: exceedances must be 1 or more")
    tail = _tail(confidence)
    k, r = np.broadcast_arrays(k, r)
    low = betaincinv(k, r - k + 1, tail)
    high = np.where(k < r, betaincinv(k, np.maximum(r - k, 1), 1 - tail), 1.0)
    return low[()], high[()]


def binomial_band(draws: int, rate: float, confidence: float = 0.99) -> tuple[int, int]:
    """The counts [low, high] in which a Bin(draws, rate) falls with at least the given probability.

    Equal tails: low is the smallest k with P(X <= k) > alpha/2, high the smallest with P(X <= k) >= 1 - alpha/2. A test
    of exact size `rate` shows a number of rejections inside it.
    """
    from scipy.special import bdtr

    _counts(0, draws)
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must lie between 0 and 1, got {rate!r}")
    tail = _tail(confidence)
    below = bdtr(np.arange(draws + 1, dtype=np.float64), draws, rate)
    low = int(np.argmax(below > tail))
    high = int(np.argmax(below >= 1 - tail)) if bool(np.any(below >= 1 - tail)) else draws
    return low, high
