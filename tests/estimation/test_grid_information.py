"""Kernel-density and histogram information: laws of known information, counting by hand, invariances, degenerate columns."""

import math

import numpy as np
import pytest
import torch

from discrepancy import HSIC, KL, DistanceCovariance, JensenShannon, NumericalError, mutual_information
from discrepancy.estimation.association import EachColumn, LinearInformation, linfoot
from discrepancy.estimation.histogram_information import HistogramInformation, birge_rozenholc
from discrepancy.estimation.kernel_density_information import KernelDensityInformation
from discrepancy.estimation.margins import NormalScores, Standardised

KDE, HIST = KernelDensityInformation, HistogramInformation


def normal_pair(r, n=5000, seed=0):
    g = torch.Generator().manual_seed(seed)
    x, e = torch.randn(n, 2, generator=g, dtype=torch.float64).T
    return x, r * x + math.sqrt(1 - r * r) * e


@pytest.mark.parametrize("method", [KDE(), KDE(margins=Standardised()), HIST(), HIST(margins=NormalScores())], ids=repr)
@pytest.mark.parametrize("r", [0.0, 0.3, -0.6])
def test_normal_laws(method, r):
    found = mutual_information(*normal_pair(r), method)
    assert float(found) == pytest.approx(-0.5 * math.log(1 - r * r), abs=0.03)
    assert found.low is None
    assert found.standard_error is None
    assert "no interval" in found.note


def test_smoothing_lowers_strong_dependence_by_the_amount_that_is_documented():
    truth = -0.5 * math.log(1 - 0.81)
    h2 = (0.8 * 5000 ** (-1 / 6)) ** 2
    seen = -0.5 * math.log(1 - (0.9 / (1 + h2)) ** 2)
    value = float(mutual_information(*normal_pair(0.9), KDE()))
    assert value == pytest.approx(seen, abs=0.03)
    assert truth - 0.2 < value < truth - 0.08


def test_a_kernel_density_by_direct_integration():
    x, y = normal_pair(0.5, n=80, seed=3)
    z = [(v - v.mean()) / v.std(correction=0) for v in (x, y)]
    h = 0.8 * 80 ** (-1 / 6)
    grid = torch.linspace(-6, 6, 400, dtype=torch.float64)
    kx, ky = (torch.exp(-0.5 * ((grid[:, None] - v) / h) ** 2) for v in z)
    p = kx @ ky.T
    p = p / p.sum()
    want = torch.xlogy(p, p).sum() - torch.xlogy(p.sum(0), p.sum(0)).sum() - torch.xlogy(p.sum(1), p.sum(1)).sum()
    got = mutual_information(x, y, KDE(margins=Standardised()))
    assert float(got) == pytest.approx(float(want), abs=1e-3)


@pytest.mark.parametrize("method", [KDE(), HIST(margins=NormalScores())], ids=repr)
def test_invariance_to_order_exchange_units_and_monotone_maps(method):
    x, y = normal_pair(0.5, n=400, seed=1)
    want = float(mutual_information(x, y, method))
    shuffle = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    for a, b in ((x[shuffle], y[shuffle]), (y, x), (1e6 * x - 3, y), (torch.exp(x), y**3), (torch.exp(5 * x), y)):
        assert float(mutual_information(a, b, method)) == pytest.approx(want, abs=1e-6)


def test_heavy_tails_are_seen_through_normal_scores():
    x, y = normal_pair(0.6, n=4000, seed=2)
    cauchy = [torch.tan(math.pi * (torch.special.ndtr(v) - 0.5)) for v in (x, y)]
    for method in (KDE(), HIST(margins=NormalScores())):
        assert float(mutual_information(*cauchy, method)) == pytest.approx(0.223, abs=0.04)


def test_classes_share_at_most_their_entropy():
    g = torch.Generator().manual_seed(4)
    y = torch.randint(0, 3, (2000,), generator=g).double()
    x = 20 * y + torch.randn(2000, generator=g, dtype=torch.float64)
    entropy = -sum(float(v) * math.log(float(v)) for v in y.long().bincount() / 2000)
    for method in (KDE(labels=True, margins=Standardised()), HIST(labels=True)):
        assert float(mutual_information(x, y, method)) == pytest.approx(entropy, abs=0.02)
    # Ranks close the gaps between the classes: what the docstring says they cost.
    assert entropy - 0.15 < float(mutual_information(x, y, KDE(labels=True))) < entropy
    for method in (KDE(labels=True), HIST(labels=True)):
        assert float(mutual_information(torch.randn(2000, generator=g), y, method)) < 0.02
    # Labels are names: renaming them changes nothing.
    renamed = torch.tensor([7.0, -1.0, 3.0], dtype=torch.float64)[y.long()]
    x = y + torch.randn(2000, generator=g, dtype=torch.float64)
    for method in (KDE(labels=True), HIST(labels=True)):
        assert float(mutual_information(x, renamed, method)) == pytest.approx(float(mutual_information(x, y, method)), rel=1e-12)


def test_plug_in_and_corrected_histograms_of_integers_by_counting():
    g = np.random.default_rng(0)
    x, y = g.integers(0, 3, 500), g.integers(0, 4, 500)
    y = np.where(g.random(500) < 0.4, x, y)
    table = np.zeros((3, 4))
    np.add.at(table, (x, y), 1)
    p = table / 500
    plain = sum(v * math.log(v / (p.sum(1)[i] * p.sum(0)[j])) for (i, j), v in np.ndenumerate(p) if v)
    assert float(mutual_information(x, y, HIST(corrected=False))) == pytest.approx(plain, abs=1e-12)
    corrected = plain - ((table > 0).sum() - 3 - 4 + 1) / 1000
    assert float(mutual_information(x, y, HIST())) == pytest.approx(corrected, abs=1e-12)


def test_the_number_of_bins_maximises_the_published_criterion():
    g = torch.Generator().manual_seed(5)
    for column in (torch.randn(300, generator=g), torch.rand(300, generator=g), torch.rand(300, generator=g).round(decimals=1)):
        column = column.double()
        best, value = None, -math.inf
        for d in range(2, 61):
            counts = np.histogram(column.numpy(), bins=d)[0]
            score = sum(c * math.log(c) for c in counts if c) + 300 * math.log(d) - (d - 1 + math.log(d) ** 2.5)
            if score > value + 1e-9:
                best, value = d, score
        assert int(birge_rozenholc(column[:, None], 60)) == best
    assert int(birge_rozenholc(torch.rand(5000, 1, generator=g, dtype=torch.float64))) == 2  # flat: one step is enough


def test_the_linear_score_is_the_gaussian_information_and_counts_classes():
    x, y = normal_pair(0.5, n=300, seed=6)
    r = float(torch.corrcoef(torch.stack([x, y]))[0, 1])
    measure = LinearInformation()
    assert float(measure.scores(x[:, None], y[None])) == pytest.approx(-0.5 * math.log(1 - r * r))
    label = (y > 0).double()
    r = float(torch.corrcoef(torch.stack([x, label]))[0, 1])
    assert float(measure.scores(x[:, None], label[None], 2)) == pytest.approx(-0.5 * math.log(1 - r * r))
    assert float(linfoot(torch.tensor(-0.5 * math.log(1 - 0.49)))) == pytest.approx(0.7)
    assert float(measure.scores(x[:, None], x[None])) > 15


def test_other_divergences_of_the_same_table():
    x, y = normal_pair(0.6, n=500)
    values = {d: float(mutual_information(x, y, KDE(divergence=d))) for d in (KL(), 2 * JensenShannon(), 1 * KL())}
    assert values[KL()] == pytest.approx(values[1 * KL()], rel=1e-9)  # the short way and the divergence's own
    assert 0 < values[2 * JensenShannon()] < values[KL()]
    with pytest.raises(TypeError, match="divergence must be"):
        KDE(divergence="kl")


def test_several_outcomes_are_those_one_by_one():
    g = torch.Generator().manual_seed(7)
    X, y = torch.randn(120, 5, generator=g, dtype=torch.float64), torch.randn(120, generator=g, dtype=torch.float64)
    rows = torch.stack([y, y.flip(0), y.roll(3)])
    labels = (rows > 0).double()
    for measure in (KDE(), HIST(), LinearInformation(), EachColumn(DistanceCovariance())):
        together = measure.scores(X, rows)
        torch.testing.assert_close(together, torch.cat([measure.scores(X, row[None]) for row in rows]))
        classes = measure.scores(X, labels, 2)
        torch.testing.assert_close(classes, torch.cat([measure.scores(X, row[None], 2) for row in labels]))


def test_any_measure_of_a_pair_screens():
    X, y = torch.randn(60, 3, generator=torch.Generator().manual_seed(8), dtype=torch.float64), None
    y = X[:, 1].square()
    for measure in (HSIC(), KDE(), lambda a, b: float((a.square() * b).mean())):
        scores = EachColumn(measure).scores(X, y[None])[0]
        assert int(scores.argmax()) == 1
    assert float(EachColumn(HSIC()).scores(X, y[None])[0, 0]) == pytest.approx(float(HSIC()(X[:, :1], y[:, None])))
    with pytest.raises(TypeError, match="measure must be"):
        EachColumn("hsic")
    with pytest.raises(NumericalError, match="NaN for column 0"):
        EachColumn(lambda a, b: math.nan).scores(X, y[None])


def test_degenerate_and_bad_input():
    x, y = normal_pair(0.5, n=100)
    for method in (KDE(), HIST()):
        constant = mutual_information(torch.ones(100), y, method)
        assert float(constant) == 0
        assert "constant" in constant.note
        with pytest.raises(ValueError, match="2 columns"):
            mutual_information(torch.stack([x, y], 1), y, method)
        assert float(mutual_information(torch.stack([x, x]).reshape(-1), torch.stack([y, y]).reshape(-1), method)) > 0
    assert math.isfinite(float(mutual_information(x, x, KDE())))
    outlier = normal_pair(0.5, n=5000)[0].clone()
    outlier[0] = 1e9
    with pytest.raises(ValueError, match="NormalScores"):
        mutual_information(outlier, outlier.flip(0), KDE(multiplier=0.2, margins=Standardised()))
    for bad in (0, -1, math.nan):
        with pytest.raises(ValueError, match="multiplier"):
            KDE(multiplier=bad)
    with pytest.raises(ValueError, match="most"):
        HIST(most=1)
    with pytest.raises(TypeError, match="margins"):
        HIST(margins="normal")
    with pytest.raises(TypeError, match="margins"):
        KDE(margins=None)
