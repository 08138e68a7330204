"""Two arms counted in many strata: the common odds ratio, its tests, and a permutation test of the rates."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from discrepancy._results import Estimate, Result, TestResult
from discrepancy._validate import fraction, generator_or_default, whole_number
from discrepancy.inference.montecarlo import clopper_pearson, monte_carlo_p
from discrepancy.inference.permutation import numpy_stream
from discrepancy.inference.proportions import hypergeometric_log_pmf, normal_quantile, whole_counts

Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class StratifiedCounts:
    """Events and trials of two arms, a and b, in S strata: four integer arrays (S,).

    Strata in which an arm has no trial say nothing about the difference and are left out; `dropped` counts them.
    Raises ValueError for counts that cannot be or where no stratum is left.
    """

    events_a: Counts
    trials_a: Counts
    events_b: Counts
    trials_b: Counts
    dropped: int = 0

    @classmethod
    def of(cls, events_a: ArrayLike, trials_a: ArrayLike, events_b: ArrayLike, trials_b: ArrayLike) -> StratifiedCounts:
        """Checked and without strata that lack an arm."""
        a, n = (np.atleast_1d(v) for v in whole_counts(events_a, trials_a, "_a"))
        b, m = (np.atleast_1d(v) for v in whole_counts(events_b, trials_b, "_b"))
        if a.ndim != 1 or a.shape != b.shape:
            raise ValueError(f"both arms must have one count a stratum, got shapes {a.shape} and {b.shape}")
        both = (n > 0) & (m > 0)
        if not both.any():
            raise ValueError("no stratum has trials in both arms: there is nothing to compare within")
        return cls(a[both], n[both], b[both], m[both], int((~both).sum()))

    @property
    def events(self) -> Counts:
        """Events of both arms, a stratum."""
        return self.events_a + self.events_b

    @property
    def trials(self) -> Counts:
        """Trials of both arms, a stratum."""
        return self.trials_a + self.trials_b

    def rates(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The two arms' rates, a stratum."""
        return self.events_a / self.trials_a, self.events_b / self.trials_b


@dataclass(frozen=True, repr=False)
class CommonOddsRatio(Result):
    """The Mantel-Haenszel odds ratio of arm a against arm b, with its interval and the test of odds ratio 1.

    `log_odds_ratio` +- z `standard_error` (Robins, Breslow and Greenland) gives [`low`, `high`]; `statistic` is chi-squared with
    one degree of freedom, `p_value` its p, `exact_p` that of the exact conditional test; `homogeneity_p` the Breslow-Day test
    (Tarone's correction) that the strata share one odds ratio. Without an event, or with events everywhere, nothing is known: the
    interval is [0, inf], p = 1 and `note` says so.
    """

    odds_ratio: float
    log_odds_ratio: float
    standard_error: float | None
    low: float
    high: float
    level: float
    statistic: float
    p_value: float
    exact_p: float
    homogeneity_p: float | None
    strata: int
    note: str | None = None

    references = ("mantel-haenszel-1959", "robins-1986")


def cochran_mantel_haenszel(
    events_a: ArrayLike,
    trials_a: ArrayLike,
    events_b: ArrayLike,
    trials_b: ArrayLike,
    *,
    level: float = 0.95,
    continuity: bool = False,
) -> CommonOddsRatio:
    """Compare two arms within strata: OR = sum a d / n over sum b c / n, and the Cochran-Mantel-Haenszel test.

    Counts (S,): events and trials of the arms in each stratum. The odds ratio is consistent both for few large strata and for
    many sparse ones. The test's statistic is (|sum (a - E a)| - c)^2 / sum Var a under the hypergeometric law, c = 1/2 with
    `continuity`. Time O(S), and O(events^2) for the exact p. Raises ValueError for counts that cannot be.
    Source: Mantel and Haenszel 1959; Robins, Breslow and Greenland 1986.
    """
    counts = StratifiedCounts.of(events_a, trials_a, events_b, trials_b)
    fraction(level, "level")
    n = counts.trials.astype(np.float64)
    a, b = counts.events_a.astype(np.float64), (counts.trials_a - counts.events_a).astype(np.float64)
    c, d = counts.events_b.astype(np.float64), (counts.trials_b - counts.events_b).astype(np.float64)
    R, S = a * d / n, b * c / n
    statistic, p = _chi_squared(counts, continuity)
    exact = exact_conditional_test(counts)
    note = f"{counts.dropped} strata without trials in both arms left out" if counts.dropped else None
    over, under = float(R.sum()), float(S.sum())
    if over == 0 or under == 0:
        value = math.nan if over == under else (math.inf if under == 0 else 0.0)
        why = "no stratum has both an event in one arm and a non-event in the other: the odds ratio has no interval"
        log = math.nan if math.isnan(value) else (math.log(value) if value else -math.inf)
        return CommonOddsRatio(value, log, None, 0.0, math.inf, level, statistic, p, exact, None, len(n), why)
    odds, P, Q = over / under, (a + d) / n, (b + c) / n
    variance = (P * R).sum() / (2 * over**2) + (P * S + Q * R).sum() / (2 * over * under) + (Q * S).sum() / (2 * under**2)
    se = math.sqrt(variance)
    reach = math.exp(normal_quantile(level) * se)
    return CommonOddsRatio(
        odds, math.log(odds), se, odds / reach, odds * reach, level, statistic, p, exact, _homogeneity(counts, odds), len(n), note
    )  # fmt: skip


def _moments(counts: StratifiedCounts) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and variance of the events in arm a, a stratum, given all margins."""
    N, n, m = (v.astype(np.float64) for v in (counts.trials, counts.trials_a, counts.trials_b))
    k = counts.events.astype(np.float64)
    mean = n * k / N
    variance = np.where(N > 1, n * m * k * (N - k) / (N * N * np.maximum(N - 1, 1)), 0.0)
    return mean, variance


def _chi_squared(counts: StratifiedCounts, continuity: bool) -> tuple[float, float]:
    from scipy.special import chdtrc

    mean, variance = _moments(counts)
    total = float(variance.sum())
    if total == 0:
        return 0.0, 1.0
    gap = abs(float((counts.events_a - mean).sum()))
    statistic = max(0.0, gap - (0.5 if continuity else 0.0)) ** 2 / total
    return statistic, float(chdtrc(1, statistic))


def exact_conditional_test(counts: StratifiedCounts) -> float:
    """The exact two-sided p-value of no difference within any stratum, given all margins.

    The events of arm a, summed over strata, are a sum of independent hypergeometric numbers: their law is the convolution. p adds
    the probabilities of all sums no more probable than the observed one. Time O(events^2), memory O(events).
    """
    law, start = np.ones(1), 0
    for events, n, m in zip(counts.events.tolist(), counts.trials_a.tolist(), counts.trials_b.tolist(), strict=True):
        if events == 0 or events == n + m:
            start += n if events else 0
            continue
        log_p, low = hypergeometric_log_pmf(events, n, m)
        law, start = np.convolve(law, np.exp(log_p)), start + low
    here = law[int(counts.events_a.sum()) - start]
    return float(min(1.0, law[law <= here * (1 + 1e-7)].sum() / law.sum()))


def _homogeneity(counts: StratifiedCounts, odds: float) -> float | None:
    """The Breslow-Day test with Tarone's correction: do the strata share the odds ratio? None with fewer than two strata."""
    from scipy.special import chdtrc

    informative = (counts.events > 0) & (counts.events < counts.trials)
    if int(informative.sum()) < 2:
        return None
    a, n, m, k = (v[informative].astype(np.float64) for v in (counts.events_a, counts.trials_a, counts.trials_b, counts.events))
    # The fitted count e of arm a solves e (m - k + e) = odds (n - e) (k - e).
    if abs(odds - 1) < 1e-12:
        fitted = n * k / (n + m)
    else:
        A, B, C = 1 - odds, m - k + odds * (n + k), -odds * n * k
        root = np.sqrt(B * B - 4 * A * C)
        fitted = -2 * C / (B + root)  # the root inside the table's bounds, without cancellation
    variance = 1 / (1 / fitted + 1 / (n - fitted) + 1 / (k - fitted) + 1 / (m - k + fitted))
    statistic = float(((a - fitted) ** 2 / variance).sum() - (a - fitted).sum() ** 2 / variance.sum())
    return float(chdtrc(len(a) - 1, max(0.0, statistic)))


# Weights of strata from their numbers of trials in the two arms.
StratumWeights = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


def equal_weights(trials_a: NDArray[np.float64], trials_b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Every stratum weighs the same: the mean over cells of the rate difference."""
    return np.ones_like(trials_a, dtype=np.float64)


def mantel_haenszel_weights(trials_a: NDArray[np.float64], trials_b: NDArray[np.float64]) -> NDArray[np.float64]:
    """n m / (n + m): strata weigh by what they tell about the difference."""
    return trials_a * trials_b / (trials_a + trials_b)


def stratified_permutation_test(
    events_a: ArrayLike,
    trials_a: ArrayLike,
    events_b: ArrayLike,
    trials_b: ArrayLike,
    *,
    weights: StratumWeights = equal_weights,
    permutations: int = 9999,
    generator: torch.Generator | None = None,
) -> TestResult:
    """Is the weighted mean over strata of p_a - p_b further from zero than arms exchanged within strata make it?

    Exchanging the trials' labels inside a stratum makes the events of arm a hypergeometric: those are drawn, so that a
    permutation costs O(S) whatever the number of trials. Two-sided in |statistic|; exact under exchangeability within strata,
    whatever the strata's rates and sizes. Memory O(permutations x S), in chunks. `p_low`, `p_high`: 99.9 % interval over draws.
    Raises ValueError for counts that cannot be or fewer than one permutation.
    """
    counts = StratifiedCounts.of(events_a, trials_a, events_b, trials_b)
    whole_number(permutations, 1, "permutations")
    n, m = counts.trials_a.astype(np.float64), counts.trials_b.astype(np.float64)
    w = np.asarray(weights(n, m), dtype=np.float64)
    if w.shape != n.shape or (w < 0).any() or not w.sum() > 0:
        raise ValueError(f"weights must be non-negative, one a stratum, with a positive sum, got shape {w.shape}")
    w = w / w.sum()

    def statistic(a: Any) -> Any:
        return (w * (a / n - (counts.events - a) / m)).sum(-1)

    observed = float(statistic(counts.events_a))
    rng = numpy_stream(generator_or_default(generator))
    reached, step = 0, max(1, 2**22 // len(n))
    tie = 1e-12 * float((w * (1 / n + 1 / m)).sum())
    for start in range(0, permutations, step):
        size = (min(step, permutations - start), len(n))
        drawn = rng.hypergeometric(counts.events, counts.trials - counts.events, counts.trials_a, size=size)
        reached += int((np.abs(statistic(drawn)) >= abs(observed) - tie).sum())
    low, high = (float(v) for v in clopper_pearson(reached, permutations))
    note = "no event: every arrangement is the same, and p = 1" if counts.events.sum() == 0 else None
    return TestResult(
        observed,
        float(monte_carlo_p(reached, permutations)),
        low,
        high,
        method=f"permutation within {len(n)} strata, {permutations} draws, {weights.__name__.replace('_', ' ')}",
        note=note,
    )


def cluster_bootstrap(
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    clusters: int,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    generator: torch.Generator | None = None,
) -> Estimate:
    """A statistic's percentile interval when whole clusters, not rows, are independent.

    `statistic` takes weights (R, clusters), how often each cluster is drawn, and returns (R,); rows of ones give the value.
    Resamples in which it is not finite are left out; more than a tenth of such, or fewer than ten clusters, is told in `note`.
    Raises ValueError for fewer than two clusters. Memory O(resamples x clusters).
    """
    whole_number(clusters, 2, "clusters")
    whole_number(resamples, 100, "resamples")
    fraction(level, "level")
    value = float(statistic(np.ones((1, clusters)))[0])
    rng = numpy_stream(generator_or_default(generator))
    drawn = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=resamples).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.asarray(statistic(drawn), dtype=np.float64)
    kept = values[np.isfinite(values)]
    method = f"bootstrap of {clusters} whole clusters, {resamples} resamples"
    if len(kept) < resamples / 2:
        return Estimate(value, level=level, method=method, note="no interval: most resamples have no finite value")
    tail = (1 - level) / 2
    low, high = (float(v) for v in np.quantile(kept, [tail, 1 - tail]))
    note = f"{resamples - len(kept)} resamples without a finite value left out" if len(kept) < 0.9 * resamples else None
    if clusters < 10:
        note = "fewer than ten clusters: the percentile interval is too short" + (f"; {note}" if note else "")
    return Estimate(value, float(kept.std(ddof=1)), low, high, level, method=method, note=note)


__all__ = [
    "CommonOddsRatio",
    "StratifiedCounts",
    "StratumWeights",
    "cluster_bootstrap",
    "cochran_mantel_haenszel",
    "equal_weights",
    "exact_conditional_test",
    "mantel_haenszel_weights",
    "stratified_permutation_test",
]
