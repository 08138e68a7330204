"""How many trials an arm needs to tell two shares apart, and the power that a number of trials gives."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from discrepancy._results import Result
from discrepancy._validate import fraction, whole_number
from discrepancy.inference.proportions import normal_quantile

_MOST = 10**9


@dataclass(frozen=True)
class TwoShareTest(ABC):
    """A two-sided test that two shares are equal, as what it rejects; a subclass is a frozen dataclass."""

    @abstractmethod
    def rejects(self, a: NDArray[np.float64], n: int, b: NDArray[np.float64], m: int, level: float) -> NDArray[np.bool_]:
        """Which of the tables a of n, b of m (broadcast) are rejected at the level."""

    def power(self, n: int, p: float, q: float, *, m: int | None = None, level: float = 0.05) -> float:
        """P(reject) with n trials at p and m (default n) at q, summed over both binomials (tails below 1e-13 left out).

        Time and memory O(n sqrt(p q)), the number of tables with noticeable probability.
        """
        whole_number(n, 1, "n")
        m = n if m is None else whole_number(m, 1, "m")
        fraction(level, "level")
        (a, pa), (b, pb) = _binomial(n, p), _binomial(m, q)
        return float((pa[:, None] * pb * self.rejects(a[:, None], n, b[None, :], m, level)).sum())


@dataclass(frozen=True)
class ArcsineTest(TwoShareTest):
    """|2 asin sqrt p_a - 2 asin sqrt p_b| sqrt(n m / (n + m)) > z: variance-stabilised, and with a sample size in closed form."""

    def rejects(self, a: NDArray[np.float64], n: int, b: NDArray[np.float64], m: int, level: float) -> NDArray[np.bool_]:
        gap = 2 * np.abs(np.arcsin(np.sqrt(a / n)) - np.arcsin(np.sqrt(b / m)))
        return gap * math.sqrt(n * m / (n + m)) > normal_quantile(1 - level)


@dataclass(frozen=True)
class ChiSquaredTest(TwoShareTest):
    """Pearson's chi-squared test of the pooled 2 x 2 table, without continuity correction."""

    def rejects(self, a: NDArray[np.float64], n: int, b: NDArray[np.float64], m: int, level: float) -> NDArray[np.bool_]:
        pooled = (a + b) / (n + m)
        variance = pooled * (1 - pooled) * (1 / n + 1 / m)
        return (a / n - b / m) ** 2 > normal_quantile(1 - level) ** 2 * variance


@dataclass(frozen=True)
class FisherTest(TwoShareTest):
    """Fisher's exact test, two-sided: never above its level, and less powerful for it."""

    def rejects(self, a: NDArray[np.float64], n: int, b: NDArray[np.float64], m: int, level: float) -> NDArray[np.bool_]:
        from discrepancy.inference.proportions import hypergeometric_log_pmf

        a, b = np.broadcast_arrays(a, b)
        found = np.zeros(a.shape, dtype=np.bool_)
        total = (a + b).astype(np.int64)
        for events in np.unique(total):
            here = total == events
            log_p, low = hypergeometric_log_pmf(int(events), n, m)
            order = np.argsort(log_p)
            # Tables of equal probability share their p: the cumulative sum up to the last of them.
            upto = np.searchsorted(log_p[order], log_p + math.log1p(1e-7), side="right") - 1
            p = np.cumsum(np.exp(log_p[order]))[upto]
            found[here] = p[a[here].astype(np.int64) - low] <= level
        return found


@dataclass(frozen=True, repr=False)
class SampleSize(Result):
    """`n` trials an arm, the `power` that the test then has, exactly, and the test."""

    n: int
    power: float
    test: str


def required_samples(
    p: float, q: float, *, power: float = 0.8, level: float = 0.05, test: TwoShareTest | None = None
) -> SampleSize:
    """The number of trials in each of two equal arms with which a two-sided test finds p against q with probability `power`.

    `ArcsineTest()` (default) by its formula n = 2 ((z_level + z_power) / (2 asin sqrt p - 2 asin sqrt q))^2, other tests by
    bisection on their exact power (which rises in small steps and dips: the answer is a crossing, not always the first).
    Independent trials: with cells of correlated answers more are needed. Raises ValueError for p = q or shares outside [0, 1].
    """
    for name, value in (("p", p), ("q", q)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be a share in [0, 1], got {value!r}")
    if p == q:
        raise ValueError(f"p and q are both {p!r}: no sample size tells equal shares apart")
    fraction(power, "power")
    fraction(level, "level")
    test = ArcsineTest() if test is None else test
    gap = 2 * abs(math.asin(math.sqrt(p)) - math.asin(math.sqrt(q)))
    z_power = math.copysign(normal_quantile(abs(2 * power - 1)), power - 0.5) if power != 0.5 else 0.0
    start = max(1, math.ceil(2 * ((normal_quantile(1 - level) + z_power) / gap) ** 2))
    if isinstance(test, ArcsineTest):
        return SampleSize(start, test.power(start, p, q, level=level), repr(test))
    low, high = 0, start
    while test.power(high, p, q, level=level) < power:
        low, high = high, 2 * high
        if high > _MOST:
            raise ValueError(f"{test!r} needs more than {_MOST:.0e} trials an arm for shares {p!r} and {q!r}")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if test.power(middle, p, q, level=level) >= power else (middle, high)
    return SampleSize(high, test.power(high, p, q, level=level), repr(test))


def _binomial(n: int, p: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The counts of Bin(n, p) that matter, and their probabilities."""
    from scipy.special import gammaln, xlog1py, xlogy

    if not 0 <= p <= 1:
        raise ValueError(f"a share must lie in [0, 1], got {p!r}")
    spread = 10 * math.sqrt(n * p * (1 - p)) + 30
    k = np.arange(max(0, math.floor(n * p - spread)), min(n, math.ceil(n * p + spread)) + 1, dtype=np.float64)
    log_p = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1) + xlogy(k, p) + xlog1py(n - k, -p)
    keep = log_p > math.log(1e-15)
    return k[keep], np.exp(log_p[keep])


__all__ = ["ArcsineTest", "ChiSquaredTest", "FisherTest", "SampleSize", "TwoShareTest", "required_samples"]
