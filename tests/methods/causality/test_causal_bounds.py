"""Causal bounds: the theorem, the dual loss against the exact dual, estimates on planted laws, and bad input."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch

from discrepancy import KL, ChiSquared, CustomDivergence, JensenShannon, ReverseKL, SquaredHellinger, TotalVariation
from discrepancy.divergences import dro_bounds
from discrepancy.learning import Training
from discrepancy.methods.causality import (
    CausalBounds,
    Clipped,
    DualLoss,
    UpTo,
    aggregate_bounds,
    divergence_radius,
    dual_loss,
    manski_bounds,
)

QUICK = Training(steps=60, learning_rate=3e-3)


def _t(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_radii_are_those_of_the_paper():
    e = _t(0.1, 0.37, 0.9, 1.0)
    expected = {
        KL(): -e.log(),
        SquaredHellinger(): 1 - e.sqrt(),
        0.5 * ChiSquared(): (1 - e) / (2 * e),
        TotalVariation(): 1 - e,
        JensenShannon(): 0.5 * (e * e.log() - (1 + e) * (1 + e).log()) + math.log(2),
    }
    for f, want in expected.items():
        torch.testing.assert_close(divergence_radius(e, f), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("f", [KL(), ChiSquared(), JensenShannon(), TotalVariation()], ids=repr)
def test_the_radius_holds_and_is_attained(f):
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(50, 6, generator=generator, dtype=torch.float64)
    other = torch.rand(50, 6, generator=generator, dtype=torch.float64)
    p, other = p / p.sum(-1, keepdim=True), other / other.sum(-1, keepdim=True)
    e = 0.1 + 0.8 * torch.rand(50, 1, generator=generator, dtype=torch.float64)
    radius = divergence_radius(e[:, 0], f)
    assert bool((f.from_probs(p, e * p + (1 - e) * other) <= radius + 1e-12).all())
    apart = torch.cat([p, torch.zeros_like(p)], -1)
    singular = e * apart + (1 - e) * torch.cat([torch.zeros_like(p), other], -1)
    torch.testing.assert_close(f.from_probs(apart, singular), radius, rtol=1e-10, atol=1e-12)


def test_manski_and_aggregation():
    low, high = manski_bounds(0.3, 0.6, 0.0, 1.0)
    assert (float(low), float(high)) == pytest.approx((0.18, 0.58))
    lower, upper = _t(0.1, 0.5, 0.3)[:, None], _t(0.4, 0.6, 0.45)[:, None]
    assert [float(v) for v in aggregate_bounds(lower, upper)] == [0.3, 0.45]  # k = 1 crosses: 0.5 > 0.4
    assert [float(v) for v in aggregate_bounds(lower, upper, 3)] == [0.1, 0.6]
    disjoint = aggregate_bounds(_t(0.9, 0.8)[:, None], _t(0.1, 0.2)[:, None])
    assert float(disjoint[0]) <= float(disjoint[1])
    with pytest.raises(ValueError, match="between 1 and the number"):
        aggregate_bounds(lower, upper, 4)


@pytest.mark.parametrize("f", [KL(), JensenShannon(), TotalVariation(), 3 * ChiSquared()], ids=repr)
def test_the_dual_loss_is_minimal_at_the_exact_solution(f):
    phi = torch.rand(30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    arm, e = torch.zeros(30, dtype=torch.long), torch.full((30, 1), 0.6, dtype=torch.float64)
    exact = dro_bounds(phi, divergence_radius(_t(0.6)[0], f), f, support=(0.0, 1.0))

    def loss(log_price, fraction):
        rows = [t * torch.ones(30, 1, dtype=torch.float64) for t in (log_price, fraction)]
        return float(dual_loss(phi, arm, e, *rows, f, 1.0, orthogonal=False))

    price = exact.upper_price
    fraction = 1 - (1 - exact.upper_level) / (price * f.at_zero)
    best = loss(price.log(), fraction.clamp(1e-14, 1 - 1e-14))
    assert best == pytest.approx(float(exact.upper), abs=1e-9)
    for step in (-0.3, 0.3):
        assert loss(price.log() + step, fraction.clamp(1e-14, 1)) >= best - 1e-12
        assert loss(price.log(), (fraction + 0.2 * step).clamp(0, 1)) >= best - 1e-12


def test_the_orthogonal_loss_has_no_slope_in_the_propensity():
    n = 200_000
    generator = torch.Generator().manual_seed(2)
    arm = (torch.rand(n, generator=generator) < 0.3).long()
    phi = torch.rand(n, generator=generator, dtype=torch.float64)
    share = arm.double().mean()
    price, fraction = _t(-1.0, 0.5).expand(n, 2), torch.full((n, 2), 0.3, dtype=torch.float64)
    slopes = []
    for orthogonal in (False, True):
        shift = torch.zeros((), dtype=torch.float64, requires_grad=True)
        e = torch.stack([1 - share - shift, share + shift]).expand(n, 2)
        value = DualLoss(KL(), 1.0, orthogonal=orthogonal)(phi, arm, e, price, fraction).mean()
        slopes.append(float(torch.autograd.grad(value, shift)[0]))
    # The radius -log e has slope -1/e: each arm contributes its price, with opposite signs.
    assert slopes[0] == pytest.approx(math.exp(-1.0) - math.exp(0.5), abs=1e-9)
    assert abs(slopes[1]) < 1e-9


def _confounded(n, seed):
    random = np.random.default_rng(seed)
    u, x = random.normal(size=n), random.uniform(-1, 1, (n, 2))
    a = (random.random(n) < 1 / (1 + np.exp(-x[:, 0] - u))).astype(int)
    return x, a, x[:, 0] + a + u + 0.3 * random.normal(size=n)


def test_without_covariates_the_problem_is_exact():
    _, a, y = _confounded(400, 0)
    phi = UpTo(0.5)
    model = CausalBounds((KL(), ChiSquared()), phi=phi).fit(None, a, y)
    band = model.bounds(None, 1)
    inside = torch.from_numpy((y[a == 1] <= 0.5).astype(float))
    for f in (KL(), ChiSquared()):
        exact = dro_bounds(inside, divergence_radius(_t(a.mean())[0], f), f, support=(0.0, 1.0))
        low, high = band.per_divergence[repr(f)]
        assert (float(low), float(high)) == pytest.approx((float(exact.lower), float(exact.upper)), abs=1e-12)
    assert float(band.lower) <= float(band.manski_lower) <= float(band.manski_upper) <= float(band.upper)
    assert "CausalBand(" in repr(band)


@pytest.fixture(scope="module")
def fitted():
    pytest.importorskip("sklearn")
    x, a, y = _confounded(600, 1)
    return CausalBounds((KL(), TotalVariation()), phi=UpTo(0.5), training=QUICK, random_state=0).fit(x, a, y), x, a, y


def test_the_band_holds_the_truth_and_is_reproducible(fitted):
    model, x, a, y = fitted
    points = np.random.default_rng(5).uniform(-1, 1, (100, 2))
    band = model.bounds(points, 1)
    draws = np.random.default_rng(6).normal(size=(2, 4000, 1))
    truth = torch.from_numpy((points[:, 0] + 1 + draws[0] + 0.3 * draws[1] <= 0.5).mean(0))
    assert float(((band.lower <= truth) & (truth <= band.upper)).double().mean()) > 0.9
    assert bool((band.lower >= 0).all() and (band.upper <= 1).all() and (band.lower <= band.upper).all())
    assert band.radius.shape == (2, 100)
    low, high = band.intersected()
    assert bool((low <= high).all())
    again = CausalBounds((KL(), TotalVariation()), phi=UpTo(0.5), training=QUICK, random_state=0).fit(x, a, y).bounds(points, 1)
    assert torch.equal(again.lower, band.lower)
    assert torch.equal(again.upper, band.upper)


def test_units_of_the_outcome_do_not_matter(fitted):
    _, x, a, y = fitted
    bands = []
    for scale, shift in ((1.0, 0.0), (-50.0, 7.0)):
        low, high = sorted((scale * -4 + shift, scale * 4 + shift))
        model = CausalBounds((KL(),), phi=Clipped(low, high), training=QUICK, random_state=0)
        bands.append(model.fit(x, a, scale * y + shift).bounds(x[:20], 0))
    # Networks and regressions see minus the outcome: equal in law of the data, not bit for bit.
    assert float((bands[1].upper - (-50 * bands[0].lower + 7)).abs().mean()) < 0.05 * 400


def test_bad_input():
    x, a, y = _confounded(100, 2)
    model = CausalBounds((KL(),), phi=UpTo(0.0))
    with pytest.raises(ValueError, match=r"few discrete values.*got 100"):
        model.fit(x, y, y)
    with pytest.raises(ValueError, match="few discrete values"):
        model.fit(x, np.where(a == 1, 0.5, 0.0), y)
    with pytest.raises(ValueError, match=r"got 1: 1"):
        model.fit(x, np.ones(100, dtype=int), y)
    rare = np.zeros(100, dtype=int)
    rare[:7] = 1
    with pytest.raises(ValueError, match="treatment 1 has 7 rows"):
        model.fit(x, rare, y)
    gone = y.copy()
    gone[3] = math.nan
    with pytest.raises(ValueError, match="Y has 1 non-finite"):
        model.fit(x, a, gone)
    with pytest.raises(ValueError, match="missing treatment"):
        model.fit(x, np.where(a == 1, math.nan, 0.0), y)
    with pytest.raises(ValueError, match="rows of Y"):
        model.fit(x[:50], a, y)
    with pytest.raises(ValueError, match="one number an outcome"):
        CausalBounds((KL(),), phi=lambda v: torch.stack([v, v], -1), phi_range=(-9, 9)).fit(None, a, y)
    with pytest.raises(ValueError, match="outside"):
        CausalBounds((KL(),), phi_range=(0.0, 0.1)).fit(None, a, y)
    with pytest.raises(TypeError, match="radius is infinite"):
        CausalBounds((KL(), ReverseKL()))
    with pytest.raises(TypeError, match="radius is infinite"):
        divergence_radius(0.5, ReverseKL())
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        divergence_radius(_t(0.5, 1.2), KL())
    with pytest.raises(ValueError, match="empty"):
        CausalBounds(())
    with pytest.raises(ValueError, match="clip"):
        CausalBounds(clip=0.7)
    with pytest.raises(AttributeError, match="not fitted"):
        model.bounds(x, 1)
    model.fit(None, a, y)
    with pytest.raises(ValueError, match=r"one of the treatments \[0, 1\]"):
        model.bounds(None, 2)
    with pytest.raises(ValueError, match="no covariates"):
        model.bounds(x, 1)
    with pytest.raises(ValueError, match="low < high"):
        Clipped(1.0, 0.0)


def test_warnings_of_unbounded_outcomes_and_missing_overlap():
    sklearn = pytest.importorskip("sklearn.linear_model")
    x, a, y = _confounded(200, 3)
    with pytest.warns(UserWarning, match="range of phi is not stated"):
        band = CausalBounds((KL(),)).fit(None, a, y).bounds(None, 1)
    assert not band.bounded
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CausalBounds((KL(),), phi_range=(-20.0, 20.0)).fit(None, a, y)
        CausalBounds((KL(),)).fit(None, a, (y > 0).astype(float))  # two values are their own range
    sure = CausalBounds((KL(),), phi=UpTo(0.0), clip=0.3, propensity=sklearn.LogisticRegression(), training=QUICK, random_state=0)
    with pytest.warns(UserWarning, match=r"propensities lie outside \[0.3, 0.7\]"):
        sure.fit(np.c_[4 * x[:, 0] + 3 * a, x[:, 1]], a, y)


def test_scikit_learn_clones_it():
    base = pytest.importorskip("sklearn.base")
    model = base.clone(CausalBounds((SquaredHellinger(),), phi=UpTo(0.0), folds=3))
    assert model.get_params()["divergences"] == (SquaredHellinger(),)
    assert model.set_params(clip=0.05).clip == 0.05
    with pytest.raises(ValueError, match="no option"):
        model.set_params(nothing=1)


@pytest.mark.slow
def test_users_bring_their_own_divergence():
    double = CustomDivergence(lambda t: (t.sqrt() - 1) ** 2, name="mine")
    _, a, y = _confounded(100, 4)
    bands = [CausalBounds((f,), phi=UpTo(0.0)).fit(None, a, y).bounds(None, 0) for f in (SquaredHellinger(), double)]
    assert float(bands[1].upper) == pytest.approx(float(bands[0].upper), abs=1e-6)  # twice the divergence, twice the radius
