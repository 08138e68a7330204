"""Mixed models: SciPy's multivariate t on dense covariances, a Gaussian limit, outlying groups, unequal groups, bad input."""

import math

import numpy as np
import pytest
import torch

from discrepancy import ConvergenceWarning
from discrepancy.estimation.robust_high_dimensional import QGaussian, TsallisMixedModel, nu_of, q_of, tsallis_entropy
from discrepancy.optimize import SCAD


def data(seed=0, groups=30, rows=5, moved=0, slope=2.0):
    g = np.random.default_rng(seed)
    place = np.repeat(np.arange(groups), rows)
    x = g.standard_normal((groups * rows, 1))
    y = 1 + slope * x[:, 0] + g.standard_normal(groups)[place] + g.standard_normal(groups * rows)
    return x, y + 15 * np.isin(place, np.arange(moved)), place


def dense_log_likelihood(fit, x, y, place, Z):
    from scipy.stats import multivariate_normal, multivariate_t

    total = 0.0
    for i, label in enumerate(fit.group_labels):
        rows = place == label
        mean = fit.intercept + x[rows] @ fit.coefficients.numpy()
        V = Z[rows] @ fit.group_covariance.numpy() @ Z[rows].T + fit.noise_variance * np.eye(rows.sum())
        law = multivariate_normal(mean, V) if math.isinf(fit.nu) else multivariate_t(mean, V, df=fit.nu)
        total += law.logpdf(y[rows])
        r = y[rows] - mean
        distance = r @ np.linalg.solve(V, r)
        weight = 1.0 if math.isinf(fit.nu) else (fit.nu + rows.sum()) / (fit.nu + distance)
        assert float(fit.weights[i]) == pytest.approx(weight, rel=1e-6)
        effect = fit.group_covariance.numpy() @ Z[rows].T @ np.linalg.solve(V, r)
        np.testing.assert_allclose(fit.random_effects[i].numpy(), effect, rtol=1e-6, atol=1e-8)
    return total


@pytest.mark.parametrize("nu", [None, 3.0, math.inf])
def test_the_likelihood_is_scipys_with_unequal_groups_and_random_slopes(nu):
    x, y, _ = data()
    g = np.random.default_rng(1)
    place = np.sort(g.integers(0, 20, len(y)))
    place[0] = -5  # a group of one row
    Z = np.stack([np.ones(len(y)), x[:, 0]], 1)
    fit = TsallisMixedModel(nu=nu).fit(x, y, place, Z)
    assert fit.log_likelihood == pytest.approx(dense_log_likelihood(fit, x, y, place, Z), rel=1e-9)
    assert fit.outcome.ok
    assert fit.q(4) == pytest.approx(1 + 2 / (fit.nu + 4))


@pytest.mark.parametrize("nu", [None, 2.0, math.inf])
def test_the_fit_is_a_maximum_over_every_parameter(nu):
    from dataclasses import replace

    x, y, place = data(moved=3)
    fit = TsallisMixedModel(nu=nu).fit(x, y, place)
    Z = np.ones((len(y), 1))

    def value(**changes):
        other = replace(fit, **changes)
        from scipy.stats import multivariate_normal, multivariate_t

        total = 0.0
        for label in other.group_labels:
            rows = place == label
            mean = other.intercept + x[rows] @ other.coefficients.numpy()
            V = Z[rows] @ other.group_covariance.numpy() @ Z[rows].T + other.noise_variance * np.eye(rows.sum())
            law = multivariate_normal(mean, V) if math.isinf(other.nu) else multivariate_t(mean, V, df=other.nu)
            total += law.logpdf(y[rows])
        return total

    best = value()
    for name in ("intercept", "coefficients", "group_covariance", "noise_variance", *(["nu"] if nu is None else [])):
        for factor in (0.97, 1.03):
            assert value(**{name: getattr(fit, name) * factor}) < best + 1e-6, (name, factor)


def test_the_gaussian_limit_is_the_mixed_model_of_statsmodels():
    sm = pytest.importorskip("statsmodels.api")
    x, y, place = data()
    want = sm.MixedLM(y, sm.add_constant(x), place).fit(reml=False)
    got = TsallisMixedModel(nu=math.inf).fit(x, y, place)
    np.testing.assert_allclose([got.intercept, *got.coefficients.tolist()], want.fe_params, rtol=1e-5)
    assert got.log_likelihood == pytest.approx(want.llf, abs=1e-4)


def test_the_gaussian_limit_of_balanced_groups_in_closed_form():
    _, y, place = data()
    fit = TsallisMixedModel(nu=math.inf).fit(np.zeros((len(y), 1)) + np.arange(len(y))[:, None] % 5, y, place)
    table = y.reshape(30, 5)
    centred = np.arange(5) - 2.0
    slope = (table @ centred).mean() / (centred @ centred)
    # Balanced groups and a column that is the same in each: generalised least squares is ordinary least squares.
    assert float(fit.coefficients[0]) == pytest.approx(slope, rel=1e-5)
    assert fit.intercept == pytest.approx(y.mean() - 2 * slope, rel=1e-5)
    residual = table - table.mean(1, keepdims=True) - slope * centred
    noise = (residual**2).sum() / (30 * 4)
    assert fit.noise_variance == pytest.approx(noise, rel=1e-4)
    assert float(fit.group_covariance[0, 0]) == pytest.approx(table.mean(1).var() - noise / 5, rel=1e-3)


def test_outlying_groups_lose_their_weight_and_the_intercept_is_kept():
    errors = {None: [], 1.0: [], math.inf: []}
    for seed in range(5):
        x, y, place = data(seed, moved=3)
        for nu, found in errors.items():
            fit = TsallisMixedModel(nu=nu).fit(x, y, place)
            found.append((fit.intercept - 1) ** 2)
            if nu == 1.0:
                assert float(fit.weights[:3].max()) < 0.2 < float(fit.weights[3:].median())
    rms = {nu: math.sqrt(np.mean(v)) for nu, v in errors.items()}
    assert rms[1.0] < 0.3 * rms[math.inf]
    assert rms[None] < 0.8 * rms[math.inf]


def test_units_shifts_and_labels_do_not_matter():
    x, y, place = data(moved=2)
    fit = TsallisMixedModel().fit(x, y, place)
    names = np.array([f"group {k:03d}" for k in place])
    other = TsallisMixedModel().fit(torch.from_numpy(1000 * x + 7), torch.from_numpy(0.01 * y - 3), names)
    np.testing.assert_allclose(other.coefficients * 1000, 0.01 * fit.coefficients, rtol=1e-4)
    assert other.intercept == pytest.approx(0.01 * fit.intercept - 3 - float(other.coefficients[0]) * 7, abs=1e-6)
    assert other.nu == pytest.approx(fit.nu, rel=1e-3)
    assert other.noise_variance == pytest.approx(1e-4 * fit.noise_variance, rel=1e-3)
    assert other.log_likelihood == pytest.approx(fit.log_likelihood - len(y) * math.log(0.01), abs=1e-4)
    np.testing.assert_allclose(other.standard_errors[1] * 1000, 0.01 * fit.standard_errors[1], rtol=1e-3)
    shuffle = np.random.default_rng(0).permutation(len(y))
    mixed = TsallisMixedModel().fit(x[shuffle], y[shuffle], place[shuffle])
    assert mixed.log_likelihood == pytest.approx(fit.log_likelihood, abs=1e-6)
    torch.testing.assert_close(fit.predict(x[:3]), torch.from_numpy(x[:3]) @ fit.coefficients + fit.intercept)


def test_standard_errors_are_about_the_spread_of_the_estimates():
    fits = [TsallisMixedModel(nu=math.inf).fit(*data(seed)) for seed in range(30)]
    slopes = np.array([float(f.coefficients[0]) for f in fits])
    said = np.mean([float(f.standard_errors[1]) for f in fits])
    assert 0.7 < said / slopes.std() < 1.4
    intercepts = np.array([f.intercept for f in fits])
    assert 0.7 < np.mean([float(f.standard_errors[0]) for f in fits]) / intercepts.std() < 1.4


def test_a_penalty_finds_the_columns_that_matter():
    g = np.random.default_rng(3)
    x, y, place = data(3, moved=2)
    wide = np.concatenate([x, g.standard_normal((len(y), 12))], 1)
    fit = TsallisMixedModel(nu=3.0, penalty=SCAD(), lam=0.25).fit(wide, y, place)
    assert fit.coefficients.nonzero()[:, 0].tolist() == [0]
    alone = TsallisMixedModel(nu=3.0).fit(x, y, place)
    assert float(fit.coefficients[0]) == pytest.approx(float(alone.coefficients[0]), rel=1e-2)
    assert fit.standard_errors is None
    assert "penalised" in fit.note


def test_bad_input_is_refused():
    x, y, place = data()
    fit = TsallisMixedModel().fit
    for args, words in (
        ((x, y, np.zeros(len(y))), "single group"),
        ((x, y[:-1], place), r"y must have shape"),
        ((x, y, place[:-1]), "groups must have shape"),
        ((x, y * np.nan, place), "non-finite"),
        ((x * np.inf, y, place), "non-finite"),
        ((x, np.ones_like(y), place), "never varies"),
        ((x, y, place, np.ones((3, 1))), "Z must have shape"),
        ((np.repeat(x, 2, 1), y, place), "linearly dependent"),
        ((np.ones_like(x), y, place), "linearly dependent"),
    ):
        with pytest.raises(ValueError, match=words):
            fit(*args)
    for nu in (0, -1.0, math.nan):
        with pytest.raises(ValueError, match="nu must be positive"):
            TsallisMixedModel(nu=nu)
    with pytest.raises(ValueError, match="lam"):
        TsallisMixedModel(penalty=SCAD(), lam=-1)
    with pytest.raises(ValueError, match="needs a penalty"):
        TsallisMixedModel(lam=0.1)
    with pytest.raises(TypeError, match="penalty must be"):
        TsallisMixedModel(penalty="scad", lam=0.1)
    with pytest.warns(ConvergenceWarning, match="TsallisMixedModel"):
        TsallisMixedModel(max_iterations=2).fit(x, y, place)


# -- the law behind it -------------------------------------------------------------------------------------------------


def test_tsallis_entropy_and_its_limit():
    p = torch.tensor([0.5, 0.3, 0.2, 0.0], dtype=torch.float64, requires_grad=True)
    for q in (0.5, 2.0, 3.3):
        want = (1 - sum(v**q for v in (0.5, 0.3, 0.2))) / (q - 1)
        assert float(tsallis_entropy(p, q).detach()) == pytest.approx(want, rel=1e-12)
    shannon = -sum(v * math.log(v) for v in (0.5, 0.3, 0.2))
    for q in (1.0, 1 + 1e-12, 1 - 1e-12):
        assert float(tsallis_entropy(p, q).detach()) == pytest.approx(shannon, rel=1e-11)
    assert float(tsallis_entropy(torch.tensor([1.0, 0.0]), 2.0)) == 0
    torch.testing.assert_close(tsallis_entropy(torch.eye(3) * 0.5 + 1 / 6, 2.0, dim=0), torch.full((3,), 0.5))
    assert torch.autograd.gradcheck(lambda v: tsallis_entropy(v.softmax(0), 1.7), (p.detach().clone().requires_grad_(),))
    for q in (0, -1, math.nan):
        with pytest.raises(ValueError, match="q must be positive"):
            tsallis_entropy(p, q)
    with pytest.raises(ValueError, match="sum to 1"):
        tsallis_entropy(torch.tensor([0.5, 0.6]), 2.0)


def test_indices_of_the_q_gaussian():
    for nu, n in ((3.0, 1), (0.5, 7), (40.0, 6)):
        assert nu_of(q_of(nu, n), n) == pytest.approx(nu)
    for q in (1.0, 0.5, 1 + 2 / 3, 2.0, math.nan):
        with pytest.raises(ValueError, match="strictly between 1"):
            nu_of(q, 3)


def test_the_q_gaussian_is_scipys_t_and_draws_from_it():
    from scipy.stats import multivariate_normal, multivariate_t

    scale = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    mean = torch.tensor([1.0, -1.0], dtype=torch.float64)
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 4
    for nu in (0.7, 5.0, 1e5):
        want = multivariate_t(mean.numpy(), scale.numpy(), df=nu).logpdf(x.numpy())
        np.testing.assert_allclose(QGaussian(mean, scale, nu).log_prob(x).numpy(), want, rtol=1e-8)
    for nu in (math.inf, 1e9):
        want = multivariate_normal(mean.numpy(), scale.numpy()).logpdf(x.numpy())
        np.testing.assert_allclose(QGaussian(mean, scale, nu).log_prob(x).numpy(), want, rtol=1e-6)
    law = QGaussian(mean, scale, 6.0)
    assert law.q == pytest.approx(1.25)
    draws = law.sample(40_000, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(draws.T.cov(), scale * 6 / 4, rtol=0.1, atol=0.05)
    torch.testing.assert_close(draws.mean(0), mean, rtol=0, atol=0.05)
    assert torch.equal(draws, law.sample(40_000, generator=torch.Generator().manual_seed(1)))
    for arguments, words in (
        ((mean, -scale, 3.0), "positive definite"),
        ((mean, scale[:1], 3.0), "must agree"),
        ((mean, scale, 0.0), "nu must be positive"),
    ):
        with pytest.raises(ValueError, match=words):
            QGaussian(*arguments)
