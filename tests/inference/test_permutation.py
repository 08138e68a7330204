"""The permutation test against exact tests known from elsewhere, and the exactness of its own p-values."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from plain import MeanShift, RiseOfMean
from scipy import stats
from torch import Tensor

from discrepancy._kinds import Discrepancy
from discrepancy._results import NumericalError
from discrepancy.inference import BesagClifford, permutation_test


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(n: int, d: int = 1, seed: int = 0, shift: float = 0.0) -> Tensor:
    return torch.randn(n, d, generator=seeded(seed), dtype=torch.float64) + shift


@pytest.mark.parametrize("alternative", ["two", "one"])
def test_all_splits_agree_with_scipy(alternative: str) -> None:
    x, y = normal(5, seed=1), normal(4, seed=2, shift=0.7)
    D: Discrepancy = MeanShift() if alternative == "two" else RiseOfMean()

    def gap(u: np.ndarray, v: np.ndarray) -> float:
        rise = v.mean() - u.mean()
        return abs(rise) if alternative == "two" else rise

    want = stats.permutation_test(
        (x.numpy()[:, 0], y.numpy()[:, 0]), gap, n_resamples=np.inf, alternative="greater", vectorized=False
    )
    got = permutation_test(x, y, D)
    assert got.p_value == got.p_low == got.p_high == pytest.approx(want.pvalue)
    assert got.statistic == pytest.approx(want.statistic)
    assert "all 126 arrangements" in got.method


def test_binary_rows_give_fishers_exact_test() -> None:
    x, y = [0, 0, 0, 1, 0, 0], [1, 1, 0, 1, 1]
    table = [[sum(y), len(y) - sum(y)], [sum(x), len(x) - sum(x)]]
    assert permutation_test(x, y, RiseOfMean()).p_value == pytest.approx(stats.fisher_exact(table, "greater").pvalue)


def test_pairs_give_the_sign_flip_test() -> None:
    x, y = normal(8, seed=3), normal(8, seed=4, shift=0.5)
    want = stats.permutation_test(
        ((y - x).numpy()[:, 0],), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="greater"
    )
    got = permutation_test(x, y, RiseOfMean(), paired=True)
    assert got.p_value == pytest.approx(want.pvalue)
    assert "swaps within pairs" in got.method


def test_strata_by_hand() -> None:
    x, y = [1.0, 5.0, 2.0], [4.0, 3.0, 9.0]
    # stratum 0 holds 1, 5 | 4 and stratum 1 holds 2 | 3, 9: two of {1, 5, 4} and one of {2, 3, 9} go to x
    sums = [sum(p) + q for p in itertools.combinations([1, 5, 4], 2) for q in (2, 3, 9)]
    want = np.mean([total <= 8 for total in sums])
    got = permutation_test(x, y, RiseOfMean(), strata=([0, 0, 1], [0, 1, 1]))
    assert got.p_value == pytest.approx(want)


def test_blocks_by_hand_with_unequal_sizes() -> None:
    groups = [[1.0, 2.0], [7.0], [3.0, 8.0, 9.0], [4.0]]
    x, y = groups[0] + groups[1], groups[2] + groups[3]

    def rise(chosen: tuple[int, ...]) -> float:
        inside = [v for i in chosen for v in groups[i]]
        outside = [v for i in range(4) if i not in chosen for v in groups[i]]
        return float(np.mean(outside) - np.mean(inside))

    want = np.mean([rise(c) >= rise((0, 1)) - 1e-12 for c in itertools.combinations(range(4), 2)])
    got = permutation_test(x, y, RiseOfMean(), blocks=([0, 0, 1], [0, 0, 0, 1]))
    assert got.p_value == pytest.approx(want)


def test_weights_travel_with_their_rows() -> None:
    rows, w = np.array([1.0, 4.0, 2.0, 6.0, 3.0]), np.array([0.5, 1.5, 0.4, 1.6, 1.0])
    a, b = w[:2] / w[:2].sum(), w[2:] / w[2:].sum()  # both mean one: n a = w and m b = w

    def rise(chosen: tuple[int, ...]) -> float:
        inside = np.isin(np.arange(5), chosen)
        return float(np.average(rows[~inside], weights=w[~inside]) - np.average(rows[inside], weights=w[inside]))

    want = np.mean([rise(c) >= rise((0, 1)) - 1e-12 for c in itertools.combinations(range(5), 2)])
    got = permutation_test(rows[:2], rows[2:], RiseOfMean(), a, b)
    assert got.p_value == pytest.approx(want)
    assert got.statistic == pytest.approx(rise((0, 1)))


def test_rows_without_weight_take_no_part() -> None:
    x, y = normal(5, seed=5), normal(6, seed=6)
    zero = torch.tensor([0.25, 0.25, 0.0, 0.25, 0.25], dtype=torch.float64)
    keep = zero > 0
    got = permutation_test(x, y, MeanShift(), zero, strata=([0, 0, 5, 0, 0], [0] * 6))
    assert got.p_value == permutation_test(x[keep], y, MeanShift()).p_value


def test_drawn_p_values_approach_the_exact_one() -> None:
    x, y = normal(7, seed=7), normal(7, seed=8, shift=0.8)
    exact = permutation_test(x, y, MeanShift(), permutations=4000)
    drawn = permutation_test(x, y, MeanShift(), permutations=2000, generator=seeded())
    assert "all 3432" in exact.method
    assert "2000 draws" in drawn.method
    assert drawn.p_low <= exact.p_value <= drawn.p_high
    assert drawn.p_low < drawn.p_value < drawn.p_high


def test_same_state_same_answer_and_other_state_another() -> None:
    x, y = normal(30, 2, seed=1), normal(20, 2, seed=2)
    first, again, other = (permutation_test(x, y, MeanShift(), permutations=99, generator=seeded(s)) for s in (1, 1, 2))
    assert first == again
    assert first.p_value != other.p_value
    torch.manual_seed(4)
    default = permutation_test(x, y, MeanShift(), permutations=99)
    torch.manual_seed(4)
    assert permutation_test(x, y, MeanShift(), permutations=99) == default


def test_small_memory_gives_the_same_answer() -> None:
    x, y = normal(30, seed=1), normal(20, seed=2, shift=0.3)
    whole = permutation_test(x, y, MeanShift(), permutations=99, generator=seeded())
    assert permutation_test(x, y, MeanShift(), permutations=99, generator=seeded(), memory=1e-4) == whole


def test_equal_samples_and_ties_give_p_one() -> None:
    x = torch.tensor([0.0, 0.1, 0.1, 0.3, 0.7, 0.7])
    for rows in (x, x.double()):
        assert permutation_test(rows, rows.flip(0), MeanShift()).p_value == 1
    assert permutation_test([1.0], [2.0], MeanShift()).p_value == 1


def test_p_is_exactly_uniform_over_all_splits() -> None:
    # Each of the C(6,3) = 20 splits is the observed one once: P(p <= alpha) <= alpha, with equality where there are no ties.
    rows = torch.tensor([0.0, 1.0, 3.0, 7.0, 15.0, 31.0])
    values = []
    for chosen in itertools.combinations(range(6), 3):
        rest = [i for i in range(6) if i not in chosen]
        values.append(permutation_test(rows[list(chosen)], rows[rest], RiseOfMean()).p_value)
    assert sorted(values) == pytest.approx(np.arange(1, 21) / 20)


def test_early_stop_reports_the_stopped_proportion() -> None:
    x, y = normal(40, seed=1), normal(40, seed=2)
    full = permutation_test(x, y, MeanShift(), permutations=999, generator=seeded())
    stopped = permutation_test(x, y, MeanShift(), permutations=999, generator=seeded(), early_stop=BesagClifford(20))
    assert "stopped at 20 exceedances" in stopped.method
    draws = int(stopped.method.split(", ")[1].split()[0])
    assert stopped.p_value == 20 / draws
    assert stopped.p_low <= full.p_value <= stopped.p_high
    small = permutation_test(x, y + 3, MeanShift(), permutations=999, generator=seeded(), early_stop=BesagClifford(20))
    assert small.p_value == 1 / 1000
    assert small == permutation_test(x, y + 3, MeanShift(), permutations=999, generator=seeded())


def test_power_grows_to_one_and_direction_matters() -> None:
    x, y = normal(50, seed=1), normal(50, seed=2, shift=1.5)
    assert permutation_test(x, y, RiseOfMean(), generator=seeded()).p_value == 1 / 1000
    assert permutation_test(y, x, RiseOfMean(), generator=seeded()).p_value == 1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: permutation_test(x, x, abs), TypeError, "Discrepancy"),
        (lambda x: permutation_test(x, x, MeanShift(), permutations=0), ValueError, "permutations"),
        (lambda x: permutation_test(x, x, MeanShift(), early_stop=20), TypeError, "BesagClifford"),
        (lambda x: permutation_test(x, x, MeanShift(), memory=-1), ValueError, "memory"),
        (lambda x: permutation_test(x[None], x[None], MeanShift()), ValueError, "batch"),
        (lambda x: permutation_test(x, torch.ones(3, 2), RiseOfMean()), ValueError, "features"),
        (lambda x: permutation_test(x, x, MeanShift(), generator=3), TypeError, "generator"),
    ],
)
def test_wrong_arguments_are_refused(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(torch.ones(3, 1))  # type: ignore[operator]


def test_a_statistic_that_is_nan_is_an_error() -> None:
    class Broken(MeanShift):
        def _value(self, pair, generator):  # type: ignore[no-untyped-def]
            return super()._value(pair, generator) * float("nan")

    with pytest.raises(NumericalError, match="NaN"):
        permutation_test(normal(9), normal(9), Broken())


def test_pairs_without_weight_are_an_error_when_a_sample_loses_all_mass() -> None:
    with pytest.raises(NumericalError, match="weight zero"):
        permutation_test([0.0, 1.0], [2.0, 3.0], MeanShift(), [1.0, 0.0], [0.0, 1.0], paired=True)


@pytest.mark.slow
def test_twenty_thousand_rows_stay_within_the_memory_budget() -> None:
    code = """
import resource, torch
from discrepancy import permutation_test
from discrepancy.transport import Wasserstein
g = torch.Generator().manual_seed(0)
x, y = (torch.randn(10_000, generator=g) for _ in range(2))
permutation_test(x[:50], y[:50], Wasserstein(1), generator=g)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
permutation_test(x, y, Wasserstein(1), permutations=999, generator=g)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20)
"""
    grown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(grown) < 0.75  # GiB; the weight rows of all 999 permutations at once would be 0.3 in float64, twice
