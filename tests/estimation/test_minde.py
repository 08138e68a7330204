"""MINDE: Gaussian guesses against exact scores, the estimators at exact scores, planted truths, bad input, seeds."""

import math
import warnings
from dataclasses import replace

import pytest
import torch
from scipy.integrate import quad

import discrepancy
from discrepancy.divergences import KL, ChiSquared, ReverseKL
from discrepancy.dynamics import MixtureScore, VarianceExploding, VariancePreserving
from discrepancy.estimation import (
    MINDE,
    Conditional,
    DenoisingLoss,
    Inside,
    Joint,
    Outside,
    ScoreTraining,
    entropy,
    mutual_information,
)
from discrepancy.estimation.canonical import CanonicalGaussian, GaussianPair
from discrepancy.estimation.noise_network import GaussianNoise, NoiseNetwork, View
from discrepancy.learning import EarlyStopping, Training
from discrepancy.networks import ResidualMLP

QUICK = ScoreTraining(
    loop=Training(steps=60, learning_rate=3e-3), stopping=EarlyStopping(every=20, patience=2), batch_size=128, average=0.98
)
PLAIN = ScoreTraining(
    loop=Training(steps=350, learning_rate=6e-3), stopping=EarlyStopping(every=70, patience=5), batch_size=200, average=0.97
)
NET = ResidualMLP(32, 2)
VARIANTS = (Conditional(), Joint())
DIFFERENCES = (Inside(), Outside(2.0), DenoisingLoss())


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pair(n, rho, seed=0, dtype=torch.float32):
    g = seeded(seed)
    x = torch.randn(n, 1, generator=g, dtype=dtype)
    return x, rho * x + math.sqrt(1 - rho**2) * torch.randn(n, 1, generator=g, dtype=dtype)


def test_the_gaussian_guess_is_minus_the_level_times_the_exact_score():
    g = seeded(1)
    root = torch.randn(4, 4, generator=g, dtype=torch.float64)
    covariance, mean = root @ root.T + 0.1 * torch.eye(4), torch.randn(4, generator=g, dtype=torch.float64)
    schedule = VariancePreserving()
    sigma = torch.tensor([0.03, 1.0, 20.0], dtype=torch.float64)
    a = schedule.scale(sigma)[:, None]
    y = torch.randn(3, 4, generator=g, dtype=torch.float64)
    every = torch.ones(4, dtype=torch.bool)
    whole = GaussianNoise.conditional(mean, covariance, every, ~every)(y / a, y[:, :0], sigma)
    exact = MixtureScore(mean[None], covariance[None], schedule=schedule)(y, sigma)
    assert torch.allclose(whole, -a * sigma[:, None] * exact)
    diffused = torch.tensor([True, False, True, False])
    part = GaussianNoise.conditional(mean, covariance, diffused, ~diffused)(y[:, diffused] / a, y[:, ~diffused], sigma)
    slope = covariance[diffused][:, ~diffused] @ torch.linalg.inv(covariance[~diffused][:, ~diffused])
    rest = covariance[diffused][:, diffused] - slope @ covariance[~diffused][:, diffused]
    for k in range(3):
        centre = mean[diffused] + slope @ (y[k, ~diffused] - mean[~diffused])
        score = MixtureScore(centre[None], rest[None], schedule=schedule)(y[k : k + 1, diffused], sigma[k : k + 1])
        assert torch.allclose(part[k], -a[k] * sigma[k] * score[0])


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("difference", DIFFERENCES, ids=str)
@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_estimators_at_exact_scores(variant, difference, rho):
    """A network that adds nothing to the exact Gaussian guess: every estimator is the information."""
    n = 3000
    x, y = pair(n, rho, 2, torch.float64)
    options = MINDE(variant=variant, difference=difference, passes=10)
    covariance = torch.tensor([[1.0, rho], [rho, 1.0]], dtype=torch.float64)
    guesses = [
        GaussianNoise.conditional(
            torch.zeros(2, dtype=torch.float64), covariance, torch.tensor(v.diffused), torch.tensor(v.given)
        )
        for v in variant.views
    ]
    network = NoiseNetwork((1, 1), variant.views, NET, options.schedule, guesses, seeded(), torch.float64)
    values = options._information(network, torch.cat([x, y], 1), (1, 1), seeded(3))
    error = float(values.std()) / math.sqrt(n)
    assert float(values.mean()) == pytest.approx(-math.log1p(-(rho**2)) / 2, abs=4 * error + 1e-9)


def test_another_schedule_changes_the_constant_and_not_the_value():
    x, y = pair(4000, 0.8, 4, torch.float64)
    covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
    for schedule in (VariancePreserving(0.5, 12.0), VarianceExploding(0.002, 200.0)):
        options = MINDE(schedule=schedule, difference=Inside())
        guesses = [
            GaussianNoise.conditional(torch.zeros(2, dtype=torch.float64), covariance, *map(torch.tensor, (v.diffused, v.given)))
            for v in Conditional.views
        ]
        network = NoiseNetwork((1, 1), Conditional.views, NET, schedule, guesses, seeded(), torch.float64)
        values = options._information(network, torch.cat([x, y], 1), (1, 1), seeded(3))
        assert float(values.mean()) == pytest.approx(-math.log1p(-0.64) / 2, rel=0.08)


def test_the_network_alone_learns_a_pair_and_independence():
    x, y = pair(4000, 0.75)
    for variant in VARIANTS:
        fitted = MINDE(variant=variant, difference=Inside(), start=None, network=NET, training=PLAIN).fit(
            x[:3000], y[:3000], generator=seeded()
        )
        found = fitted.mutual_information(x[3000:], y[3000:], generator=seeded())
        assert found.value == pytest.approx(0.4133, abs=0.1)
        assert fitted.history["held_out"][-1] < fitted.history["held_out"][0]
    g = seeded(5)
    u, v = torch.randn(3000, 1, generator=g), torch.randn(3000, 1, generator=g)
    fitted = MINDE(difference=Inside(), start=None, network=NET, training=PLAIN).fit(u[:2000], v[:2000], generator=g)
    assert 0 <= fitted.mutual_information(u[2000:], v[2000:], generator=g).value < 0.05


def test_front_door_and_monotone_maps():
    x, y = pair(1000, 0.8, 6, torch.float64)
    method = MINDE(training=QUICK, network=NET, difference=Inside(), passes=10)
    plain = mutual_information(x, y, method, generator=seeded(7))
    bent = mutual_information(x**3, torch.asinh(5 * y), method, generator=seeded(7))
    assert plain.value == pytest.approx(-math.log1p(-0.64) / 2, abs=0.1)
    assert bent.value == pytest.approx(plain.value, abs=1e-5)
    assert plain.low is None
    assert "no interval" in plain.note
    losses = mutual_information(x, y, replace(method, difference=DenoisingLoss(), passes=40), generator=seeded(7))
    assert losses.value == pytest.approx(-math.log1p(-0.64) / 2, abs=4 * losses.standard_error + 0.03)
    assert losses.low is None
    assert plain.standard_error > 0
    assert mutual_information(x, y, method, generator=seeded(7)).value == plain.value
    assert mutual_information(x, y, method, generator=seeded(8)).value != plain.value


@pytest.mark.parametrize("difference", [Inside(), Outside(1.5), DenoisingLoss()], ids=str)
def test_entropy_of_a_stretched_gaussian(difference):
    g = seeded(8)
    x = torch.randn(2000, 2, generator=g) @ torch.tensor([[3.0, 1.0], [0.0, 0.5]]) + 10
    found = entropy(x, MINDE(training=QUICK, network=NET, difference=difference, passes=20), generator=g)
    truth = math.log(2 * math.pi * math.e) + math.log(1.5)
    assert found.value == pytest.approx(truth, abs=0.15)


def test_entropy_of_a_law_far_from_gaussian():
    g = seeded(9)
    side = (torch.rand(3000, 1, generator=g) < 0.5).float() * 2 - 1
    x = 2.5 * side + torch.randn(3000, 1, generator=g)
    found = entropy(x, MINDE(training=PLAIN, network=NET, difference=Inside()), generator=g)

    def integrand(v):
        density = (math.exp(-((v - 2.5) ** 2) / 2) + math.exp(-((v + 2.5) ** 2) / 2)) / (2 * math.sqrt(2 * math.pi))
        return -density * math.log(density)

    truth = quad(integrand, -12, 12)[0]  # a Gaussian of its variance would have 2.41
    assert found.value == pytest.approx(truth, abs=0.1)


@pytest.mark.parametrize("difference", [Inside(), DenoisingLoss()], ids=str)
def test_divergence_of_two_samples(difference):
    g = seeded(10)
    x, y = 1 + torch.randn(1500, 1, generator=g), 1.5 * torch.randn(1200, 1, generator=g)
    method = MINDE(training=QUICK, network=NET, difference=difference)
    forward = discrepancy.estimate(x, y, KL(), method=method, generator=seeded())
    truth = math.log(1.5) + (1 + 1) / (2 * 2.25) - 0.5
    assert forward.value == pytest.approx(truth, abs=0.12)
    backward = discrepancy.estimate(x, y, ReverseKL(), method=method, generator=seeded())
    truth = -math.log(1.5) + (2.25 + 1) / 2 - 0.5
    assert backward.value == pytest.approx(truth, abs=0.2)


def test_canonical_correlations_of_independent_data_vanish_and_strong_ones_stay():
    g = seeded(11)
    x, y = torch.randn(400, 10, generator=g), torch.randn(400, 12, generator=g)
    assert CanonicalGaussian.fit(x, y).mutual_information < 0.02
    y[:, 0] = 0.95 * x[:, 0] + math.sqrt(1 - 0.95**2) * y[:, 0]
    fitted = CanonicalGaussian.fit(x, y)
    assert fitted.mutual_information == pytest.approx(-math.log1p(-(0.95**2)) / 2, abs=0.1)
    assert int((fitted.rho > 0.3).sum()) == 1
    joint = torch.distributions.MultivariateNormal(torch.cat([fitted.mean_x, fitted.mean_y]), fitted.covariance)
    left = torch.distributions.MultivariateNormal(fitted.mean_x, fitted.covariance[:10, :10])
    right = torch.distributions.MultivariateNormal(fitted.mean_y, fitted.covariance[10:, 10:])
    expected = joint.log_prob(torch.cat([x, y], 1)) - left.log_prob(x) - right.log_prob(y)
    assert torch.allclose(fitted.log_ratio(x, y), expected, atol=2e-3)
    few = CanonicalGaussian.fit(x[:30], y[:30])  # fewer rows than 2 (10 + 12)
    assert bool(torch.isfinite(few.log_ratio(x, y)).all())


def test_gaussian_pair_is_the_log_ratio_of_its_gaussians():
    g = seeded(12)
    x, y = torch.randn(300, 3, generator=g, dtype=torch.float64), 1 + 2 * torch.randn(200, 3, generator=g, dtype=torch.float64)
    found = GaussianPair.fit(x, y).log_ratio(x)
    normal = torch.distributions.MultivariateNormal
    p, q = (normal(z.mean(0), (z - z.mean(0)).T @ (z - z.mean(0)) / len(z)) for z in (x, y))
    assert torch.allclose(found, p.log_prob(x) - q.log_prob(x))


def test_views_zero_what_is_left_out():
    """The guess for X alone must not depend on Y, and that for X given Y must."""
    network = NoiseNetwork((1, 1), Conditional.views, NET, VariancePreserving(), None, seeded())
    torch.nn.init.normal_(network.net.last.weight, generator=seeded(1))
    rows, other = torch.randn(5, 2, generator=seeded(2)), torch.randn(5, 2, generator=seeded(3))
    other[:, 0] = rows[:, 0]
    sigma = torch.full((5,), 0.5)
    assert torch.equal(network(0, rows, rows, sigma), network(0, other, other, sigma))
    assert not torch.allclose(network(1, rows, rows, sigma), network(1, rows, other, sigma))
    assert View((True, True), (False, False)).share == 2


def test_bad_input():
    x, y = pair(600, 0.5)
    method = MINDE(training=QUICK, network=NET)
    with pytest.raises(ValueError, match="paired"):
        mutual_information(x, y[:500], method)
    with pytest.raises(ValueError, match="column 1 of y is constant"):
        mutual_information(x, torch.cat([y, torch.ones(600, 1)], 1), method)
    with pytest.raises(ValueError, match="non-finite"):
        method.fit(x, torch.full((600, 1), math.nan))
    with pytest.raises(ValueError, match="19 rows"):
        mutual_information(x[:19], y[:19], method)
    with pytest.raises(TypeError, match="KL"):
        discrepancy.estimate(x, y, ChiSquared(), method=method)
    with pytest.raises(TypeError, match=r"variant must be a Variant such as Conditional\(\)"):
        MINDE(variant="c")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="deviation"):
        Outside(0.0)
    with pytest.raises(ValueError, match="folds"):
        MINDE(folds=1)
    short = MINDE(training=ScoreTraining(loop=Training(steps=2), batch_size=16), network=NET)
    with pytest.warns(UserWarning, match="fewer than 500"):
        fitted = short.fit(x[:400], y[:400], generator=seeded())
    with pytest.warns(UserWarning, match="dequantise"):
        short.fit(x.round(), y, generator=seeded())
    with pytest.raises(ValueError, match="features as in fit"):
        fitted.mutual_information(y, torch.cat([x, y], 1))


def test_dtypes_and_strides():
    x, y = pair(500, 0.7, 13)
    short = MINDE(training=ScoreTraining(loop=Training(steps=5), batch_size=16), network=NET)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = mutual_information(x, y, short, generator=seeded()).value
        strided = mutual_information(torch.cat([x, y], 1)[:, ::2], y, short, generator=seeded()).value
        double = mutual_information(x.double().numpy(), y.double().numpy(), short, generator=seeded()).value
    assert plain == strided
    assert double == pytest.approx(plain, abs=1e-4)
