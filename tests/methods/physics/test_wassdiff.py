"""Distribution-regularised score matching: its terms by hand, its axes, masks, bad inputs and the whole door."""

import math

import pytest
import torch

from discrepancy import EnergyDistance, SlicedWasserstein, Wasserstein, cite
from discrepancy.directions import Uniform
from discrepancy.dynamics import (
    Ancestral,
    LogNormalLevels,
    MixtureScore,
    PreconditionedScore,
    PredictorCorrector,
    VarianceExploding,
    denoising_score_matching,
)
from discrepancy.learning import Training
from discrepancy.methods.physics.field_axes import AllLevels, BatchOfFields, BelowLevel, InverseNoise, Patches, Pixels
from discrepancy.methods.physics.wassdiff import DistributionRegularizedScoreMatching
from discrepancy.networks import UNet

SCHEDULE = VarianceExploding(0.01, 5)


def seeded(k=0):
    return torch.Generator().manual_seed(k)


def linear(y, sigma, condition):
    """The score of N(0.3, 1) data, so that denoised fields are (y + 0.3 sigma^2) / (1 + sigma^2)."""
    return (0.3 - y) / (1 + sigma.reshape(-1, 1, 1, 1).square())


def fields(n=6, side=4, dtype=torch.float64):
    return torch.randn(n, 1, side, side, generator=seeded(), dtype=dtype).abs()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weight_zero_is_plain_score_matching(dtype):
    y0 = fields(dtype=dtype)
    model = DistributionRegularizedScoreMatching(linear, SCHEDULE, weight=0.0)
    found = model(y0, generator=seeded(3))
    plain = denoising_score_matching(linear, y0, SCHEDULE, generator=seeded(3))
    assert torch.equal(found.loss, plain.loss)
    assert found.loss.dtype == dtype
    assert found.distribution is None


@pytest.mark.parametrize("weight", [0.2, 1.0])
def test_both_terms_by_hand(weight):
    y0 = fields()
    found = DistributionRegularizedScoreMatching(linear, SCHEDULE, weight=weight)(y0, generator=seeded(3))
    plain = denoising_score_matching(linear, y0, SCHEDULE, generator=seeded(3))
    s = plain.sigma.reshape(-1, 1, 1, 1)
    yhat = plain.noisy + s**2 * linear(plain.noisy, plain.sigma, None)
    by_hand = (yhat.flatten(1).sort(-1).values - y0.flatten(1).sort(-1).values).abs().mean(1).mean()
    assert torch.allclose(found.distribution, by_hand)
    assert torch.allclose(found.loss, (1 - weight) * plain.loss + weight * by_hand)


def test_a_term_without_noise_in_the_way():
    # data all 0.3: the score of N(0.3, 1) is not theirs; with that of a point the denoised fields are exact, and both agree
    y0 = torch.full((4, 1, 3, 3), 0.3, dtype=torch.float64)

    def point(y, sigma, condition):
        return (0.3 - y) / sigma.reshape(-1, 1, 1, 1).square()

    found = DistributionRegularizedScoreMatching(point, SCHEDULE)(y0, generator=seeded())
    assert float(found.score) < 1e-12
    assert float(found.distribution) < 1e-12
    dry = DistributionRegularizedScoreMatching(lambda y, s, c: (0.5 - y) / s.reshape(-1, 1, 1, 1) ** 2, SCHEDULE)(
        torch.zeros(4, 1, 3, 3, dtype=torch.float64), generator=seeded()
    )
    assert float(dry.distribution) == pytest.approx(0.5)  # all dry: W_1 is the mean of the denoised field


def test_gradients_flow_through_the_denoised_field():
    y0 = fields(3, 3)
    shift = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)

    def value(b):
        score = lambda y, s, c: linear(y, s, c) + b / (1 + s.reshape(-1, 1, 1, 1))  # noqa: E731
        return DistributionRegularizedScoreMatching(score, SCHEDULE, weight=0.7)(y0, generator=seeded(2)).loss

    (slope,) = torch.autograd.grad(value(shift), shift)
    h = 1e-6
    difference = (value(shift.detach() + h) - value(shift.detach() - h)) / (2 * h)
    assert torch.allclose(slope, difference, rtol=1e-6)
    # the score term alone has another derivative
    alone = denoising_score_matching(
        lambda y, s, c: linear(y, s, c) + shift / (1 + s.reshape(-1, 1, 1, 1)), y0, SCHEDULE, generator=seeded(2)
    )
    assert abs(float(torch.autograd.grad(0.3 * alone.loss, shift)[0] - slope)) > 1e-3


def test_masked_pixels_count_nowhere():
    y0 = fields(5, 4)
    mask = torch.rand(5, 1, 4, 4, generator=seeded(1)) > 0.4
    spoiled = torch.where(mask, y0, torch.full_like(y0, -1.0))
    for filler in (-1.0, math.nan, 1e9):
        spoiled = torch.where(mask, y0, torch.full_like(y0, filler))
        found = DistributionRegularizedScoreMatching(linear, SCHEDULE)(spoiled, mask=mask, generator=seeded(4))
        clean = DistributionRegularizedScoreMatching(linear, SCHEDULE)(torch.where(mask, y0, 0.0), mask=mask, generator=seeded(4))
        assert torch.equal(found.loss, clean.loss)
    # by hand: the valid values of each field, sorted
    plain = denoising_score_matching(linear, torch.where(mask, y0, 0.0), SCHEDULE, mask=mask, generator=seeded(4))
    distances = [(plain.denoised[i][mask[i]].sort().values - y0[i][mask[i]].sort().values).abs().mean() for i in range(5)]
    assert torch.allclose(found.distribution, torch.stack(distances).mean())
    s = plain.sigma.reshape(-1, 1, 1, 1)
    e = (plain.noisy - torch.where(mask, y0, 0.0)) / s
    errors = (s * plain.score + e).square()
    assert torch.allclose(plain.per_field, torch.stack([errors[i][mask[i]].mean() for i in range(5)]))


def test_tail_compares_upper_quantiles_only():
    x = torch.arange(20.0, dtype=torch.float64).reshape(1, 1, 4, 5)
    y = x.clone()
    y[x < 15] += 100  # below the tail of x, above it in y
    ones = torch.ones(1, dtype=torch.float64)
    found = Pixels(tail=0.75).compare(x, y, Wasserstein(1), None, ones)
    assert float(found) == pytest.approx(float((y.flatten().sort().values[-5:] - torch.arange(15.0, 20.0)).mean()))
    # a tail between two points takes a part of the lower one: upper 22.5 % of 20 points are 4.5 points
    part = Pixels(tail=0.775).compare(x, 0 * x, Wasserstein(1), None, ones)
    assert float(part) == pytest.approx((19 + 18 + 17 + 16 + 0.5 * 15) / 4.5)
    mask = torch.ones_like(x, dtype=torch.bool)
    assert torch.allclose(Pixels(tail=0.775).compare(x, 0 * x, Wasserstein(1), mask, ones), part)
    assert float(Pixels(tail=0.0).compare(x, x + 1, Wasserstein(1), None, ones)) == pytest.approx(1)


def test_relevance():
    sigma = torch.tensor([0.1, 0.5, 1.0, 2.0], dtype=torch.float64)
    assert AllLevels().at(sigma).tolist() == [1, 1, 1, 1]
    assert BelowLevel(0.6).at(sigma).tolist() == [1, 1, 0, 0]
    assert torch.allclose(InverseNoise(2.0).at(sigma), 1 / (1 + sigma**2 / 4))
    x, y = fields(4), fields(4) + torch.arange(4.0)[:, None, None, None]
    for axis in (Pixels(), Patches(2, 2)):
        D = Wasserstein(1) if isinstance(axis, Pixels) else EnergyDistance()
        single = torch.stack(
            [axis.compare(x[i : i + 1], y[i : i + 1], D, None, torch.ones(1, dtype=torch.float64)) for i in range(4)]
        )
        for relevance in (BelowLevel(0.6), InverseNoise(2.0)):
            w = relevance.at(sigma)
            assert torch.allclose(axis.compare(x, y, D, None, w), (w * single).mean())
    # no relevant field: the term is zero and so is its gradient
    z = x.clone().requires_grad_()
    for axis in (Pixels(), Pixels(pooled=True), Patches(2, 2)):
        value = axis.compare(z, y, EnergyDistance(), None, torch.zeros(4, dtype=torch.float64))
        assert float(value.detach()) == 0
        assert float(torch.autograd.grad(value, z)[0].abs().max()) == 0


def test_pooled_pixels_and_batches_against_direct_calls():
    x, y = fields(9), fields(9).flip(0) * 1.5 + 0.1
    ones = torch.ones(9, dtype=torch.float64)
    pooled = Pixels(pooled=True).compare(x, y, Wasserstein(1), None, ones)
    assert torch.allclose(pooled, Wasserstein(1)(x.reshape(-1, 1), y.reshape(-1, 1)))
    D = SlicedWasserstein(1, Uniform(30))
    batch = BatchOfFields().compare(x, y, D, None, ones, seeded(2))
    assert torch.equal(batch, D(x.flatten(1), y.flatten(1), generator=seeded(2)))
    w = InverseNoise(1.0).at(torch.linspace(0.1, 3, 9, dtype=torch.float64))
    weighted = BatchOfFields().compare(x, y, EnergyDistance(), None, w)
    assert torch.allclose(weighted, w.mean() * EnergyDistance()(x.flatten(1), y.flatten(1), w / w.sum(), w / w.sum()))
    by_pixel = Pixels(pooled=True).compare(x, y, Wasserstein(1), None, w)
    spread = (w / w.sum() / 16).repeat_interleave(16)
    assert torch.allclose(by_pixel, w.mean() * Wasserstein(1)(x.reshape(-1, 1), y.reshape(-1, 1), spread, spread))


def test_patches_are_cut_and_masked():
    x, y = fields(2), fields(2) + 1
    mask = torch.ones(2, 1, 4, 4, dtype=torch.bool)
    mask[:, :, 0, 0] = False
    cut = lambda t, i: torch.stack([t[i, 0, r : r + 2, c : c + 2].flatten() for r in (0, 2) for c in (0, 2)])[1:]  # noqa: E731
    truth = torch.stack([EnergyDistance()(cut(x, i), cut(y, i)) for i in range(2)]).mean()
    assert torch.allclose(Patches(2, 2).compare(x, y, EnergyDistance(), mask, torch.ones(2, dtype=torch.float64)), truth)


def test_batches_that_are_too_small():
    y0 = fields(1)
    with pytest.raises(ValueError, match="single field"):
        DistributionRegularizedScoreMatching(linear, SCHEDULE, axis=BatchOfFields())(y0)
    with pytest.warns(UserWarning, match="got 5 fields"):
        DistributionRegularizedScoreMatching(linear, SCHEDULE, axis=BatchOfFields())(fields(5))
    assert math.isfinite(float(DistributionRegularizedScoreMatching(linear, SCHEDULE)(y0).loss))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"weight": -0.1}, ValueError, r"weight must lie in \[0, 1\]"),
        ({"weight": 1.1}, ValueError, r"weight must lie in \[0, 1\]"),
        ({"condition_dropout": 2}, ValueError, "condition_dropout"),
        ({"discrepancy": "wasserstein1"}, TypeError, "discrepancy must be an object"),
        ({"axis": "pixel"}, TypeError, "axis must be an object"),
        ({"relevance": 0.5}, TypeError, "relevance must be an object"),
    ],
)
def test_bad_options(options, error, words):
    with pytest.raises(error, match=words):
        DistributionRegularizedScoreMatching(linear, SCHEDULE, **options)


@pytest.mark.parametrize("bad", [lambda: Pixels(tail=1.0), lambda: Patches(0), lambda: BelowLevel(0), lambda: InverseNoise(-1)])
def test_bad_axes(bad):
    with pytest.raises(ValueError, match="must"):
        bad()


def test_bad_fields():
    model = DistributionRegularizedScoreMatching(linear, SCHEDULE)
    y0 = fields()
    y0[2, 0, 1, 3] = -1
    with pytest.raises(ValueError, match=r"1 value\(s\) below 0, the first -1 at \(2, 0, 1, 3\).*pass mask="):
        model(y0)
    DistributionRegularizedScoreMatching(linear, SCHEDULE, lower=None)(y0)
    y0[2, 0, 1, 3] = math.nan
    with pytest.raises(ValueError, match="non-finite"):
        model(y0)
    with pytest.raises(ValueError, match="spatial size"):
        model(fields(), torch.zeros(6, 1, 2, 2))
    with pytest.raises(ValueError, match="spatial size"):
        model(fields(), torch.zeros(5, 1, 4, 4))
    with pytest.raises(ValueError, match=r"shape \(B, C"):
        model(torch.zeros(4, 4))
    with pytest.raises(TypeError, match="torch module"):
        model.fit(fields())


def test_schedules_of_score_and_loss_agree():
    score = PreconditionedScore(lambda x, level, condition: x, SCHEDULE, data_deviation=0.6)
    assert DistributionRegularizedScoreMatching(score).schedule == SCHEDULE
    assert DistributionRegularizedScoreMatching(linear).schedule == VarianceExploding(0.01, 50)
    with pytest.raises(ValueError, match="was built for VarianceExploding"):
        DistributionRegularizedScoreMatching(score, VarianceExploding(0.01, 6))


def small(seed=0, weight=0.2, **options):
    net = UNet((4, 8), 8, 4).build(1, 1, 1, generator=seeded(seed))
    score = PreconditionedScore(net, SCHEDULE, data_deviation=0.6, data_mean=0.8)
    return DistributionRegularizedScoreMatching(score, SCHEDULE, weight=weight, levels=LogNormalLevels(), **options)


def test_condition_dropout_hides_the_condition():
    seen = []

    def score(y, sigma, condition):
        seen.append(condition)
        return linear(y, sigma, condition)

    model = DistributionRegularizedScoreMatching(score, SCHEDULE, condition_dropout=0.5)
    model(fields(400), torch.ones(400, 2, 4, 4), generator=seeded())
    kept = seen[0].flatten(1)
    assert ((kept == 0).all(1) | (kept == 1).all(1)).all()
    assert float(kept[:, 0].mean()) == pytest.approx(0.5, abs=0.1)


def test_fit_and_sample_through_the_whole_door():
    coarse = (3 * torch.rand(64, 1, 1, 1, generator=seeded())).expand(64, 1, 8, 8)
    y0 = coarse + 0.1 * torch.rand(64, 1, 8, 8, generator=seeded(1))
    runs, losses = [], []
    for _ in range(2):
        model = small()
        losses.append(float(model(y0, coarse, generator=seeded(9)).loss.detach()))
        history = model.fit(
            y0, coarse, training=Training(steps=30, learning_rate=5e-3), batch_size=16, average=0.9, generator=seeded(1)
        )
        drawn = model.sample(
            coarse[:3], 5, sampler=PredictorCorrector(8, 1, predictor=Ancestral()), batch_size=7, generator=seeded(2)
        )
        runs.append((history, drawn))
        losses.append(float(model(y0, coarse, generator=seeded(9)).loss.detach()))  # the same noise as before
    (history, drawn), (again, repeated) = runs
    assert drawn.shape == (5, 3, 1, 8, 8)
    assert history == again
    assert torch.equal(drawn, repeated)
    assert torch.isfinite(drawn).all()
    assert losses[1] < 0.9 * losses[0]
    assert losses[2:] == losses[:2]
    assert "wassdiff" in model.references
    assert "2410.00381" in cite("wassdiff")
    with pytest.raises(ValueError, match="members"):
        model.sample(coarse[:3], 0)


def test_members_carry_the_condition_in_their_rows():
    # a score of N(condition, 0.01^2): member m of row b must lie at the condition of row b
    def score(y, sigma, condition):
        return (condition - y) / (1e-4 + sigma.reshape(-1, 1, 1, 1).square())

    condition = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 1, 2, 2)
    model = DistributionRegularizedScoreMatching(score, SCHEDULE)
    drawn = model.sample(condition, 3, sampler=PredictorCorrector(40, 0, predictor=Ancestral()), batch_size=5, generator=seeded())
    assert torch.allclose(drawn, condition.expand(3, 4, 1, 2, 2), atol=0.1)


def test_posterior_mean_is_narrower_than_the_data():
    # the trap: at large noise the exact score has a positive distance term, which a full weight would train away
    score = MixtureScore(torch.zeros(1, 16, dtype=torch.float64), torch.eye(16, dtype=torch.float64)[None], None, SCHEDULE)
    y0 = torch.randn(300, 1, 4, 4, generator=seeded(), dtype=torch.float64)
    as_field = lambda y, s, c: score(y.flatten(1), s).reshape(y.shape)  # noqa: E731

    def term(relevance):
        model = DistributionRegularizedScoreMatching(
            as_field, SCHEDULE, axis=Pixels(pooled=True), relevance=relevance, levels=LogNormalLevels(0.7, 0.01), lower=None
        )
        return float(model(y0, generator=seeded(1)).distribution)

    # at sigma = 2 the posterior mean is N(0, 1/5): W_1 to N(0, 1) is (1 - sqrt(1/5)) sqrt(2/pi)
    assert term(AllLevels()) == pytest.approx((1 - math.sqrt(1 / (1 + math.exp(1.4)))) * math.sqrt(2 / math.pi), rel=0.05)
    assert term(BelowLevel(0.5)) == 0
