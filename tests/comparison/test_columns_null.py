"""The null distribution: every mechanism against enumeration by hand, and the p-value against its definition."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from columns_data import compare, levels, ordered, rows
from scipy.special import ndtr
from scipy.stats import wasserstein_distance

from discrepancy.comparison.columns import Draws, count_column
from discrepancy.comparison.columns.combined import combine, isoperimetric_tail
from discrepancy.comparison.columns.norms import norms_of
from discrepancy.comparison.columns.null import NullSample, _shuffled, _tables, null_sample
from discrepancy.comparison.model import Options, Units


def _by_hand(norms, subsets):
    """Statistics of each split, through the masses of both parts."""
    counts = norms.counts
    cells = np.concatenate([counts.reference.cells, counts.current.cells])
    out = []
    for subset in subsets:
        a = np.bincount(cells[list(subset)], minlength=counts.cells).astype(float)
        b = counts.pooled - a
        out.append(norms.values(norms.difference(a[None], b[None]))[0])
    return np.array(out)


def test_few_rows_are_enumerated_and_the_p_value_is_exact():
    x, y = np.array([0.1, 0.4, 0.5, 2.0, np.nan]), np.array([1.1, 1.7, 2.5, 3.0, 4.0])
    result = compare(ordered(x, y))
    pooled = np.concatenate([x, y])
    norms = norms_of(count_column(ordered(x, y), Units(5, 5), Options()))
    null = _by_hand(norms, combinations(range(10), 5))
    assert len(null) == 252
    T = norms.values(norms.observed()[None])[0]
    centre, sd = null.mean(0), null.std(0)
    largest = ((null - centre) / sd).max(1)
    delta = norms.deltas(None)
    assert result.p_any == pytest.approx((largest >= ((T - centre) / sd).max() - 1e-9).mean(), abs=1e-12)
    assert result.p_value == pytest.approx((largest >= ((T - delta - centre) / sd).max() - 1e-9).mean(), abs=1e-12)
    assert result.p_value_low == result.p_value == result.p_value_high
    # The noise is the mean distance over the splits, here from SciPy.
    w1 = []
    for subset in combinations(range(10), 5):
        a, b = pooled[list(subset)], np.delete(pooled, subset)
        w1.append(wasserstein_distance(a[~np.isnan(a)], b[~np.isnan(b)]))
    assert result.noise == pytest.approx(np.mean(w1), rel=1e-9)


def test_tables_and_shuffled_labels_have_one_law():
    rng = np.random.default_rng(0)
    pair = levels(rng.integers(-1, 3, 30), rng.integers(-1, 4, 20), ("a", "b", "c", "d"))
    counts = count_column(pair, rows(pair), Options())
    draws = Draws(1)
    tables = np.concatenate(list(_tables(counts, 40_000, draws, "x")))
    labels = np.concatenate(list(_shuffled(counts, draws.subsets(50, 20, 40_000))))
    N, size = 50, 20
    h = counts.pooled / N
    for drawn in (tables, labels):
        assert (drawn.sum(1) == size).all()
        # Mean and variance of the hypergeometric law, within five standard errors.
        sd = np.sqrt(size * h * (1 - h) * (N - size) / (N - 1))
        assert np.abs(drawn.mean(0) - size * h).max() < (5 * sd / math.sqrt(len(drawn))).max()
        assert drawn.var(0) == pytest.approx(sd**2, rel=0.05)
        assert np.cov(drawn.T)[0, 1] == pytest.approx(-size * h[0] * h[1] * (N - size) / (N - 1), rel=0.1)


@pytest.mark.parametrize(("total", "size"), [(40, 13), (400, 150), (3000, 20)])
def test_subsets_are_uniform(total, size):
    drawn = np.concatenate(list(Draws(3).subsets(total, size, 4000)))
    assert drawn.shape == (4000, size)
    assert all(len(set(row)) == size for row in drawn[:200].tolist())
    share = size / total
    freq = np.bincount(drawn.ravel(), minlength=total)
    chi = ((freq - 4000 * share) ** 2 / (4000 * share * (1 - share))).sum() * (total - 1) / total
    assert abs(chi - (total - 1)) < 5 * math.sqrt(2 * (total - 1))
    # Pairs: the first two rows are together in a subset with probability size (size - 1) / (total (total - 1)).
    both = ((drawn == 0).any(1) & (drawn == 1).any(1)).mean()
    want = size * (size - 1) / (total * (total - 1))
    assert abs(both - want) < 5 * math.sqrt(want * (1 - want) / 4000)


def test_units_move_as_wholes():
    rng = np.random.default_rng(4)
    unit_x, unit_y = np.repeat(np.arange(5), [1, 4, 2, 2, 3]), np.repeat(np.arange(4), [3, 1, 2, 5])
    x, y = rng.integers(0, 6, 12).astype(float), rng.integers(0, 6, 11).astype(float)
    x[2] = np.nan
    units = Units(5, 4, unit_x, unit_y, kind="clusters")
    pair = ordered(x, y)
    counts = count_column(pair, units, Options())
    norms = norms_of(counts)
    # All splits of nine units into four and five, the masses added by hand.
    unit = np.concatenate([unit_x, unit_y + 5])
    splits = [np.flatnonzero(np.isin(unit, chosen)) for chosen in combinations(range(9), 4)]
    sample = null_sample(norms, 999, Draws(0), "x")
    assert sample.exact
    assert np.sort(sample.values, 0) == pytest.approx(np.sort(_by_hand(norms, splits), 0), abs=1e-12)


def test_weights_move_with_their_rows():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=4), rng.normal(size=5)
    a, b = rng.exponential(size=4), rng.exponential(size=5)
    counts = count_column(ordered(x, y), Units(4, 5), Options(), (a, b))
    norms = norms_of(counts)
    sample = null_sample(norms, 999, Draws(0), "x")
    w, pooled = np.concatenate([a / a.mean(), b / b.mean()]), np.concatenate([x, y])
    want = []
    for subset in combinations(range(9), 4):
        rest = np.setdiff1d(range(9), subset)
        want.append(wasserstein_distance(pooled[list(subset)], pooled[rest], w[list(subset)], w[rest]))
    assert np.sort(sample.values[:, 0]) == pytest.approx(np.sort(want), abs=1e-12)


def test_frequency_weights_are_rows():
    rng = np.random.default_rng(6)
    x, y = rng.integers(0, 5, 30), rng.integers(0, 5, 25)
    f, g = rng.integers(1, 6, 30), rng.integers(1, 6, 25)
    options = Options(frequency_weights=True)
    for make in (lambda u, v: ordered(u, v), lambda u, v: levels(u, v, tuple("abcde"))):
        short, long = make(x, y), make(np.repeat(x, f), np.repeat(y, g))
        one = compare(short, options=options, weights=(f.astype(float), g.astype(float)))
        two = compare(long)
        assert one.distance == pytest.approx(two.distance, rel=1e-12)
        assert one.n_eff == two.n_eff
        assert one.noise == pytest.approx(two.noise, rel=0.1)
        assert one.high == pytest.approx(two.high, rel=1e-9)
        assert abs(one.p_any - two.p_any) < 0.06


def test_multipliers_have_the_variance_of_a_weighted_mean():
    rng = np.random.default_rng(7)
    x, y = rng.integers(0, 2, 400).astype(float), rng.integers(0, 2, 300).astype(float)
    w = rng.exponential(size=400)
    units = Units(400, 300, null="multiplier")
    counts = count_column(ordered(x, y), units, Options(), (w, None))
    norms = norms_of(counts)
    ks = null_sample(norms, 6000, Draws(2), "x").values[:, 2]
    u = w / w.sum()
    p, q = u @ x, y.mean()
    # |B| for a two-point column: the second moment is the sum of the two sandwich variances.
    variance = (u**2 * (x - p) ** 2).sum() + q * (1 - q) / 300
    assert (ks**2).mean() == pytest.approx(variance, rel=0.06)


def test_the_first_draws_do_not_depend_on_how_many_follow_nor_on_other_columns():
    rng = np.random.default_rng(8)
    a = ordered(rng.normal(size=300), rng.normal(size=280), "a")
    b = levels(rng.integers(0, 3, 300), rng.integers(0, 3, 280), ("u", "v", "w"), "b")
    shared = Draws(0)
    first = compare(a, draws=shared)
    compare(b, draws=shared)
    assert compare(a, draws=shared) == first == compare(a)
    for pair in (a, b):
        norms = norms_of(count_column(pair, rows(pair), Options()))
        few = null_sample(norms, 150, Draws(5), pair.name).values
        many = null_sample(norms, 1234, Draws(5, memory=0.0), pair.name).values
        assert many[:150] == pytest.approx(few, rel=1e-12)  # sums of other lengths may round otherwise
        assert len(many) == 1234
    assert compare(b).p_value == compare(b).p_value
    assert compare(replace(b, name="c"), permutations=200).noise != compare(b, permutations=200).noise
    assert compare(a, options=Options(seed=1)).noise != first.noise


def test_p_values_follow_their_definition():
    rng = np.random.default_rng(9)
    x, y = rng.normal(size=120), rng.normal(0.35, 1, 100)
    pair = ordered(x, y)
    result = compare(pair, permutations=500)
    norms = norms_of(count_column(pair, rows(pair), Options()))
    null = null_sample(norms, 500, Draws(0), pair.name).values
    T = norms.values(norms.observed()[None])[0]
    for p, delta in ((result.p_any, 0.0), (result.p_value, norms.deltas(None))):
        z = (T - delta - null.mean(0)) / null.std(0)
        count = (((null - null.mean(0)) / null.std(0)).max(1) >= z.max() - 1e-9).sum()
        M = ((null - null.mean(0)) / null.std(0)).max(1)
        r = math.sqrt(1 / 120 + 1 / 100)
        sd = np.concatenate([x, y]).std()
        sigma = (np.array([r * sd, r * math.sqrt(0.5), r / 2]) / null.std(0)).max()
        bound = 1 - ndtr(1.6448536 + (z.max() - np.quantile(M, 0.95)) / sigma) if z.max() > np.quantile(M, 0.95) else 1.0
        assert p == pytest.approx(min((1 + count) / 501, bound), rel=1e-5)
    assert result.driver == norms.names[int(np.argmax((T - norms.deltas(None) - null.mean(0)) / null.std(0)))]
    assert min(m.p_value for m in result.members) == result.p_value
    assert result.p_value_low <= result.p_value <= result.p_value_high


def test_the_tail_is_that_of_a_half_space():
    # A one-dimensional norm |Z|: M = (|Z| - mean)/sd is a Lipschitz function with constant 1/sd. The bound must hold.
    mean, sd = math.sqrt(2 / math.pi), math.sqrt(1 - 2 / math.pi)
    t0 = (1.959963985 - mean) / sd
    for x in (2.5, 3.0, 4.0, 5.0):
        exact = 2 * ndtr(-x)
        bound = isoperimetric_tail((x - mean) / sd - t0, 1 / sd)
        assert exact <= bound <= 6 * exact


def test_the_tail_reaches_what_the_draws_cannot():
    rng = np.random.default_rng(10)
    x = rng.normal(size=1000)
    strong = compare(ordered(x, rng.normal(0.4, 1, 1000)))
    assert strong.p_value < 1e-6
    assert strong.p_value_high == strong.p_value
    # Clusters, few units and row weights have no such bound: there the draws are all there is.
    units = Units(100, 100, np.arange(1000) // 10, np.arange(1000) // 10, kind="clusters")
    assert compare(ordered(x, rng.normal(2, 1, 1000)), units).p_value == 0.001
    assert compare(ordered(x[:40], rng.normal(3, 1, 40))).p_value == 0.001


def test_minimum_effects_raise_the_p_value_and_zero_gives_the_plain_test():
    rng = np.random.default_rng(11)
    pair = ordered(rng.normal(size=20_000), rng.normal(0.025, 1, 20_000))
    result = compare(pair)
    assert result.p_any < 0.05 < result.p_value
    assert compare(pair, options=Options(delta=0.0)).p_value == result.p_any
    assert compare(pair, options=Options(deltas={"amount": 0.0})).p_value == result.p_any
    assert compare(pair, options=Options(delta=0.02)).p_value == pytest.approx(result.p_value)
    assert [m.delta for m in compare(pair, options=Options(delta=0.04)).members][1:] == [0.03, 0.02]


def test_early_stopping_touches_only_what_is_clearly_null():
    rng = np.random.default_rng(12)
    same = ordered(rng.normal(size=400), rng.normal(size=400))
    moved = ordered(rng.normal(size=400), rng.normal(0.5, 1, 400))
    full = compare(same, permutations=4000)
    held = []
    for seed in range(20):
        stopped = compare(same, early_stop=True, options=Options(seed=seed))
        assert stopped.p_any <= stopped.p_value
        assert stopped.p_value >= 0.1
        held.append(stopped.p_value_low <= full.p_value <= stopped.p_value_high)
    assert sum(held) >= 19  # 99.9 % each
    assert compare(moved, early_stop=True) == compare(moved)


def test_early_stopping_is_besag_and_cliffords():
    pair = ordered([0.0, 1.0, 2.0] * 20, [0.0, 1.0, 2.0] * 20)
    norms = norms_of(count_column(pair, rows(pair), Options()))
    values = np.zeros((100, 3))
    values[:, :] = np.tile([0.0, 1.0, 2.0, 3.0], 25)[:, None]
    # Standardised draws reach the observed 2.9 at every fourth draw: the twentieth at draw 80.
    out = combine(norms, np.full(3, 2.9), np.zeros(3), NullSample(values), tail=False, early=True)
    assert out.p_value == out.p_any == 20 / 80


def test_ties_count_as_exceedances():
    # 0/1 columns: every split that changes as much as the data must count, however sums of floats round.
    x, y = [0.0] * 7 + [1.0] * 2, [0.0] * 4 + [1.0] * 5
    result = compare(ordered(x, y), options=Options(delta=0.0), permutations=100_000)
    count = sum(math.comb(7, k) * math.comb(11, 9 - k) for k in range(8) if abs(k - (7 - k)) >= 3)
    assert result.p_value == pytest.approx(count / math.comb(18, 9), rel=1e-12)
