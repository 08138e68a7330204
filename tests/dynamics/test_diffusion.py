"""Diffusion models against Gaussian data, where everything is known: schedules, scores, the loss, and samplers."""

import math

import pytest
import torch

from discrepancy import NumericalError
from discrepancy.dynamics import (
    Ancestral,
    Cosine,
    DenoiserVariance,
    DiscreteTimes,
    EmpiricalScore,
    EulerMaruyama,
    GuidedScore,
    KarrasSpacing,
    LogNormalLevels,
    MaximumLikelihood,
    MixtureScore,
    NoiseVariance,
    PreconditionedScore,
    PredictorCorrector,
    ProbabilityFlow,
    UniformSpacing,
    UniformTimes,
    VarianceExploding,
    VariancePreserving,
    denoised,
    denoising_score_matching,
    perturb,
)
from discrepancy.learning import Training
from discrepancy.networks import MLP

SCHEDULES = {"exploding": VarianceExploding(0.01, 50), "preserving": VariancePreserving(), "cosine": Cosine()}
MEAN = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
COVARIANCE = torch.tensor([[[1.0, 0.6], [0.6, 0.5]]], dtype=torch.float64)


def seeded(k=0):
    return torch.Generator().manual_seed(k)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_is_consistent(name):
    s = SCHEDULES[name]
    t = torch.linspace(max(s.first, 0.01), 1, 50, dtype=torch.float64, requires_grad=True)
    sigma = s.sigma(t)
    assert torch.allclose(s.time(sigma), t, atol=1e-9)
    assert (sigma.diff() > 0).all()
    assert s.sigma_min < s.sigma_max
    assert s.sigma_max == pytest.approx(float(sigma[-1].detach()))
    # drift = a'/a and g^2 = a^2 d sigma^2 / dt
    a = s.scale(sigma)
    slope_log_a, slope_power = (torch.autograd.grad(v.sum(), t, retain_graph=True)[0] for v in (a.log() + 0 * t, sigma.square()))
    assert torch.allclose(s.drift(t), slope_log_a, rtol=1e-6, atol=1e-8)
    assert torch.allclose(s.diffusion(t).square(), a.square() * slope_power, rtol=1e-6)


def test_schedule_values():
    s = VarianceExploding(0.01, 50)
    assert float(s.sigma(torch.tensor(0.5, dtype=torch.float64))) == pytest.approx(
        math.sqrt(0.5)
    )  # the geometric mean of the ends
    v = VariancePreserving(0.1, 20)
    a = float(v.scale(v.sigma(torch.tensor(1.0, dtype=torch.float64))))
    assert a == pytest.approx(math.exp(-0.25 * 19.9 - 0.05))
    c = Cosine(0.01, 100)
    middle = float(c.sigma(torch.tensor(0.5, dtype=torch.float64)))
    assert middle == pytest.approx(1.0)  # the ends are symmetric about angle pi/4


@pytest.mark.parametrize(
    "bad",
    [
        lambda: VarianceExploding(0, 1),
        lambda: VarianceExploding(2, 1),
        lambda: VariancePreserving(2, 1),
        lambda: VariancePreserving(first=0.0),
        lambda: Cosine(1, 1),
        lambda: DiscreteTimes(1),
        lambda: LogNormalLevels(0, 0),
        lambda: DenoiserVariance(0),
        lambda: KarrasSpacing(-1),
        lambda: PredictorCorrector(1),
        lambda: PredictorCorrector(10, -1),
        lambda: PredictorCorrector(signal_to_noise=0),
        lambda: EulerMaruyama(10, churn=-1),
        lambda: ProbabilityFlow(1),
        lambda: GuidedScore(lambda y, s, c: y, -1),
        lambda: MixtureScore(MEAN, -COVARIANCE),
        lambda: MixtureScore(MEAN, COVARIANCE[0]),
    ],
)
def test_bad_options(bad):
    with pytest.raises(ValueError, match=r"must|below"):
        bad()


def test_levels_and_spacings():
    s = VarianceExploding(0.01, 50)
    u = s.time(UniformTimes(stratified=True).draw(10, s, seeded()))
    assert ((u * 10).floor() == torch.arange(10)).all()
    grid = s.time(DiscreteTimes(5).draw(500, s, seeded())) * 4
    assert torch.allclose(grid, grid.round(), atol=1e-9)
    assert set(grid.round().long().tolist()) == {0, 1, 2, 3, 4}
    logs = LogNormalLevels(-1.2, 1.2).draw(20_000, s, seeded()).log()
    assert float(logs.mean()) == pytest.approx(-1.2, abs=0.03)
    assert float(logs.std()) == pytest.approx(1.2, abs=0.03)
    for spacing in (UniformSpacing(), KarrasSpacing(7)):
        levels = spacing.levels(s, 9)
        assert levels.shape == (9,)
        assert (levels.diff() < 0).all()
        assert float(levels[0]) == pytest.approx(50)
        assert float(levels[-1]) == pytest.approx(0.01)
    assert torch.allclose(KarrasSpacing(1).levels(s, 3)[1], torch.tensor((50 + 0.01) / 2, dtype=torch.float64))


@pytest.mark.parametrize("name", SCHEDULES)
def test_mixture_score_is_the_gradient_of_its_log_density(name):
    schedule = SCHEDULES[name]
    means = torch.tensor([[1.0, -2.0], [0.0, 3.0]], dtype=torch.float64)
    C = torch.stack([COVARIANCE[0], torch.zeros(2, 2, dtype=torch.float64)])  # the second component is one point
    score = MixtureScore(means, C, [0.3, 0.7], schedule)
    y = torch.randn(6, 2, dtype=torch.float64, generator=seeded(), requires_grad=True)
    sigma = torch.tensor([0.3, 0.5, 1.0, 2.0, 5.0, 20.0], dtype=torch.float64)
    (slope,) = torch.autograd.grad(score.log_density(y, sigma).sum(), y)
    assert torch.allclose(score(y, sigma), slope, rtol=1e-10, atol=1e-12)


def test_mixture_density_against_torch():
    schedule = VariancePreserving()
    score = MixtureScore(MEAN, COVARIANCE, None, schedule)
    sigma = torch.tensor([0.7], dtype=torch.float64)
    a = float(schedule.scale(sigma))
    truth = torch.distributions.MultivariateNormal(a * MEAN[0], a**2 * (COVARIANCE[0] + 0.49 * torch.eye(2)))
    y = torch.tensor([[0.4, -0.9]], dtype=torch.float64)
    assert torch.allclose(score.log_density(y, sigma), truth.log_prob(y))


@pytest.mark.parametrize("name", SCHEDULES)
def test_denoiser_is_the_posterior_mean(name):
    # Gaussian data: E[Y0 | y] = m + C (C + sigma^2 I)^-1 (y/a - m)
    schedule = SCHEDULES[name]
    sigma = torch.full((4,), 0.8, dtype=torch.float64)
    y = torch.randn(4, 2, dtype=torch.float64, generator=seeded())
    found = denoised(y, MixtureScore(MEAN, COVARIANCE, None, schedule)(y, sigma), sigma, schedule)
    x = y / schedule.scale(sigma)[:, None]
    gain = COVARIANCE[0] @ torch.linalg.inv(COVARIANCE[0] + 0.64 * torch.eye(2, dtype=torch.float64))
    assert torch.allclose(found, MEAN + (x - MEAN) @ gain.T, rtol=1e-9)


def test_empirical_score_is_that_of_a_mixture_of_points():
    data = torch.randn(5, 2, dtype=torch.float64, generator=seeded())
    for schedule in SCHEDULES.values():
        exact = MixtureScore(data, torch.zeros(5, 2, 2, dtype=torch.float64), None, schedule)
        y, sigma = torch.randn(7, 2, dtype=torch.float64, generator=seeded(1)), torch.linspace(0.2, 3, 7, dtype=torch.float64)
        assert torch.allclose(EmpiricalScore(data, schedule)(y, sigma), exact(y, sigma), rtol=1e-8, atol=1e-10)


def test_perturb_and_loss_by_hand():
    schedule = VariancePreserving()
    y0 = torch.randn(3, 1, 4, 4, dtype=torch.float64, generator=seeded())
    score = lambda y, sigma, condition: -0.3 * y + 0.1  # noqa: E731
    found = denoising_score_matching(score, y0, schedule, generator=seeded(5), levels=LogNormalLevels())
    # redo by hand with the same draws
    generator = seeded(5)
    sigma = LogNormalLevels().draw(3, schedule, generator)
    y, e = perturb(y0, sigma, schedule, generator=generator)
    a = schedule.scale(sigma).reshape(3, 1, 1, 1)
    s = sigma.reshape(3, 1, 1, 1)
    assert torch.allclose(y, a * (y0 + s * e))
    by_hand = ((a * s) ** 2 * (score(y, sigma, None) + e / (a * s)) ** 2).flatten(1).mean(1)
    assert torch.allclose(found.per_field, by_hand)
    assert torch.allclose(found.loss, by_hand.mean())
    assert torch.allclose(found.denoised, (y + (a * s) ** 2 * score(y, sigma, None)) / a)


@pytest.mark.parametrize(
    "weighting", [NoiseVariance(), MaximumLikelihood(), DenoiserVariance(0.7)], ids=lambda w: type(w).__name__
)
def test_weights(weighting):
    # A zero score costs lambda / (a sigma)^2 times the mean square of the noise.
    schedule = VarianceExploding(0.1, 2)
    sigma = torch.tensor([0.5], dtype=torch.float64)
    ratio = float(weighting.at(sigma, schedule) / sigma**2)
    truth = {"NoiseVariance": 1.0, "MaximumLikelihood": 2 * math.log(20), "DenoiserVariance": (0.25 + 0.49) / 0.49}
    assert ratio == pytest.approx(truth[type(weighting).__name__])
    y0 = torch.zeros(4000, 1, 1, dtype=torch.float64)
    zero = lambda y, s, c: torch.zeros_like(y)  # noqa: E731
    plain = denoising_score_matching(zero, y0, schedule, levels=DiscreteTimes(2), generator=seeded())
    found = denoising_score_matching(zero, y0, schedule, levels=DiscreteTimes(2), weighting=weighting, generator=seeded())
    factor = weighting.at(plain.sigma, schedule) / plain.sigma**2
    assert torch.allclose(found.per_field, factor * plain.per_field)


def test_the_true_score_minimises_the_loss():
    schedule = VarianceExploding(0.1, 5)
    exact = MixtureScore(MEAN, COVARIANCE, None, schedule)
    draws = torch.distributions.MultivariateNormal(MEAN[0], COVARIANCE[0])
    torch.manual_seed(0)
    y0 = draws.sample((20_000,))

    def loss(score):
        return float(denoising_score_matching(score, y0, schedule, generator=seeded(1)).loss)

    best = loss(exact)
    # the excess over the minimum is E lambda |s - s*|^2: +- a perturbation of size c costs c^2, to first order nothing
    for direction in (lambda y, s: 1 / s[:, None], lambda y, s: y / (1 + s[:, None] ** 2)):
        up, down = (loss(lambda y, s, c, k=k, f=direction: exact(y, s) + k * f(y, s)) for k in (0.1, -0.1))
        assert up > best
        assert down > best
        assert (up + down) / 2 - best > 10 * abs(up - down) / 20


def test_training_finds_the_gaussian_score():
    schedule = VarianceExploding(0.2, 3)
    data = MEAN.float() + torch.randn(4000, 2, generator=seeded()) @ torch.linalg.cholesky(COVARIANCE[0]).float().T

    class Flat(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = MLP(32, 2).build(3, 2, generator=seeded(1))

        def forward(self, x, level, condition):
            return self.net(torch.cat([x, level[:, None]], 1))

    score = PreconditionedScore(Flat(), schedule, data_deviation=1.0)
    generator = seeded(2)

    def step(_):
        batch = data[torch.randint(4000, (256,), generator=generator)]
        return denoising_score_matching(score, batch, schedule, levels=UniformTimes(True), generator=generator).loss, {}

    Training(steps=250, learning_rate=1e-2).run(score.parameters(), step)
    exact = MixtureScore(MEAN.float(), COVARIANCE.float(), None, schedule)
    sigma = torch.tensor([0.3, 1.0, 2.5]).repeat_interleave(200)
    y, _ = perturb(data[:600], sigma, schedule, generator=seeded(3))
    with torch.no_grad():
        error = (sigma[:, None] * (score(y, sigma, None) - exact(y, sigma))).square().mean()
    assert float(error) < 0.01  # a zero score would have an error near 0.7


def test_untrained_preconditioned_score_is_the_gaussian_one():
    for schedule in SCHEDULES.values():
        zero = lambda x, level, condition: torch.zeros_like(x)  # noqa: E731
        score = PreconditionedScore(zero, schedule, data_deviation=0.7, data_mean=0.2)
        exact = MixtureScore([[0.2, 0.2]], 0.49 * torch.eye(2)[None], None, schedule)
        y, sigma = torch.randn(5, 2, generator=seeded()), torch.tensor([0.05, 0.3, 1.0, 4.0, 30.0])
        assert torch.allclose(score(y, sigma), exact(y, sigma), rtol=1e-4, atol=1e-6)


SAMPLERS = {
    "reverse diffusion": PredictorCorrector(200, 1, 0.05),
    "ancestral": PredictorCorrector(150, 0, predictor=Ancestral()),
    "euler-maruyama": EulerMaruyama(300),
    "heun": ProbabilityFlow(48),
    "churned": EulerMaruyama(300, churn=0.5),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_reproduce_a_gaussian(name, schedule):
    n = 3000
    score = MixtureScore(MEAN, COVARIANCE, None, SCHEDULES[schedule])
    x = SAMPLERS[name].draw(score, (n, 2), SCHEDULES[schedule], generator=seeded(4), dtype=torch.float64)
    # Monte Carlo errors: sqrt(C_ii / n) of means, about C sqrt(2 / n) of variances; four of them, and 2.5 % for the steps
    assert (x.mean(0) - MEAN[0]).abs().max() < 4 / math.sqrt(n) + 0.01
    assert (torch.cov(x.T) - COVARIANCE[0]).abs().max() < 4 * math.sqrt(2 / n) + 0.025


def test_samplers_find_both_modes():
    schedule = VarianceExploding(0.01, 80)  # wide enough that the start's mean, 2 off, is forgotten
    means = torch.tensor([[-4.0, 0.0], [4.0, 1.0]], dtype=torch.float64)
    C = torch.tensor([0.25, 1.0], dtype=torch.float64)[:, None, None] * torch.eye(2, dtype=torch.float64)
    score = MixtureScore(means, C, [0.25, 0.75], schedule)
    for sampler in (PredictorCorrector(150, 0, predictor=Ancestral()), ProbabilityFlow(48)):
        x = sampler.draw(score, (6000, 2), schedule, generator=seeded(), dtype=torch.float64)
        left = x[:, 0] < 0
        assert float(left.double().mean()) == pytest.approx(0.25, abs=0.025)
        assert torch.allclose(x[left].mean(0), means[0], atol=0.06)
        assert torch.allclose(x[~left].mean(0), means[1], atol=0.06)
        assert torch.allclose(x[left].var(0), C[0].diagonal(), atol=0.04)
        assert torch.allclose(x[~left].var(0), C[1].diagonal(), atol=0.09)


def test_probability_flow_is_the_linear_map_of_gaussians_at_second_order():
    # x(0.01) = m + sqrt((v + 1e-4) / (v + 2500)) (x(50) - m) in one dimension
    schedule, v, m = VarianceExploding(0.01, 50), 2.0, 3.0
    score = MixtureScore(torch.tensor([[m]], dtype=torch.float64), torch.tensor([[[v]]], dtype=torch.float64), None, schedule)
    start = torch.linspace(-80, 80, 9, dtype=torch.float64)[:, None]
    truth = m + math.sqrt((v + 1e-4) / (v + 2500)) * (start - m)
    errors = []
    for steps in (33, 65, 129):
        end = ProbabilityFlow(steps, denoise=False).draw(score, (9, 1), schedule, start=start)
        errors.append(float((end - truth).abs().max()))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.25)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.15)
    euler = [
        float((ProbabilityFlow(k, heun=False, denoise=False).draw(score, (9, 1), schedule, start=start) - truth).abs().max())
        for k in (129, 257)
    ]
    assert euler[0] / euler[1] == pytest.approx(2, rel=0.15)


def test_conditions_reach_the_score_row_by_row():
    # s(y, sigma, c) of N(c, 1): each draw must land around its own condition
    schedule = VarianceExploding(0.01, 50)

    def score(y, sigma, c):
        return (c - y) / (1 + sigma[:, None].square())

    c = torch.tensor([-5.0, 0.0, 7.0]).repeat_interleave(1000)[:, None]
    x = PredictorCorrector(80, 0, predictor=Ancestral()).draw(score, (3000, 1), schedule, c, generator=seeded())
    assert x.dtype == torch.float32
    means = x.reshape(3, 1000).mean(1)
    assert torch.allclose(means, torch.tensor([-5.0, 0.0, 7.0]), atol=0.13)
    guided = GuidedScore(score, 1.0)  # 2 s(y|c) - s(y|0) is the score of N(2c, 1)
    y, sigma = torch.tensor([[1.0]]), torch.tensor([0.5])
    assert torch.allclose(guided(y, sigma, torch.tensor([[3.0]])), score(y, sigma, torch.tensor([[6.0]])))
    with pytest.raises(ValueError, match="needs a condition"):
        guided(y, sigma, None)


@pytest.mark.parametrize(
    "sampler", [PredictorCorrector(20), EulerMaruyama(20), ProbabilityFlow(10)], ids=lambda s: type(s).__name__
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_seeds_and_precision(sampler, dtype):
    schedule = VarianceExploding(0.01, 50)
    score = MixtureScore(MEAN.to(dtype), COVARIANCE.to(dtype), None, schedule)
    first, again, other = (sampler.draw(score, (5, 2), schedule, generator=seeded(k), dtype=dtype) for k in (1, 1, 2))
    assert first.dtype == dtype
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_bad_calls():
    schedule = VarianceExploding()
    score = MixtureScore(MEAN, COVARIANCE, None, schedule)
    sampler = ProbabilityFlow(4)
    with pytest.raises(ValueError, match="at least one field"):
        sampler.draw(score, (3,), schedule)
    with pytest.raises(ValueError, match="condition is for 2 fields"):
        sampler.draw(score, (3, 2), schedule, torch.zeros(2, 1))
    with pytest.raises(ValueError, match=r"start has shape \(2, 2\)"):
        sampler.draw(score, (3, 2), schedule, start=torch.zeros(2, 2))
    with pytest.raises(ValueError, match="returns"):
        sampler.draw(lambda y, s, c: y[:, :1], (3, 2), schedule)
    with pytest.raises(NumericalError, match="not finite at noise level 50"):
        sampler.draw(lambda y, s, c: y * math.nan, (3, 2), schedule)
    y0 = torch.zeros(2, 1, 2, 2)
    with pytest.raises(ValueError, match="condition is for 3"):
        denoising_score_matching(lambda y, s, c: y, y0, schedule, torch.zeros(3, 1, 2, 2))
    with pytest.raises(ValueError, match="non-finite"):
        denoising_score_matching(lambda y, s, c: y, y0 * math.nan, schedule)
    with pytest.raises(TypeError, match="mask must be boolean"):
        denoising_score_matching(lambda y, s, c: y, y0, schedule, mask=torch.ones(2, 1, 2, 2))
    with pytest.raises(ValueError, match="no valid entry"):
        denoising_score_matching(lambda y, s, c: y, y0, schedule, mask=torch.zeros(2, 1, 2, 2, dtype=torch.bool))
