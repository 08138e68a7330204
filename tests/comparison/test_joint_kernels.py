"""Kernels: random features against the kernel they stand for, the null against all splits, the interval against algebra."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from joint_tables import matrices

from discrepancy.comparison.joint.features import FREQUENCIES, Features, feature_sums, features
from discrepancy.comparison.joint.mmd import kernel_distance, norm_interval
from discrepancy.comparison.joint.null import Null
from discrepancy.comparison.joint.scores import represent
from discrepancy.comparison.joint.sides import sides
from discrepancy.comparison.model import Options, TablePair
from discrepancy.comparison.units import make_units


def prepared(table: TablePair, options: Options):
    weights = (table.weights_reference, table.weights_current)
    first, second, _ = sides(table, make_units(table, options), options, weights)
    r = represent(table.columns, (None, None), (table.rows_reference, table.rows_current), 0)
    return r, (first, second)


def test_features_stand_for_the_gaussian_kernel():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3)).astype(np.float32)
    many = 40
    draws = np.concatenate([np.random.default_rng(i).standard_normal((FREQUENCIES, 3)) for i in range(many)]).T / 1.3
    gram = np.mean([(lambda z: z @ z.T)(Features(draws[:, i * 128 : (i + 1) * 128], 1.0)(x)) for i in range(many)], axis=0)
    squared = ((x[:, None] - x[None]) ** 2).sum(-1)
    # 5,120 frequencies: a cosine of variance at most 1/2 leaves 0.01, so 5 standard errors
    assert gram == pytest.approx(np.exp(-squared / (2 * 1.3**2)), abs=0.05)
    assert np.diag(gram) == pytest.approx(np.ones(40), abs=1e-5)


def test_the_three_widths_are_fractions_of_the_median_distance():
    rng = np.random.default_rng(1)
    table = matrices(rng.normal(size=(300, 4)), rng.normal(size=(200, 4)))
    r, both = prepared(table, Options())
    phi = features(r, both, 0)
    assert phi is not None
    rows = np.r_[r.pooled(False, np.arange(300)), r.pooled(True, np.arange(200))]
    apart = np.sqrt(((rows[:, None] - rows[None]) ** 2).sum(-1))[np.triu_indices(500, 1)]
    assert phi.median == pytest.approx(float(np.median(apart)), rel=1e-5)
    for i, factor in enumerate((0.35, 0.7, 1.4)):
        spread = phi.frequencies[:, i * 128 : (i + 1) * 128].std() * phi.median * factor
        assert spread == pytest.approx(1.0, abs=0.15)  # 512 normal draws: standard error 0.03
    assert np.array_equal(phi.of_width(1)(rows), phi(rows)[:, 256:512])


def test_equal_rows_have_no_kernel_and_half_equal_rows_have_one():
    table = matrices(np.zeros((30, 2)), np.zeros((30, 2)))
    r, both = prepared(matrices(np.arange(60.0).reshape(30, 2), np.ones((30, 2))), Options())
    assert features(r, both, 0) is not None
    assert represent(table.columns, (None, None), (30, 30), 0).width == 0


def test_unit_sums_do_not_depend_on_the_chunks():
    rng = np.random.default_rng(2)
    ids = (rng.integers(0, 12, 90), rng.integers(0, 9, 70))
    table = matrices(
        rng.normal(size=(90, 3)),
        rng.normal(size=(70, 3)),
        cluster_reference=ids[0],
        cluster_current=ids[1],
        weights_reference=rng.random(90) + 0.1,
    )
    r, both = prepared(table, Options(cluster="k"))
    phi = features(r, both, 0)
    assert phi is not None
    direct = phi(r.pooled(False, np.arange(90))) * (table.weights_reference / table.weights_reference.mean())[:, None]
    want = np.array([direct[ids[0] == u].sum(0) for u in np.unique(ids[0])])
    for chunk in (7, 1000):
        got = both[0].sums(phi.width, lambda rows: phi(r.pooled(False, rows)), chunk)
        assert got == pytest.approx(want, abs=1e-4)
    assert both[0].sizes().sum() == pytest.approx(90)
    assert feature_sums(r, both, phi)[0] == pytest.approx(want, abs=1e-4)


def test_permutation_draws_are_the_splits_of_the_units():
    rng = np.random.default_rng(3)
    sizes, sums = np.array([1.0, 2, 1, 3, 1, 2]), rng.normal(size=(6, 2))
    every = []
    for chosen in itertools.combinations(range(6), 2):
        a = list(chosen)
        b = [i for i in range(6) if i not in a]
        every.append(sums[a].sum(0) / sizes[a].sum() - sums[b].sum(0) / sizes[b].sum())
    every = np.array(every)
    draws = np.concatenate(list(Null(sizes, 2, "permutation", 600, 4).differences(sums)))
    nearest = np.abs(draws[:, None] - every[None]).max(-1)
    assert nearest.min(1).max() < 1e-12
    counts = np.bincount(nearest.argmin(1), minlength=15)
    assert counts.min() > 15  # 40 expected of each: all splits are met, none far too often
    assert counts.max() < 80


def test_multiplier_draws_have_the_spread_of_weighted_means_and_no_shift():
    rng = np.random.default_rng(5)
    w = rng.gamma(2.0, 1.0, 400)
    x = rng.normal(2.0, 1.0, 400)
    y = rng.normal(-1.0, 2.0, 300)
    sizes, sums = np.r_[w, np.ones(300)], np.r_[w * x, y][:, None]
    draws = np.concatenate(list(Null(sizes, 400, "multiplier", 4000, 1).differences(sums)))[:, 0]
    mean = w @ x / w.sum()
    want = math.sqrt((w**2 @ (x - mean) ** 2) / w.sum() ** 2 + y.var() / 300)  # delta method, independent tables
    assert draws.std() == pytest.approx(want, rel=0.06)
    assert abs(draws.mean()) < 0.2 * want


def test_more_draws_extend_fewer():
    sums = np.random.default_rng(0).normal(size=(40, 3))
    few, many = (np.concatenate(list(Null(np.ones(40), 15, "permutation", r, 9).differences(sums))) for r in (300, 700))
    assert many[:300] == pytest.approx(few, abs=1e-12)  # up to the rounding of products of another shape


def direct_mmd(phi: Features, x: np.ndarray, y: np.ndarray, width: int) -> float:
    block = slice(256 * width, 256 * (width + 1))
    return float(np.linalg.norm(phi(x)[:, block].mean(0) - phi(y)[:, block].mean(0)))


def test_distance_is_the_norm_of_the_difference_of_feature_means():
    rng = np.random.default_rng(6)
    table = matrices(rng.normal(size=(120, 3)), rng.normal(size=(80, 3)) + np.array([0.8, 0, 0]))
    r, both = prepared(table, Options())
    phi = features(r, both, 0)
    assert phi is not None
    sums = feature_sums(r, both, phi)
    null = Null(np.ones(200), 120, "permutation", 199, 0)
    got = kernel_distance(sums, null, 0)
    x, y = r.pooled(False, np.arange(120)), r.pooled(True, np.arange(80))
    assert got.values == pytest.approx([direct_mmd(phi, x, y, i) for i in range(3)], abs=1e-5)
    # the spread is that of the widest direction under permutation, here of 199 draws
    assert got.along.std(0) == pytest.approx(got.spread, rel=0.25)
    assert np.all(got.moved(0.0) == pytest.approx(got.draws))
    square = got.moved(0.1) ** 2 - got.draws**2
    assert square == pytest.approx(0.2 * got.along + 0.01, abs=1e-9)


def gaussian_gap(w: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """E phi(x) - E phi(x + shift) for standard normal x, in closed form: features cos w'x and sin w'x."""
    fall = np.exp(-0.5 * (w**2).sum(0))
    phase = shift @ w
    return np.r_[fall - fall * np.cos(phase), -fall * np.sin(phase)] / math.sqrt(w.shape[1])


def test_interval_covers_the_closed_form_distance_of_two_normals():
    """95 % nominal; 60 data sets leave a standard error of 3 points, so 86 % is the floor of a sound interval."""
    d, n = 5, 300
    w = np.random.default_rng(1).standard_normal((d, 128)) / 2.2
    phi = Features(w.astype(np.float32), 1.0)
    for size in (0.0, 0.3):
        shift = np.r_[size, np.zeros(d - 1)]
        truth = float(np.linalg.norm(gaussian_gap(w, shift)))
        hit = 0
        for trial in range(60):
            rng = np.random.default_rng([trial, int(10 * size)])
            a, b = phi(rng.normal(size=(n, d)).astype(np.float32)), phi((rng.normal(size=(n, d)) + shift).astype(np.float32))
            gap = (a.mean(0) - b.mean(0)).astype(float)
            noise = np.concatenate([(a - a.mean(0)) / n, (b - b.mean(0)) / n]).astype(float)
            plain = 0.001 if size else 0.5
            low, high = norm_interval(gap, noise, plain, trial)
            assert 0 <= low <= float(np.linalg.norm(gap)) + 1e-12 < high
            hit += low <= truth <= high
        assert hit >= 52


def test_interval_is_one_sided_where_the_plain_test_sees_nothing():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(50, 4)) / 50
    low, high = norm_interval(np.array([0.5, 0, 0, 0]), noise, 0.06, 0)
    assert low == 0
    assert high == pytest.approx(0.5 + 1.959964 * np.linalg.norm(noise[:, 0]))
    assert norm_interval(np.array([0.5, 0, 0, 0]), noise, 0.01, 0)[0] > 0
    assert norm_interval(np.zeros(4), noise, 1.0, 0)[0] == 0
