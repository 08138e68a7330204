"""Shares, strata and sample sizes against published examples, SciPy, and enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch

from discrepancy.inference import (
    ArcsineTest,
    ChiSquaredTest,
    FisherTest,
    clopper_pearson,
    cluster_bootstrap,
    cochran_mantel_haenszel,
    equal_weights,
    fisher_exact,
    mantel_haenszel_weights,
    rate,
    rate_difference,
    rate_ratio,
    required_samples,
    sign_flip_test,
    stratified_permutation_test,
    wilson,
)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_wilson_and_clopper_pearson_of_newcombes_example() -> None:
    # Newcombe 1998 (two-sided intervals for the single proportion), 81 of 263.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert rate(81, 263, interval=clopper_pearson).low == pytest.approx(0.2527, abs=5e-5)
    assert wilson(0, 20)[0] == 0.0
    assert wilson(0, 20)[1] == pytest.approx(0.1611, abs=5e-5)
    assert wilson(20, 20) == pytest.approx((0.8389, 1.0), abs=5e-5)


@pytest.mark.parametrize(("k", "n"), [(0, 7), (1, 29), (15, 148), (263, 263), (3, 5)])
def test_wilson_agrees_with_scipy(k: int, n: int) -> None:
    theirs = scipy.stats.binomtest(k, n).proportion_ci(0.9, method="wilson")
    assert wilson(k, n, 0.9) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize(
    ("table", "ends"),
    [
        ((56, 70, 48, 80), (0.0524, 0.3339)),
        ((9, 10, 3, 10), (0.1705, 0.8090)),
        ((5, 56, 0, 29), (-0.0381, 0.1926)),
        ((0, 10, 0, 20), (-0.1611, 0.2775)),
    ],
)
def test_difference_of_shares_as_newcombe_published_it(table: tuple[int, int, int, int], ends: tuple[float, float]) -> None:
    found = rate_difference(*table)
    assert (found.low, found.high) == pytest.approx(ends, abs=5e-5)
    mirrored = rate_difference(*table[2:], *table[:2])
    assert (mirrored.low, mirrored.high) == pytest.approx((-ends[1], -ends[0]), abs=5e-5)


def test_ratio_of_shares() -> None:
    # Aspirin in the Physicians' Health Study (Agresti, Categorical Data Analysis, 2.1.3): 1.82, interval 1.43 to 2.30
    found = rate_ratio(189, 11034, 104, 11037)
    assert (found.value, found.low, found.high) == pytest.approx((1.818, 1.433, 2.306), abs=1e-3)
    none = rate_ratio(0, 10, 0, 10)
    assert math.isnan(float(none.value))
    assert none.low is None
    assert rate_ratio(3, 10, 0, 10).value == math.inf


@pytest.mark.parametrize("table", [(8, 10, 1, 6), (3, 4, 1, 4), (0, 5, 0, 9), (7, 2000, 19, 1500), (0, 3, 5, 5)])
def test_fisher_agrees_with_scipy(table: tuple[int, int, int, int]) -> None:
    a, n, b, m = table
    cells = [[a, n - a], [b, m - b]]
    found = fisher_exact(*table)
    assert found.p_value == pytest.approx(scipy.stats.fisher_exact(cells)[1], rel=1e-9)
    assert found.p_greater == pytest.approx(scipy.stats.fisher_exact(cells, "greater")[1], rel=1e-9)
    assert found.p_less == pytest.approx(scipy.stats.fisher_exact(cells, "less")[1], rel=1e-9)


# Admissions at Berkeley in 1973 by department: admitted and applicants, men and women.
_MEN = (512, 825), (353, 560), (120, 325), (138, 417), (53, 191), (22, 373)
_WOMEN = (89, 108), (17, 25), (202, 593), (131, 375), (94, 393), (24, 341)
_BERKELEY = tuple(np.array(v) for v in (*zip(*_MEN), *zip(*_WOMEN)))


def test_mantel_haenszel_of_the_berkeley_admissions() -> None:
    # R's mantelhaen.test(UCBAdmissions)
    found = cochran_mantel_haenszel(*_BERKELEY, continuity=True)
    assert (found.statistic, found.p_value) == pytest.approx((1.4269, 0.2323), abs=5e-5)
    assert (found.odds_ratio, found.low, found.high) == pytest.approx((0.9046968, 0.7719074, 1.0603298), abs=1e-6)
    assert cochran_mantel_haenszel(*_BERKELEY).statistic == pytest.approx(1.5246, abs=5e-5)
    assert found.homogeneity_p is not None
    assert found.homogeneity_p < 0.005  # the first department favours women
    mirrored = cochran_mantel_haenszel(*_BERKELEY[2:], *_BERKELEY[:2])
    assert mirrored.odds_ratio == pytest.approx(1 / found.odds_ratio)
    assert mirrored.exact_p == pytest.approx(found.exact_p)


def test_one_stratum_is_fishers_test() -> None:
    found = cochran_mantel_haenszel([8], [10], [1], [6])
    assert found.exact_p == pytest.approx(fisher_exact(8, 10, 1, 6).p_value)
    assert found.odds_ratio == pytest.approx(8 * 5 / (2 * 1))
    assert found.homogeneity_p is None


_SMALL = (np.array([2, 1, 0]), np.array([3, 2, 2]), np.array([0, 1, 1]), np.array([3, 2, 3]))


def _arrangements() -> list[tuple[list[int], float]]:
    """Events of arm a by stratum in every arrangement of labels, with its share of all arrangements."""
    choices = []
    for a, n, b, m in zip(*_SMALL):
        rows = [1] * (a + b) + [0] * (n + m - a - b)
        choices.append([sum(rows[i] for i in subset) for subset in itertools.combinations(range(n + m), n)])
    every = list(itertools.product(*choices))
    return [(list(v), 1 / len(every)) for v in every]


def test_exact_conditional_test_by_enumeration() -> None:
    sums: dict[int, float] = {}
    for events, p in _arrangements():
        sums[sum(events)] = sums.get(sum(events), 0.0) + p
    here = sums[int(_SMALL[0].sum())]
    expected = sum(p for p in sums.values() if p <= here * (1 + 1e-9))
    assert cochran_mantel_haenszel(*_SMALL).exact_p == pytest.approx(expected)


@pytest.mark.parametrize("weights", [equal_weights, mantel_haenszel_weights], ids=["equal", "mantel-haenszel"])
def test_stratified_permutation_by_enumeration(weights) -> None:
    a, n, b, m = (v.astype(float) for v in _SMALL)
    w = weights(n, m) / weights(n, m).sum()

    def statistic(events: np.ndarray) -> float:
        return float((w * (events / n - (a + b - events) / m)).sum())

    observed = statistic(a)
    expected = sum(p for e, p in _arrangements() if abs(statistic(np.array(e))) >= abs(observed) - 1e-9)
    found = stratified_permutation_test(*_SMALL, weights=weights, permutations=20_000, generator=_generator())
    assert found.statistic == pytest.approx(observed)
    assert found.p_low <= expected <= found.p_high
    again = stratified_permutation_test(*_SMALL, weights=weights, permutations=20_000, generator=_generator())
    assert again.p_value == found.p_value


def test_no_event_at_all_is_p_one_with_a_note() -> None:
    counts = [0, 0], [10, 12], [0, 0], [9, 30]
    found = cochran_mantel_haenszel(*counts)
    assert (found.p_value, found.exact_p, found.low, found.high) == (1.0, 1.0, 0.0, math.inf)
    assert found.note is not None
    tested = stratified_permutation_test(*counts, permutations=99)
    assert tested.p_value == 1.0
    assert "no event" in (tested.note or "")
    assert fisher_exact(0, 10, 0, 12).p_value == 1.0


def test_strata_that_lack_an_arm_are_left_out_and_told() -> None:
    found = cochran_mantel_haenszel([8, 3], [10, 9], [1, 0], [6, 0])
    assert found.strata == 1
    assert "1 strata" in (found.note or "")
    with pytest.raises(ValueError, match="no stratum has trials in both arms"):
        cochran_mantel_haenszel([1], [2], [0], [0])


@pytest.mark.parametrize("test", [ArcsineTest(), ChiSquaredTest(), FisherTest()], ids=["arcsine", "chi-squared", "fisher"])
def test_power_by_plain_enumeration(test) -> None:
    n, p, q = 18, 0.15, 0.6
    total = 0.0
    for a, b in itertools.product(range(n + 1), repeat=2):
        cells = np.array([[a, n - a], [b, n - b]])
        if isinstance(test, FisherTest):
            rejected = scipy.stats.fisher_exact(cells)[1] <= 0.05
        elif isinstance(test, ChiSquaredTest):
            rejected = 0 < a + b < 2 * n and scipy.stats.chi2_contingency(cells, correction=False)[1] < 0.05
        else:
            rejected = abs(math.asin(math.sqrt(a / n)) - math.asin(math.sqrt(b / n))) * 2 * math.sqrt(n / 2) > 1.959964
        total += rejected * scipy.stats.binom.pmf(a, n, p) * scipy.stats.binom.pmf(b, n, q)
    assert test.power(n, p, q) == pytest.approx(total, rel=1e-9)


def test_sample_sizes_of_the_textbooks() -> None:
    # Cohen 1988: an effect of h = 0.344 (shares 0.05 and 0.15) needs 15.70 / h^2 = 133 an arm for 80 % at 5 %
    assert required_samples(0.05, 0.15).n == 133
    assert required_samples(0.05, 0.15).power == pytest.approx(0.8, abs=0.03)
    assert required_samples(0.15, 0.05).n == required_samples(0.05, 0.15).n
    exact = required_samples(0.05, 0.3, test=FisherTest())
    assert exact.power >= 0.8
    assert FisherTest().power(exact.n - 1, 0.05, 0.3) < 0.8
    assert exact.n >= required_samples(0.05, 0.3, test=ChiSquaredTest()).n
    assert required_samples(0.2, 0.3, power=0.3).n < required_samples(0.2, 0.3, power=0.5).n < required_samples(0.2, 0.3).n


def test_cluster_bootstrap_of_a_mean_is_that_of_the_cluster_means() -> None:
    values = np.random.default_rng(0).normal(size=40)
    found = cluster_bootstrap(lambda w: (w * values).sum(1) / w.sum(1), 40, resamples=4000, generator=_generator())
    assert found.value == pytest.approx(values.mean())
    assert found.standard_error == pytest.approx(values.std() / math.sqrt(40), rel=0.05)
    assert found.low < values.mean() < found.high
    few = cluster_bootstrap(lambda w: (w * values[:4]).sum(1) / w.sum(1), 4, generator=_generator())
    assert "fewer than ten" in (few.note or "")


def test_sign_flips_by_enumeration_and_in_blocks() -> None:
    d = [0.5, 1.0, -0.25, 2.0]
    means = [sum(s * v for s, v in zip(signs, d)) / 4 for signs in itertools.product((1, -1), repeat=4)]
    two = sum(abs(v) >= abs(sum(d) / 4) - 1e-12 for v in means) / 16
    one = sum(v >= sum(d) / 4 - 1e-12 for v in means) / 16
    assert sign_flip_test(d).p_value == two
    assert sign_flip_test(d, one_sided=True).p_value == one
    assert sign_flip_test([-v for v in d], one_sided=True).p_value > 0.8
    assert sign_flip_test(d, blocks=["a", "a", "b", "b"]).p_value == 1 / 2
    drawn = sign_flip_test(torch.tensor(d * 5) + 1, permutations=500, generator=_generator())
    assert drawn.p_value == pytest.approx(1 / 501)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: wilson(3, 2), "between 0 and trials"),
        (lambda: wilson(1.5, 3), "whole numbers"),
        (lambda: wilson(0, 0), "at least one trial"),
        (lambda: wilson(1, 3, 1.0), "confidence must lie"),
        (lambda: rate_difference(1, 2, 0, 0), "each arm needs"),
        (lambda: cochran_mantel_haenszel([1, 2], [3, 3], [1], [3, 3][:1]), "one count a stratum"),
        (lambda: required_samples(0.1, 0.1), "no sample size"),
        (lambda: required_samples(0.1, 1.2), "q must be a share"),
        (lambda: cluster_bootstrap(lambda w: w[:, 0], 1), "clusters must be"),
        (lambda: sign_flip_test([]), "at least one entry"),
        (lambda: sign_flip_test([1.0, math.nan]), "non-finite"),
        (lambda: stratified_permutation_test([1], [2], [1], [2], weights=lambda n, m: -n), "non-negative"),
    ],
    ids=lambda v: v if isinstance(v, str) else "call",
)
def test_bad_input_is_named(call, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()
