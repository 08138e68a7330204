"""Divergences from neighbour ratios: the formula by brute force, closed forms, weights of the ensemble, the test, refusals."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from discrepancy import (
    KL,
    Alpha,
    CauchySchwarz,
    CustomDivergence,
    JensenShannon,
    Renyi,
    ReverseKL,
    SquaredHellinger,
    TotalVariation,
    estimate,
    permutation_test,
)
from discrepancy.estimation import NearestNeighborRatios, NeighborRatioDiscrepancy, RankEnsemble, SampleSizeWarning
from discrepancy.estimation.rank_ensembles import ensemble_weights, nested_covariance, shrunken_weights


def gaussians(n, d, shift, seed, m=None):
    g = torch.Generator().manual_seed(seed)
    return (
        torch.randn(n, d, generator=g, dtype=torch.float64),
        shift + torch.randn(m or n, d, generator=g, dtype=torch.float64),
    )


def ratios_by_hand(x, y, k):
    both = torch.cat([x, y])
    distance = torch.cdist(y, both)
    distance[torch.arange(len(y)), len(x) + torch.arange(len(y))] = torch.inf
    near = distance.argsort(1)[:, :k]
    of_x = (near < len(x)).sum(1).double()
    return len(y) / len(x) * of_x / (k - of_x + 1)


def test_the_ratios_by_brute_force():
    # Unequal sizes: a forgotten m / n is invisible otherwise.
    x, y = gaussians(70, 2, 0.5, 0, m=110)
    u = NearestNeighborRatios(k=9).ratios(x, y)
    torch.testing.assert_close(u, ratios_by_hand(x, y, 9))
    got = estimate(x, y, TotalVariation(), method=NearestNeighborRatios(k=9))
    assert got.value == pytest.approx(float((u - 1).abs().mean() / 2), abs=1e-12)
    js = estimate(x, y, JensenShannon(), method=NearestNeighborRatios(k=9))
    assert js.value == pytest.approx(float(JensenShannon().generator(u).mean()), abs=1e-12)
    order = estimate(x, y, Renyi(0.5), method=NearestNeighborRatios(k=9))
    assert bool((u == 0).any())  # and no clip moves them: the power of zero is finite
    assert order.value == pytest.approx(-2 * math.log(u.sqrt().mean()), abs=1e-12)


def test_infinite_ends_are_clipped_and_finite_ones_are_not():
    x, y = gaussians(60, 1, 3.0, 0)
    u = NearestNeighborRatios(k=6).ratios(x, y)
    assert bool((u == 0).any())
    with pytest.warns(SampleSizeWarning, match="6 neighbours can show"):
        kl = estimate(x, y, KL(), method=NearestNeighborRatios(k=6, clip=100.0))
    terms = torch.special.xlogy(u, u) - u + 1
    assert kl.value == pytest.approx(float(terms.mean()), abs=1e-12)
    with pytest.warns(SampleSizeWarning):
        reverse = estimate(x, y, ReverseKL(), method=NearestNeighborRatios(k=6, clip=100.0))
    v = u.clamp(0.01, 100)
    assert reverse.value == pytest.approx(float((v - 1 - v.log()).mean()), abs=1e-12)
    with pytest.warns(SampleSizeWarning):
        assert math.isinf(estimate(x, y, ReverseKL(), method=NearestNeighborRatios(k=6, clip=None)).value)


@pytest.mark.parametrize(
    ("divergence", "truth"),
    [
        (KL(), 0.245),
        (ReverseKL(), 0.245),
        (SquaredHellinger(), 1 - math.exp(-0.49 / 8)),
        (KL().reversed(), 0.245),
        (CustomDivergence(lambda t: t * torch.log(t)), 0.245),
        (Renyi(0.5), 0.1225),
        (2 * Alpha(0.5) + KL(), 0.245 + 8 * (1 - math.exp(-0.49 / 8))),
    ],
    ids=lambda v: repr(v) if not isinstance(v, float) and "0x" not in repr(v) else "custom" if not isinstance(v, float) else None,
)
def test_gaussians(divergence, truth):
    values = [estimate(*gaussians(1500, 1, 0.7, seed), divergence, method=NearestNeighborRatios()).value for seed in range(4)]
    assert np.mean(values) == pytest.approx(truth, abs=0.15 * truth + 0.02)


def test_orientation():
    # P uniform on [0, 1], Q on [0, 2]: KL(P || Q) = log 2, and KL(Q || P) is infinite.
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(2000, 1, generator=g), 2 * torch.rand(2000, 1, generator=g)
    with pytest.warns(SampleSizeWarning):
        forward = estimate(x, y, KL(), method=NearestNeighborRatios()).value
    assert forward == pytest.approx(math.log(2), abs=0.06)
    assert estimate(y, x, KL(), method=NearestNeighborRatios(k=40)).value < 0.5


def test_the_error_is_the_spread_and_no_interval_is_claimed():
    got = [estimate(*gaussians(400, 2, 0.5, seed), JensenShannon(), method=NearestNeighborRatios()) for seed in range(10)]
    stated = math.sqrt(np.mean([e.standard_error**2 for e in got]))
    assert 0.4 < np.std([e.value for e in got]) / stated < 1.8
    assert got[0].low is None
    assert "no interval" in got[0].note


def test_exact_weights_cancel_their_terms_and_are_the_shortest():
    scales, exponents = [0.3, 0.8, 1.0, 1.7, 2.2, 3.0], [1 / 3, 2 / 3, 1.0]
    w = ensemble_weights(scales, exponents)
    s = torch.tensor(scales, dtype=torch.float64)
    assert w.sum().item() == pytest.approx(1)
    for e in exponents:
        assert (w * s**e).sum().item() == pytest.approx(0, abs=1e-9)
    rows = np.stack([np.ones(6), *(np.array(scales) ** e for e in exponents)])
    found = minimize(
        lambda v: v @ v, np.ones(6) / 6, constraints={"type": "eq", "fun": lambda v: rows @ v - [1, 0, 0, 0]}, tol=1e-14
    )
    np.testing.assert_allclose(w.numpy(), found.x, rtol=1e-4)
    weighted = ensemble_weights([2, 3, 5, 10], [0.5], nested_covariance([2, 3, 5, 10]))
    C = nested_covariance([2, 3, 5, 10])
    assert float(weighted @ C @ weighted) <= float(
        ensemble_weights([2, 3, 5, 10], [0.5]) @ C @ ensemble_weights([2, 3, 5, 10], [0.5])
    )
    with pytest.raises(ValueError, match="more positive scales"):
        ensemble_weights([1, 2], [0.5, 1.0])


def test_priced_weights_minimise_their_program():
    scales, exponents, sizes = [0.5, 1.0, 2.0, 3.0], [0.5, 1.0], [2.0, 0.7]
    w = shrunken_weights(scales, exponents, sizes)

    def objective(v):
        return v @ v + sum(z * (v @ np.array(scales) ** e) ** 2 for e, z in zip(exponents, sizes, strict=True))

    best = objective(w.numpy())
    assert w.sum().item() == pytest.approx(1)
    rng = np.random.default_rng(0)
    for _ in range(20):
        move = rng.normal(size=4)
        assert objective(w.numpy() + 1e-3 * (move - move.mean())) > best
    hard = shrunken_weights(scales, exponents, [1e9, 1e9])
    torch.testing.assert_close(hard, ensemble_weights(scales, exponents), atol=1e-5, rtol=0)


def test_the_ensemble_is_the_weighted_sum_of_its_members():
    x, y = gaussians(300, 2, 0.5, 0)
    ensemble = RankEnsemble(count=5)
    ranks, weights = ensemble.ranks(300, 2, 599)
    members = [estimate(x, y, KL(), method=NearestNeighborRatios(k=k)).value for k in ranks]
    got = estimate(x, y, KL(), method=NearestNeighborRatios(ensemble=ensemble))
    assert got.value == pytest.approx(float(weights @ torch.tensor(members, dtype=torch.float64)), abs=1e-12)
    assert ranks == sorted({math.floor(s * math.sqrt(300)) for s in np.linspace(0.3, 3, 5)})


def test_the_discrepancy_is_the_estimate_and_permutes_labels_only():
    x, y = gaussians(50, 2, 0.6, 0, m=70)
    D = NeighborRatioDiscrepancy(KL(), NearestNeighborRatios(k=7))
    assert float(D(x, y)) == pytest.approx(estimate(x, y, KL(), method=NearestNeighborRatios(k=7)).value, abs=1e-9)
    z = torch.cat([x, y])
    order = torch.randperm(120, generator=torch.Generator().manual_seed(1))
    a = torch.zeros(120, dtype=torch.float64)
    a[order[:50]] = 1 / 50
    b = torch.zeros(120, dtype=torch.float64)
    b[order[50:]] = 1 / 70
    got = D.pooled(z)(a[None], b[None])
    assert float(got[0]) == pytest.approx(float(D(z[order[:50]], z[order[50:]])), abs=1e-9)
    stacked = D(torch.stack([x, x + 1]), torch.stack([y, y]))
    assert stacked.shape == (2,)
    assert float(stacked[0]) == pytest.approx(float(D(x, y)))


def test_the_two_sample_test():
    D = NeighborRatioDiscrepancy()
    g = torch.Generator().manual_seed(0)
    apart = permutation_test(*gaussians(60, 2, 0.9, 0), D, permutations=99, generator=g)
    assert apart.p_value <= 0.02
    same = [permutation_test(*gaussians(40, 2, 0.0, s), D, permutations=59, generator=g).p_value for s in range(40)]
    assert sum(p <= 0.05 for p in same) <= 6
    assert np.mean(same) > 0.35


def test_refusals_and_remarks():
    x, y = gaussians(40, 2, 0.5, 0)
    method = NearestNeighborRatios(k=5)
    with pytest.raises(TypeError, match="FDivergence or RatioDivergence"):
        estimate(x, y, CauchySchwarz(), method=method)
    with pytest.raises(TypeError, match="FDivergence or RatioDivergence"):
        NeighborRatioDiscrepancy(CauchySchwarz())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="k must be"):
        NearestNeighborRatios(k=1)
    with pytest.raises(ValueError, match="more than 80 other points"):
        estimate(x, y, KL(), method=NearestNeighborRatios(k=80))
    with pytest.raises(ValueError, match="x has 2 features and y has 1"):
        estimate(x, y[:, :1], KL(), method=method)
    with pytest.raises(ValueError, match="give k or ensemble"):
        NearestNeighborRatios(k=5, ensemble=RankEnsemble())
    with pytest.raises(ValueError, match="clip must be"):
        NearestNeighborRatios(clip=1.0)
    with pytest.raises(ValueError, match="0 < low < high"):
        RankEnsemble(low=2.0, high=1.0)
    with pytest.raises(ValueError, match="penalty"):
        RankEnsemble(penalty=0.0)
    with pytest.raises(ValueError, match="non-finite"):
        estimate(x.where(x > -1, torch.nan), y, KL(), method=method)
    tied = estimate(torch.round(x), torch.round(y), JensenShannon(), method=NearestNeighborRatios(k=20))
    assert "coincide with another point" in tied.note
    with pytest.warns(SampleSizeWarning):
        uneven = estimate(x[:5], gaussians(40, 2, 0, 1, m=300)[1], JensenShannon(), method=method)
    assert "differ more than 20 times" in uneven.note
