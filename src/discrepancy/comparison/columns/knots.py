"""Where distribution functions are compared: at every distinct value, or at quantiles that are dense in the tails."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

MOST_DISTINCT = 2048
QUANTILES = 512
HEAVY_SHARE = 1 / 1024
_SQRT_PI_HALF = math.sqrt(math.pi) / 2


@dataclass(frozen=True)
class Line:
    """The finite values of both tables on the line, reduced to what the statistics need.

    `knots` (K,) increasing, the last the pooled maximum; `distance` W1 = sum |F - G|(v_k) (v_{k+1} - v_k) over all distinct
    pooled values, `scale` 0.8862 times Gini's mean difference of the equal mixture, 0.8862 * 2 sum Hbar (1 - Hbar) gap,
    and `spread` the standard deviation of the pooled column: all three from the raw rows, in their units.
    """

    knots: np.ndarray
    distance: float
    scale: float
    spread: float


def cosine_probabilities(count: int = QUANTILES) -> np.ndarray:
    """u_k = (1 - cos(pi k / count)) / 2, k = 0..count: dense near 0 and 1, where distribution functions differ little."""
    return (1 - np.cos(np.pi * np.arange(count + 1) / count)) / 2


def choose_knots(pooled: np.ndarray, *, most: int = MOST_DISTINCT, quantiles: int = QUANTILES) -> np.ndarray:
    """The knots of sorted pooled values (N,): all distinct ones up to `most`, else cosine-spaced quantiles and heavy values.

    Heavy values hold more than 1/1,024 of the rows; they are knots, so that an atom is never split from its cell. The
    knots depend on the pooled rows alone: permutations of the rows leave them. O(N).
    """
    n = len(pooled)
    if not n:
        return np.empty(0)
    first = np.flatnonzero(np.concatenate([[True], pooled[1:] != pooled[:-1]]))
    if len(first) <= most:
        return pooled[first]
    at = np.ceil(cosine_probabilities(quantiles) * n).astype(np.int64) - 1
    chosen = pooled[np.clip(at, 0, n - 1)]
    heavy = pooled[first[np.diff(np.append(first, n)) > HEAVY_SHARE * n]]
    return np.unique(np.concatenate([chosen, heavy]))


def place(x: np.ndarray, y: np.ndarray, weights: tuple[np.ndarray | None, np.ndarray | None] = (None, None)) -> Line:
    """Knots and exact line statistics of finite values x (n,) and y (m,) under row weights.

    Without values in one table there is no distance: it is NaN, and the scale that of the other table.
    O((n + m) log(n + m)) time, O(n + m) memory.
    """
    values = np.concatenate([x, y])
    if not len(values):
        return Line(np.empty(0), math.nan, 0.0, 0.0)
    order = np.argsort(values, kind="stable")
    pooled = values[order]
    knots = choose_knots(pooled)
    mine = order < len(x)
    w = np.concatenate([np.ones(len(v)) if u is None else u for v, u in ((x, weights[0]), (y, weights[1]))])[order]
    in_x, in_y = np.cumsum(np.where(mine, w, 0.0)), np.cumsum(np.where(mine, 0.0, w))
    gaps = np.diff(pooled)
    if in_x[-1] > 0 and in_y[-1] > 0:
        # Between equal values the gap is 0, so ties need no care.
        F, G = in_x[:-1] / in_x[-1], in_y[:-1] / in_y[-1]
        distance = float(np.abs(F - G) @ gaps)
        middle = (F + G) / 2
    else:
        distance = math.nan
        total = in_x[-1] + in_y[-1]
        middle = (in_x + in_y)[:-1] / total if total > 0 else np.zeros(len(gaps))
    scale = _SQRT_PI_HALF * 2 * float(np.maximum(middle * (1 - middle), 0.0) @ gaps)
    share = w / w.sum() if w.sum() > 0 else np.full(len(w), 1 / len(w))
    # From the median first: the mean of a constant column need not be that constant, and its spread is exactly 0.
    centred = pooled - pooled[len(pooled) // 2]
    centred -= float(share @ centred)
    return Line(knots, distance, scale, math.sqrt(float(share @ centred**2)))
