"""Weights as integers of equal total, so that flows are exact, and flows as masses again."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_TOTAL = 2.0**60  # leaves room for sums of two totals in int64


@dataclass(frozen=True)
class IntegerWeights:
    """Positive weights of both sides as int64 of equal total, and which of the given points they belong to.

    a (n',), b (m',) > 0; rows (n',), columns (m',) int64 are the places of the points kept, out of `shape` = (n, m) given.
    `exact` says that the integers are proportional to the weights; otherwise each is off by its own float64 rounding and half
    a unit of 2^-60 of the total, the largest weight of one side by the sum of those.
    """

    a: np.ndarray
    b: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    shape: tuple[int, int]
    exact: bool

    @property
    def total(self) -> int:
        """The common total."""
        return int(self.a.sum())

    @property
    def complete(self) -> bool:
        """Whether every point given has mass."""
        return len(self.a) == self.shape[0] and len(self.b) == self.shape[1]


def integer_weights(a: np.ndarray, b: np.ndarray) -> IntegerWeights:
    """Weights a (n,), b (m,) >= 0 of (nearly) equal sums as integers of equal total; points without mass are left out.

    Equal weights on each side become n'm'/gcd units in all, exactly; others are rounded to multiples of 2^-60 of their own
    side's total, and what the rounding took goes to the largest weight. A positive weight below 2^-61 of the total is kept
    with no unit less than one. ValueError if a side has no mass. O(n + m) time.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    rows, columns = np.flatnonzero(a > 0), np.flatnonzero(b > 0)
    if not len(rows) or not len(columns):
        raise ValueError("both sides need a positive weight")
    shape = (len(a), len(b))
    a, b = a[rows], b[columns]
    n, m = len(a), len(b)
    if (a == a[0]).all() and (b == b[0]).all():
        common = int(np.gcd(n, m))
        return IntegerWeights(
            np.full(n, m // common, np.int64), np.full(m, n // common, np.int64), rows, columns, shape, exact=True
        )
    whole_a, whole_b = _rounded(a), _rounded(b)
    excess = int(whole_a.sum()) - int(whole_b.sum())
    # Added to the largest weight of the lighter side: both differ by rounding alone, far less than that weight.
    if excess > 0:
        whole_b[np.argmax(whole_b)] += excess
    else:
        whole_a[np.argmax(whole_a)] -= excess
    return IntegerWeights(whole_a, whole_b, rows, columns, shape, exact=False)


def masses(flows: np.ndarray, index: np.ndarray, whole: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Integer flows (k,) as masses (k,) float64 whose sums over `index` are the given weights to rounding.

    A flow out of point i becomes its share of the point's weight, flows / whole_i * weights_i, so that the marginal on that
    side holds to rounding however small the weight is; the other side then holds to 2^-60 of the total.
    """
    return flows / whole[index] * weights[index]


def _rounded(weights: np.ndarray) -> np.ndarray:
    """Multiples of 2^-60 of the sum, at least one each; the same for every order of the weights, as their sum is exact."""
    return np.maximum(np.rint(weights * (_TOTAL / math.fsum(weights))).astype(np.int64), 1)


__all__ = ["IntegerWeights", "integer_weights", "masses"]
