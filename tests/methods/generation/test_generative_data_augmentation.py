"""Augmentation by a generator: laws of the samplers, leakage, the order-form bound, the closed forms of the Gaussian design."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier

from discrepancy import MMD, Bregman, EnergyDistance, JensenShannon, NumericalError, TotalVariation
from discrepancy.estimation import ClassifierBound
from discrepancy.methods.generation.class_generators import ClassGaussians, ClassKernelDensities, ClassMixtures, FewRowsWarning
from discrepancy.methods.generation.gaussian_mixture_design import GaussianMixtureDesign
from discrepancy.methods.generation.generative_data_augmentation import (
    AugmentationCurve,
    CurvePoint,
    GenerativeAugmenter,
    augmentation_curve,
    gda_bound,
)
from discrepancy.methods.generation.generator_gap import generator_gap, stability_probe
from discrepancy.methods.generation.labelled_rows import MemorisedRowsWarning


def _seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def _rows(n=60, d=3, seed=0):
    rng = np.random.default_rng(seed)
    y = np.repeat([2, 7], [n // 3, n - n // 3])
    return rng.normal(size=(n, d)) * [1.0, 2.0, 0.5][:d] + (y == 7)[:, None] * 3.0, y


@pytest.mark.parametrize("pooled", [True, False])
def test_gaussians_sample_the_means_and_shrunken_covariances(pooled):
    X, y = _rows()
    fakes, labels = ClassGaussians(0.25, pooled).fit(X, y).sample(60_000, generator=_seeded())
    assert (labels == 2).sum() == 20_000  # the shares of the sample
    within = [X[y == k] - X[y == k].mean(0) for k in (2, 7)]
    for k, own in zip((2, 7), within, strict=True):
        S = sum(w.T @ w for w in within) / len(X) if pooled else own.T @ own / len(own)
        S = 0.75 * S + 0.25 * np.diag(np.diag(S))
        np.testing.assert_allclose(fakes[labels == k].mean(0), X[y == k].mean(0), atol=0.06)
        np.testing.assert_allclose(np.cov(fakes[labels == k].T), S, atol=0.02 * np.diag(S).max())


def test_kernel_densities_and_mixtures_have_the_moments_of_their_mixture():
    X, y = _rows()
    fakes, labels = ClassKernelDensities(0.5).fit(X, y).sample(60_000, generator=_seeded())
    own = X[y == 7]
    np.testing.assert_allclose(fakes[labels == 7].mean(0), own.mean(0), atol=0.05)
    np.testing.assert_allclose(fakes[labels == 7].var(0), own.var(0) * 1.25, rtol=0.04)
    fakes, labels = ClassMixtures(1, regularisation=1e-6).fit(X, y).sample(60_000, generator=_seeded())
    np.testing.assert_allclose(fakes[labels == 7].var(0), own.var(0), rtol=0.04)
    two = np.concatenate([own, own + 50.0])
    fitted = ClassMixtures(2).fit(np.concatenate([X[y == 2], two]), np.repeat([0, 1], [20, 80]))
    fakes, labels = fitted.sample(1000, generator=_seeded())
    far = fakes[labels == 1][:, 0] > 25
    assert far.sum() == pytest.approx(400, abs=60)
    assert fakes[labels == 1][~far].mean(0) == pytest.approx(own.mean(0), abs=0.5)


def test_a_generator_is_fitted_inside_the_folds():
    # A copying generator with one neighbour as classifier would be right on every row if it saw the held-out ones.
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(80, 4)), np.tile([0, 1], 40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MemorisedRowsWarning)
        curve = augmentation_curve(
            KNeighborsClassifier(1),
            GenerativeAugmenter(ClassKernelDensities(0.0)),
            X,
            y,
            ratios=(3,),
            repeats=2,
            generator=_seeded(),
        )
    assert [p.ratio for p in curve.points] == [0.0, 3.0]
    assert curve.points[1].score < 0.7
    assert curve.points[1].gain == 0.0  # copies do not move a nearest neighbour
    assert curve.points[0].train_test_gap == pytest.approx(1 - curve.points[0].score)


def test_curves_and_samples_repeat_bit_for_bit():
    X, y = _rows(40)
    runs = [
        augmentation_curve(
            DecisionTreeClassifier(), GenerativeAugmenter(), X, y, ratios=(2,), folds=3, repeats=2, generator=_seeded(3)
        )
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    a, b = (GenerativeAugmenter(ratio=2, random_state=1).fit_resample(X, y) for _ in range(2))
    np.testing.assert_array_equal(a[0], b[0])
    assert len(a[0]) == 120
    np.testing.assert_array_equal(a[0][:40], X)


def test_the_rule_of_one_standard_error():
    def curve(*gains):
        return AugmentationCurve(tuple(CurvePoint(r, 0.5, 0.1, g, e, 0.0) for r, g, e in gains), 10, 1)

    zero = (0.0, 0.0, 0.0)
    assert curve(zero, (1, 0.02, 0.03), (5, 0.01, 0.001)).recommend() == 0.0
    assert curve(zero, (1, 0.05, 0.02), (5, 0.06, 0.02)).recommend() == 1
    assert curve(zero, (1, 0.03, 0.02), (5, 0.06, 0.02)).recommend() == 5
    assert curve(zero, (1, -0.03, 0.02), (5, -0.06, 0.02)).recommend() == 0.0


def test_the_bound_by_hand():
    found = gda_bound(0.3, 100, 400, stability=0.01, loss_bound=2.0, sensitivity=0.5)
    assert found.divergence == pytest.approx(0.8 * 2 * 0.3)
    assert found.concentration == pytest.approx((2 * (10 + 20) + 100 * 20 * 0.01) / 500)
    assert found.dependence == pytest.approx((0.01 * (100 * math.log(100) + 400 * math.log(400)) + 100 * 2 * 0.5) / 500)
    assert found.value == pytest.approx(found.divergence + found.concentration + found.dependence)
    plain = gda_bound(1.0, 100, 0, stability=0.01)
    assert plain.value == pytest.approx(0.1 + 0.01 * math.log(100))
    for bad in ({"total_variation": 1.2}, {"real": 0}, {"stability": -1.0}, {"sensitivity": 2.0}, {"loss_bound": 0.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            gda_bound(**({"total_variation": 0.1, "real": 5, "fake": 5, "stability": 0.1} | bad))


def test_the_design_agrees_with_its_closed_forms():
    d, m, s = 4, 10, 0.6
    rows = GaussianMixtureDesign(d, m, s).run((0, 1), repeats=40_000, generator=_seeded())
    # theta - mu has variance s^2/m a coordinate without fakes; fakes, half of all, add a quarter of sigma_hat^2 / m_G.
    pooled = s**2 * (m - 2) / m
    for row, variance in zip(rows, (s**2 / m, s**2 / m + pooled / (4 * m)), strict=True):
        assert row.test_nll == pytest.approx(d * (s**2 + variance) / (2 * s**2), abs=5 * row.test_nll_error)
    one = GaussianMixtureDesign(1, 10).run((0, 20), repeats=500, generator=_seeded())
    # In one dimension the classifier is the sign of x as long as theta > 0: the error is that of the best one.
    assert one[0].test_error == pytest.approx(0.5 * math.erfc(1 / 0.6 / math.sqrt(2)), abs=1e-12)
    assert one[1].error_gap < one[0].error_gap
    for bad in ({"rows": 5}, {"rows": 0}, {"sigma": 0.0}, {"dimension": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            GaussianMixtureDesign(**bad)
    with pytest.raises(ValueError, match="negative"):
        GaussianMixtureDesign().run((-1,))


def test_gaps_of_the_true_law_and_of_a_shifted_one():
    X, y = _rows(400)
    true = ClassGaussians(0.0).fit(X, y)
    real, fake = (true.sample(400, generator=_seeded(k)) for k in (1, 2))
    fast = ClassifierBound(LogisticRegression(), folds=3)
    level = generator_gap(*real, *fake, method=fast, generator=_seeded())
    assert abs(level.excess) < 0.1
    assert level.gap.low == 0
    apart = generator_gap(*real, fake[0] + 3 * X.std(0), fake[1], method=fast, generator=_seeded())
    assert float(apart.gap) > 0.9
    assert apart.gap.high is None
    entropy = generator_gap(*real, fake[0] + 3 * X.std(0), fake[1], JensenShannon(), method=fast, generator=_seeded())
    assert 0.5 < float(entropy.gap) <= math.log(2)
    energy = generator_gap(*real, *fake, EnergyDistance(), generator=_seeded())
    assert float(energy.gap.low) == 0.0
    with pytest.raises(TypeError, match="Divergence or a Discrepancy"):
        generator_gap(*real, *fake, "tv")


def test_a_gap_sees_the_labels():
    # The rows have one law; only the labels are exchanged.
    X, y = _rows(300)
    found = generator_gap(X, y, X + 1e-9, np.where(y == 2, 7, 2), method=ClassifierBound(folds=3), generator=_seeded())
    assert float(found.gap) > 0.9


def test_the_stability_of_a_mean_and_of_a_memoriser():
    X, y = _rows(60)
    pool = _rows(60, seed=5)
    smooth = stability_probe(LogisticRegression(C=1e-3), X, y, *pool, replacements=5, generator=_seeded())
    noise = np.random.default_rng(1).permutation(y)
    rough = stability_probe(DecisionTreeClassifier(), X, noise, *pool, replacements=5, generator=_seeded())
    assert 0 < float(smooth) < 0.1 < float(rough) <= 1
    assert smooth.low is None


class _Odd:
    """A generator that returns what it is told to."""

    def __init__(self, rows, labels):
        self.rows, self.labels = rows, labels

    def fit(self, X, y):
        return self

    def sample(self, count, *, generator=None):
        return self.rows[:count], self.labels[:count]


def test_bad_input_one_by_one():
    X, y = _rows(30)
    with pytest.raises(ValueError, match="ratio"):
        GenerativeAugmenter(ratio=-1.0)
    with pytest.raises(TypeError, match="fit"):
        GenerativeAugmenter(generator="gaussian")
    with pytest.raises(ValueError, match="outside the classes"):
        GenerativeAugmenter(_Odd(X, np.full(30, 9)), ratio=1).augment(X, y)
    with pytest.raises(ValueError, match="shape"):
        GenerativeAugmenter(_Odd(X[:, :2], y), ratio=1).augment(X, y)
    with pytest.raises(NumericalError, match="sampling 30 rows"):
        GenerativeAugmenter(_Odd(X * np.nan, y), ratio=1).augment(X, y)
    with pytest.warns(MemorisedRowsWarning, match="100%"):
        assert GenerativeAugmenter(_Odd(X, y), ratio=1).augment(X, y).duplicate_share == 1.0
    with pytest.raises(TypeError, match="toarray"):
        GenerativeAugmenter().augment(csr_matrix(X), y)
    with pytest.raises(ValueError, match="regression target"):
        GenerativeAugmenter().augment(X, y + 0.5)
    with pytest.raises(ValueError, match="one class only"):
        GenerativeAugmenter().augment(X, np.zeros(30))
    with pytest.raises(ValueError, match="fewer than the 5 folds"):
        augmentation_curve(LogisticRegression(), GenerativeAugmenter(), X[8:], y[8:], folds=5)
    with pytest.raises(ValueError, match="shrinkage"):
        ClassGaussians(1.5)
    with pytest.raises(ValueError, match="bandwidth"):
        ClassKernelDensities(-0.1)
    with pytest.raises(ValueError, match="components"):
        ClassMixtures(0)


@pytest.mark.parametrize("kind", [ClassGaussians(0.5, pooled=False), ClassKernelDensities(), ClassMixtures()], ids=repr)
def test_a_class_of_one_row_borrows_a_scale(kind):
    X, y = _rows(30)
    X, y = np.concatenate([X, [[9.0, 9.0, 9.0]]]), np.append(y, 8)
    with pytest.warns(FewRowsWarning, match="has one row"):
        fitted = kind.fit(X, y)
    fakes, labels = fitted.sample(31 * 200, generator=_seeded())
    own = fakes[labels == 8]
    assert own.std(0).min() > 0.1
    assert own.mean(0) == pytest.approx([9, 9, 9], abs=0.8)


def test_clipping_keeps_the_range_of_the_sample():
    X, y = _rows(30)
    found = GenerativeAugmenter(ratio=20, clip=True).augment(X, y, generator=_seeded())
    assert (found.X.max(0) == X.max(0)).all()
    wide = GenerativeAugmenter(ratio=20).augment(X, y, generator=_seeded())
    assert (wide.X.max(0) > X.max(0)).any()


def test_classifier_bounds_lie_below_the_truth_and_refuse_other_kinds():
    x, y = torch.randn(2000, 1, generator=_seeded(1)) + 1, torch.randn(1000, 1, generator=_seeded(2))
    truth = math.erf(0.5 / math.sqrt(2))  # TV of N(1, 1) and N(0, 1)
    found = ClassifierBound(LogisticRegression())(TotalVariation(), x, y, generator=_seeded())
    assert float(found) == pytest.approx(truth, abs=4 * found.standard_error)
    assert found.low < truth
    p = 0.5 * (1 + truth)
    entropy = ClassifierBound(LogisticRegression())(JensenShannon(), x, y, generator=_seeded())
    binary = math.log(2) + p * math.log(p) + (1 - p) * math.log(1 - p)
    assert float(entropy) == pytest.approx(binary, abs=4 * entropy.standard_error)
    for other in (Bregman(), MMD()):
        with pytest.raises(TypeError, match="data processing"):
            ClassifierBound()(other, x, y)
    with pytest.raises(ValueError, match="folds"):
        ClassifierBound(folds=1)
    with pytest.raises(TypeError, match="classifier"):
        ClassifierBound(classifier=3)
    with pytest.raises(ValueError, match="at least 10"):
        ClassifierBound()(TotalVariation(), x[:5], y)
