"""Nearest-neighbour divergences against closed forms; duplicates, subspaces, refusals."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch.distributions import MultivariateNormal, Normal

from discrepancy import (
    KL,
    Alpha,
    ChiSquared,
    Jeffreys,
    JensenShannon,
    NeymanChiSquared,
    ReverseKL,
    SquaredHellinger,
    TotalVariation,
    estimate,
)
from discrepancy.estimation import GaussianReference, NearestNeighbors
from discrepancy.estimation.reference import FittedGaussian, ball_nodes


def gaussians(n, d, shift, scale, seed, m=None):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=g, dtype=torch.float64)
    return x, shift + scale * torch.randn(m or n, d, generator=g, dtype=torch.float64)


def truth(D, d, shift, scale):
    P = MultivariateNormal(torch.zeros(d, dtype=torch.float64), torch.eye(d, dtype=torch.float64))
    Q = MultivariateNormal(torch.full((d,), shift, dtype=torch.float64), scale**2 * torch.eye(d, dtype=torch.float64))
    return D.between(P, Q).value.item()


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize(
    "D", [KL(), ReverseKL(), Jeffreys(), SquaredHellinger(), ChiSquared(), Alpha(0.3), KL() * 2 + Alpha(0.7)], ids=repr
)
def test_gaussians_within_the_stated_error(D, d):
    # Unequal sizes, so that a forgotten n/m is seen; unequal scales, so that exchanged arguments are.
    x, y = gaussians(4000, d, 0.5, 1.25, seed=d, m=2500)
    got = estimate(x, y, D)
    assert abs(got.value - truth(D, d, 0.5, 1.25)) < 3.5 * got.standard_error
    assert got.low < got.value < got.high
    assert got.standard_error < 0.2 * truth(D, d, 0.5, 1.25) + 0.01


def test_orientation():
    # P = N(0, I), Q = N(0.5, 4 I): KL(P || Q) and KL(Q || P) differ by some 20 standard errors.
    x, y = gaussians(3000, 2, 0.5, 2.0, seed=1)
    forward, backward = truth(KL(), 2, 0.5, 2.0), truth(ReverseKL(), 2, 0.5, 2.0)
    got = estimate(x, y, KL())
    assert abs(got.value - forward) < 4 * got.standard_error
    assert abs(backward - forward) > 20 * got.standard_error


def test_the_reference_removes_the_smoothing_bias():
    values = {None: [], GaussianReference(): []}
    for seed in range(20):
        x, y = gaussians(500, 3, 0.5, 1.0, seed)
        for reference in values:
            values[reference].append(NearestNeighbors(reference=reference)(KL(), x, y).value - truth(KL(), 3, 0.5, 1.0))
    plain, corrected = (np.mean(v) for v in values.values())
    assert plain < -0.05
    assert abs(corrected) < 3 * np.std(values[GaussianReference()]) / math.sqrt(20)


def test_interval_covers_and_error_is_the_spread():
    D, t = KL(), truth(KL(), 2, 0.5, 1.0)
    got = [estimate(*gaussians(500, 2, 0.5, 1.0, seed), D) for seed in range(60)]
    errors = np.array([e.value - t for e in got])
    stated = np.sqrt(np.mean([e.standard_error**2 for e in got]))
    assert 0.75 < errors.std() / stated < 1.3
    assert sum(e.low <= t <= e.high for e in got) >= 51  # 60 draws at 95 %: fewer with probability 0.002


def test_same_law_is_near_zero():
    errors = [estimate(*gaussians(600, 2, 0.0, 1.0, seed), KL()) for seed in range(25)]
    assert abs(np.mean([e.value for e in errors])) < 0.015
    assert sum(e.low <= 0 <= e.high for e in errors) >= 21


@pytest.mark.parametrize(
    ("name", "x", "y", "want"),
    [
        ("bounded support", lambda r, n: r.beta(2, 2, (n, 2)), lambda r, n: r.random((n, 2)), 2 * (math.log(6) - 5 / 3)),
        ("skewed", lambda r, n: r.exponential(1, n), lambda r, n: r.exponential(2, n), math.log(2) - 0.5),
        ("log-normal", lambda r, n: np.exp(r.normal(size=(n, 2))), lambda r, n: np.exp(0.5 + r.normal(size=(n, 2))), 0.25),
    ],
)
def test_laws_far_from_gaussian(name, x, y, want):
    r = np.random.default_rng(7)
    got = [estimate(x(r, 2000), y(r, 2000), KL()).value for _ in range(6)]
    assert np.mean(got) == pytest.approx(want, abs=0.035)


def test_two_modes():
    def density(z, w):
        return w * math.exp(-((z - 2) ** 2) / 2) / math.sqrt(2 * math.pi) + (1 - w) * math.exp(-((z + 2) ** 2) / 2) / math.sqrt(
            2 * math.pi
        )

    want, _ = quad(lambda z: density(z, 0.5) * math.log(density(z, 0.5) / density(z, 0.2)), -12, 12)
    r = np.random.default_rng(1)

    def draw(w):
        return np.where(r.random(3000) < w, 2, -2)[:, None] * [1, 0] + r.normal(size=(3000, 2))

    got = estimate(draw(0.5), draw(0.2), KL())
    assert got.value == pytest.approx(want, abs=0.06)
    # Not close to Gaussian: the classical estimator at several k, extrapolated.
    assert "not close to Gaussian" in got.method
    assert got.low < want < got.high


def test_far_from_gaussian_the_interval_allows_for_the_smoothing_bias():
    # At these sizes the interval of the reference alone held the truth in half of the draws (Laplace, d = 2).
    r = np.random.default_rng(3)
    want, held = 2 * (math.log(1.5) + 1 / 1.5 - 1), 0
    for _ in range(5):
        got = estimate(r.laplace(size=(400, 2)), 1.5 * r.laplace(size=(400, 2)), KL())
        held += got.low < want < got.high
    assert held >= 4
    x, y = r.exponential(size=(400, 2)), 1.5 * r.exponential(size=(400, 2))
    bare = estimate(x, y, KL(), method=NearestNeighbors(extrapolation=None))
    assert bare.low is None
    assert "not close to Gaussian" in bare.note
    deep = estimate(r.exponential(size=(400, 5)), 1.5 * r.exponential(size=(400, 5)), KL())
    assert deep.low is None
    steep = estimate(x, y, Alpha(3.0))
    assert steep.low is None


def test_invariance_under_a_common_affine_map():
    x, y = gaussians(400, 3, 0.4, 1.2, 0)
    A = torch.tensor([[1e3, 0.0, 0.0], [5.0, 1e-3, 0.0], [0.0, 1.0, 2.0]], dtype=torch.float64)
    # Up to the quadrature of the reference, whose nodes do not turn with the axes; exactly so without one.
    assert estimate(x @ A.T + 7, y @ A.T + 7, KL()).value == pytest.approx(estimate(x, y, KL()).value, abs=1e-3)
    plain = NearestNeighbors(reference=None)
    assert plain(KL(), x @ A.T + 7, y @ A.T + 7).value == pytest.approx(plain(KL(), x, y).value, rel=1e-6)


def test_reversal_is_the_exchange_of_samples():
    x, y = gaussians(400, 2, 0.4, 1.2, 0, m=300)
    for D in (KL(), Alpha(0.8), ChiSquared()):
        one, other = estimate(x, y, D), estimate(y, x, D.reversed())
        assert one.value == pytest.approx(other.value, rel=1e-9)
        assert one.standard_error == pytest.approx(other.standard_error, rel=1e-9)


def test_the_fitted_reference():
    x = gaussians(300, 2, 0, 1, 0)[0] @ torch.tensor([[1.0, 0.4], [0.0, 0.7]], dtype=torch.float64)
    fit = FittedGaussian.fit(x)
    law = MultivariateNormal(fit.mean, fit.covariance)
    assert fit.mean_log_density() == pytest.approx(law.log_prob(x).mean().item(), rel=1e-12)
    # The mean of g over a ball, by brute force.
    nodes = ball_nodes(2, x)
    g = torch.Generator().manual_seed(0)
    ball = torch.randn(200000, 2, generator=g, dtype=torch.float64)
    ball = ball / ball.norm(dim=1, keepdim=True) * torch.rand(200000, 1, generator=g, dtype=torch.float64).sqrt()
    for i, radius in ((0, 0.3), (5, 0.8)):
        want = (law.log_prob(x[i] + radius * ball) - law.log_prob(x[i])).exp().mean().log().item()
        got = fit.log_volume_ratio(x[i : i + 1], torch.tensor([radius], dtype=torch.float64), nodes).item()
        assert got == pytest.approx(want, abs=4e-3)
    # Influence: what moving weight towards one sample point does to the mean correction.
    radius, slope = torch.full((300,), 0.5, dtype=torch.float64), torch.linspace(0.5, 1.5, 300, dtype=torch.float64)
    influence = fit.influence(x, radius, nodes, slope)
    assert influence.mean().item() == pytest.approx(0, abs=1e-14)
    h, j = 1e-5, 17
    mean = (1 - h) * fit.mean + h * x[j]
    covariance = fit.covariance + h * (torch.outer(x[j] - fit.mean, x[j] - fit.mean) - fit.covariance * 299 / 300)
    moved = FittedGaussian(x, mean, covariance, torch.linalg.inv(covariance))
    change = (slope * (moved.log_volume_ratio(x, radius, nodes) - fit.log_volume_ratio(x, radius, nodes))).mean().item()
    assert influence[j].item() == pytest.approx(change / h, rel=1e-3)


def test_duplicates_have_a_stated_outcome():
    x, y = gaussians(300, 2, 0.3, 1.0, 0)
    pairs = torch.cat([x, x[:100]])
    assert "200 of 400 points of x are duplicates" in estimate(pairs, y, KL()).note
    with pytest.raises(ValueError, match=r"points of x coincide with 10 others or more: .*from_probs"):
        estimate(torch.cat([x, x[:1].repeat(20, 1)]), y, KL())
    with pytest.raises(ValueError, match="coincide"):
        estimate(torch.randint(0, 4, (300, 1)), y[:, :1], KL())


def test_subspaces():
    x, y = gaussians(300, 2, 0.3, 1.0, 0)
    lift = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]], dtype=torch.float64)
    got = estimate(x @ lift, y @ lift, KL())
    assert got.value == pytest.approx(estimate(x, y, KL()).value, abs=1e-3)
    assert "span 2 of 3 dimensions" in got.note
    constant = torch.cat([x, torch.ones(300, 1)], 1), torch.cat([y, torch.ones(300, 1)], 1)
    assert estimate(*constant, KL()).value == pytest.approx(estimate(x, y, KL()).value, abs=1e-3)
    with pytest.raises(ValueError, match="x lies in a subspace"):
        estimate(torch.cat([x, torch.zeros(300, 1)], 1), torch.cat([y, y[:, :1] ** 2], 1), KL())
    with pytest.raises(ValueError, match="distinct subspaces"):
        estimate(torch.cat([x, torch.zeros(300, 1)], 1), torch.cat([y, torch.ones(300, 1)], 1), KL())


def test_no_interval_where_none_is_valid():
    x, y = gaussians(60, 2, 0.0, 1.0, 0, m=30)
    got = estimate(x, y, KL())
    assert (got.standard_error, got.low, got.level) == (None, None, None)
    assert "fewer than 4 k = 40" in got.note
    apart = estimate(*gaussians(500, 2, 6.0, 1.0, 0), KL())
    assert apart.low is None
    assert "hardly overlap" in apart.note
    steep = NearestNeighbors(k=3)(Alpha(3.0), *gaussians(500, 2, 0.2, 1.0, 0))
    assert "raise k" in steep.note


def test_refusals_name_the_remedy():
    x, y = gaussians(50, 2, 0.0, 1.0, 0)
    for D in (JensenShannon(), TotalVariation(), KL().skewed(0.1)):
        with pytest.raises(TypeError, match="admissible are KL, ReverseKL"):
            estimate(x, y, D)
    with pytest.raises(TypeError, match=r"pass KL\(\)"):
        estimate(x, y, KL)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="method must be an estimator"):
        estimate(x, y, KL(), method="knn")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="take no weights"):
        estimate(x, y, KL(), a=torch.ones(50) / 50)
    with pytest.raises(ValueError, match="need more than 10 points"):
        estimate(x[:8], y, KL())
    with pytest.raises(ValueError, match="x has 2 features and y has 1"):
        estimate(x, y[:, :1], KL())
    with pytest.raises(ValueError, match="batch of shape"):
        estimate(x[None], y[None], KL())
    with pytest.raises(ValueError, match="k must be a positive integer"):
        NearestNeighbors(k=0)
    with pytest.raises(ValueError, match="trusted must be below"):
        GaussianReference(0.5, 0.3)
    with pytest.raises(ValueError, match="more than 5 neighbours"):
        NearestNeighbors(k=5)(Alpha(6.0), x, y)
    with pytest.raises(ValueError, match="one and the same point"):
        estimate(torch.ones(50, 2), torch.ones(50, 2), KL())


def test_doors_agree_and_level_is_kept():
    x, y = gaussians(300, 1, 0.5, 1.0, 0)
    one = estimate(x, y, KL(), method=NearestNeighbors(k=5), level=0.8)
    two = KL().from_samples(x.numpy()[:, 0], y.numpy()[:, 0], NearestNeighbors(k=5))
    assert one.value == two.value
    assert (one.level, two.level) == (0.8, 0.95)
    z = Normal(0.0, 1.0).icdf(torch.tensor(0.9)).item()
    assert one.high - one.value == pytest.approx(z * one.standard_error, rel=1e-5)
    assert "k = 5, k-d tree" in one.method
    assert estimate(x, y, NeymanChiSquared()).value == estimate(y, x, ChiSquared()).value
    with pytest.raises(TypeError, match="estimator must be callable"):
        KL().from_samples(x, y, None)  # type: ignore[arg-type]
