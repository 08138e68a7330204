"""Regret of mixtures by enumeration, weights of balls against exact probabilities, the ensemble against a known posterior."""

from __future__ import annotations

import math
import warnings
from itertools import product

import pytest
import torch
from scipy.stats import chi2, ncx2, norm
from torch import nn

from discrepancy import KL, ConvergenceWarning, JensenShannon, NumericalError
from discrepancy.learning import Training
from discrepancy.learning.langevin import DecayingStep, Langevin
from discrepancy.learning.prior_coordinates import GaussianPrior, PriorCoordinates
from discrepancy.learning.splitting import MultilevelSplitting
from discrepancy.methods.diagnostics.complexity_report import complexity_report
from discrepancy.methods.diagnostics.langevin_ensemble import FittedEnsemble, SGLDEnsemble, trained_point
from discrepancy.methods.diagnostics.outcome_models import BernoulliLogits, CategoricalLogits, Probabilities
from discrepancy.methods.diagnostics.quadratic_forms import log_probability_below
from discrepancy.methods.diagnostics.universality_lens import (
    MixturePredictor,
    bernoulli,
    effective_dimension,
    finite_weight_curve,
    online_regret,
    regret_bound,
    regular_log_weight,
)
from discrepancy.methods.diagnostics.weight_curves import LaplaceWeight, PriorSampling, fisher_spectrum, weight_curve


def _seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_regret_by_enumeration_of_all_sequences():
    truth = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
    P = torch.tensor([[0.4, 0.4, 0.2], [0.6, 0.0, 0.4], [0.1, 0.1, 0.8]], dtype=torch.float64)
    w = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    n, total = 4, 0.0
    for word in product(range(3), repeat=n):
        p, q = truth[list(word)].prod(), (w * P[:, list(word)].prod(1)).sum()
        total += float(p * (p / q).log())
    assert online_regret(truth, P, w, n=n) == pytest.approx(total / n, rel=1e-12)
    # Duplicating a hypothesis at the same total weight changes nothing.
    twice, halves = torch.cat([P, P[:1]]), torch.tensor([0.1, 0.5, 0.3, 0.1], dtype=torch.float64)
    assert online_regret(truth, twice, halves, n=n) == pytest.approx(total / n, rel=1e-12)
    assert online_regret(truth, P[1:2], n=n) == math.inf
    assert online_regret([1.0, 0.0], [[0.5, 0.5]], n=3) == pytest.approx(math.log(2))


def test_the_coin_has_the_numbers_of_the_card():
    for K, value, bound in ((10, 0.01675, 0.0225), (1000, 0.01675, 0.0288)):
        rates = bernoulli((torch.arange(K, dtype=torch.float64) + 0.5) / K)
        assert online_regret([0.7, 0.3], rates, n=100) == pytest.approx(value, abs=1e-4)
        found = regret_bound(finite_weight_curve([0.7, 0.3], rates), 100)
        assert found.value == pytest.approx(bound, abs=1e-4)
        assert found.value == pytest.approx(found.epsilon - found.log_weight / 100)
    rates = bernoulli(torch.tensor([0.3, *(k / 100 for k in range(1, 100))], dtype=torch.float64))
    for weight, value in ((0.5, 0.00477), (1e-3, 0.01659)):
        prior = torch.tensor([weight] + [(1 - weight) / 99] * 99, dtype=torch.float64)
        assert online_regret([0.7, 0.3], rates, prior, n=100) == pytest.approx(value, abs=1e-5)


def test_the_ball_is_around_the_truth_in_its_own_direction():
    # KL(truth || k): the second hypothesis excludes what the truth can draw and is in no ball, the reverse would be finite.
    curve = finite_weight_curve([0.5, 0.5], [[0.5, 0.5], [1.0, 0.0]], [0.25, 0.75])
    assert curve.epsilons == (0.0,)
    assert curve.log_weights == pytest.approx((math.log(0.25),))
    none = regret_bound(finite_weight_curve([0.5, 0.5], [[1.0, 0.0]]), 10)
    assert none.value == math.inf
    assert "no hypothesis" in none.note
    other = finite_weight_curve([0.5, 0.5], [[0.4, 0.6], [1.0, 0.0]], divergence=JensenShannon())
    assert len(other.epsilons) == 2
    assert not other.bounds_regret
    assert "no bound" in regret_bound(other, 10).note


def test_mixtures_average_probabilities():
    predictor = MixturePredictor.of([0.25, 0.75])
    p = torch.tensor([[0.9, 0.1], [0.2, 0.6]], dtype=torch.float64)
    torch.testing.assert_close(predictor.predict_log_prob(p.log()).exp(), p @ torch.tensor([0.25, 0.75], dtype=torch.float64))
    posterior = predictor.updated(torch.tensor([[0.5, 0.1], [0.5, 0.9]]).log())
    weight = torch.tensor([0.25 * 0.25, 0.75 * 0.09])
    torch.testing.assert_close(posterior.log_weights.exp(), weight / weight.sum())
    far = predictor.updated([-1e4, -2e4])
    assert far.log_weights.tolist() == pytest.approx([0.0, -1e4 + math.log(3)])
    with pytest.raises(ValueError, match="sum to 1"):
        MixturePredictor.of([0.5, 0.6])
    torch.testing.assert_close(MixturePredictor.of([1.0, 3.0], renormalise=True).log_weights, predictor.log_weights)
    with pytest.raises(ValueError, match="non-negative"):
        MixturePredictor.of([-0.5, 1.5])
    with pytest.raises(ValueError, match="probability zero"):
        predictor.updated([-math.inf, -math.inf])


def test_regular_weights_are_those_of_an_ellipsoid():
    # A Gaussian location family: KL = |theta|^2 / 2 in two dimensions, W = P(|z|^2 <= 2 eps) = 1 - exp(-eps).
    eps = 1e-4
    assert regular_log_weight(eps, -math.log(2 * math.pi), [1.0, 1.0]) == pytest.approx(math.log(-math.expm1(-eps)), abs=1e-4)
    assert regular_log_weight(eps, -math.log(2 * math.pi), [4.0, 1.0]) == pytest.approx(math.log(eps / 2), abs=1e-4)
    assert effective_dimension([1e9, 1e9, 0.0, 1e-9], 100) == pytest.approx(2, abs=1e-6)
    with pytest.raises(ValueError, match="positive eigenvalues"):
        regular_log_weight(eps, 0.0, [1.0, 0.0])


@pytest.mark.parametrize(("r", "tolerance"), [(1, 0.14), (3, 0.05), (20, 0.01)])
def test_saddlepoints_against_chi_squared(r, tolerance):
    for level in (1e-4, 0.1, r / 2, float(r)):
        for centre, law in ((0.0, chi2(r)), (1.0, ncx2(r, r))):
            found = log_probability_below(level, torch.ones(r), torch.full((r,), centre))
            assert found == pytest.approx(law.logcdf(2 * level), abs=tolerance)
    scaled = log_probability_below(0.5, torch.tensor([2.0, 2.0]), torch.zeros(2))
    assert scaled == pytest.approx(chi2(2).logcdf(0.5), abs=0.05)


def test_splitting_finds_tail_probabilities():
    draws = _seeded(1)

    def draw(count):
        return torch.randn(count, 20, generator=draws, dtype=torch.float64)

    found = MultilevelSplitting().run(lambda z: -z[:, 0], draw, [-1.0, -4.0, -6.0], _seeded(2))
    for level, value, error in zip((1, 4, 6), found.log_probabilities, found.standard_errors, strict=True):
        assert value == pytest.approx(norm.logsf(level), abs=4 * error + 0.1)
    ball = MultilevelSplitting().run(lambda z: z.square().sum(1), draw, [0.5], _seeded(3))
    assert ball.log_probabilities[0] == pytest.approx(chi2(20).logcdf(0.5), abs=1.5)
    with pytest.warns(ConvergenceWarning, match="least score is 1"):
        none = MultilevelSplitting(max_levels=5).run(lambda z: torch.ones(len(z)), draw, [0.5], _seeded())
    assert none.log_probabilities == (-math.inf,)
    for bad in ({"particles": 5}, {"keep": 1.0}, {"moves": 0}, {"replicates": 1}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            MultilevelSplitting(**bad)


def _line(bias=True):
    return nn.Linear(1, 1, bias=bias).double()


def test_weights_of_a_logistic_rule_by_three_methods_and_quadrature():
    # One parameter: W(eps) is the normal probability of an interval, found on a fine grid.
    x, truth = torch.linspace(-1, 1, 11, dtype=torch.float64)[:, None], 0.7
    model = _line(bias=False)
    with torch.no_grad():
        model.weight.fill_(truth)
    theta = torch.linspace(-8, 8, 400_001, dtype=torch.float64)
    p = torch.sigmoid(truth * x[:, 0])
    far = torch.zeros_like(theta)
    for xi, pi in zip(x[:, 0], p, strict=True):
        u = theta * xi
        far -= (pi * nn.functional.logsigmoid(u) + (1 - pi) * nn.functional.logsigmoid(-u)) / len(x)
    far -= far.min()
    inside = theta[far <= 0.01]
    exact = math.log(float(torch.special.ndtr(inside[-1]) - torch.special.ndtr(inside[0])))
    for method, tolerance in ((PriorSampling(8_000), 0.1), (MultilevelSplitting(), 0.3), (LaplaceWeight(), 0.15)):
        curve = weight_curve(
            model, x, BernoulliLogits(), teacher=model, epsilons=(0.01, 10.0), method=method, generator=_seeded()
        )
        assert curve.log_weights[0] == pytest.approx(exact, abs=tolerance)
        assert curve.log_weights[1] == pytest.approx(0.0, abs=1e-3)
        assert curve.bounds_regret


def test_what_no_draw_reaches_has_a_limit_and_a_warning():
    x, labels = torch.randn(20, 1, generator=_seeded()).double(), torch.zeros(20, dtype=torch.long)
    probabilities = torch.tensor([1 - 1e-12, 1e-12]).expand(20, 2)
    with pytest.warns(ConvergenceWarning, match="nearest"):
        curve = weight_curve(
            _line(False), x, BernoulliLogits(), teacher=probabilities, epsilons=(1e-6,), method=PriorSampling(400)
        )
    assert curve.log_weights == (-math.inf,)
    assert curve.upper[0] == pytest.approx(math.log(-math.expm1(math.log(0.025) / 400)))
    assert regret_bound(curve, 10).value == math.inf
    with pytest.warns(ConvergenceWarning, match="no particle"):
        split = weight_curve(
            _line(False),
            x,
            BernoulliLogits(),
            teacher=probabilities,
            epsilons=(1e-6, 5.0),
            method=MultilevelSplitting(particles=20, replicates=2, max_levels=3),
        )
    assert split.log_weights[0] == -math.inf
    assert split.upper[0] <= 0
    with pytest.warns(UserWarning, match="not of JensenShannon"):
        swapped = weight_curve(
            _line(),
            x,
            BernoulliLogits(),
            teacher=probabilities,
            epsilons=(0.7,),
            divergence=JensenShannon(),
            method=PriorSampling(100),
        )
    assert not swapped.bounds_regret
    excess = weight_curve(_line(), x, BernoulliLogits(), labels=labels, method=PriorSampling(500), epsilons=(0.1, 3.0))
    assert excess.log_weights[1] > excess.log_weights[0]


def test_the_sampler_reaches_a_known_posterior():
    # A density: N(1, 1/4) by its gradient. The constant step's variance is (1/4) / (1 - a h / 4) with curvature h = 4.
    sampler = Langevin(step=0.05, burn_in=200, samples=100, thinning=5)
    kept = sampler.run(lambda z: -4 * (z - 1), torch.zeros(400, dtype=torch.float64), _seeded())
    assert float(kept.mean()) == pytest.approx(1, abs=0.01)
    assert float(kept.var()) == pytest.approx(0.25 / (1 - 0.05), abs=0.008)
    again = sampler.run(lambda z: -4 * (z - 1), torch.zeros(400, dtype=torch.float64), _seeded())
    assert torch.equal(kept, again)
    with pytest.raises(NumericalError, match="too large"):
        Langevin(step=10.0, burn_in=1000).run(lambda z: -4 * z, torch.ones(3, dtype=torch.float64), _seeded())
    assert DecayingStep(0.1, 10, 0.5)(30) == pytest.approx(0.05)
    for bad in (0.0, -1.0):
        with pytest.raises(ValueError, match="step"):
            Langevin(step=bad)


@pytest.mark.parametrize("batch", [None, 10])
def test_an_ensemble_predicts_as_the_posterior_by_quadrature(batch):
    x = torch.linspace(-2, 2, 40, dtype=torch.float64)[:, None]
    y = (x[:, 0] + 0.3 * torch.randn(40, generator=_seeded(4), dtype=torch.float64) > 0).long()
    theta = torch.linspace(-15, 15, 3001, dtype=torch.float64)
    sign = (2 * y - 1).double()
    log_post = nn.functional.logsigmoid(theta[:, None] * x[:, 0] * sign).sum(1) - theta.square() / (2 * 9)
    weight = torch.softmax(log_post, 0)
    at = torch.tensor([[0.5], [-1.0]], dtype=torch.float64)
    exact = weight @ torch.sigmoid(theta[:, None] * at[:, 0])
    sampler = Langevin(step=0.01, burn_in=400, samples=60, thinning=20)
    ensemble = SGLDEnsemble(BernoulliLogits(), GaussianPrior(3.0), sampler, chains=20, batch_size=batch)
    fitted = ensemble.fit(_line(False), x, y, generator=_seeded())
    torch.testing.assert_close(fitted.predict_proba(at)[:, 1], exact, atol=0.02, rtol=0)
    assert fitted.members.shape == (1200, 1)


def test_ensembles_average_probabilities_and_distil():
    model = _line()
    coordinates = PriorCoordinates(model)
    members = torch.tensor([[10.0, 0.0], [-10.0, 0.0]], dtype=torch.float64)
    fitted = FittedEnsemble(coordinates, members, BernoulliLogits())
    at = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    torch.testing.assert_close(fitted.predict_proba(at), torch.full((2, 2), 0.5, dtype=torch.float64))
    assert fitted.log_loss(at, [0, 1]) == pytest.approx(math.log(2))
    torch.testing.assert_close(coordinates.outputs(coordinates.point()[None], at)[0], model(at))
    torch.testing.assert_close(coordinates.module_at(members[0])(at), 10 * at)
    one = FittedEnsemble(coordinates, torch.tensor([[2.0, 0.5]], dtype=torch.float64), BernoulliLogits())
    x = torch.linspace(-2, 2, 30, dtype=torch.float64)[:, None]
    for divergence in (KL(), JensenShannon()):
        student = _line()
        one.distilled(student, x, divergence=divergence, training=Training(steps=200, learning_rate=0.1))
        assert float(student.weight.detach()) == pytest.approx(2.0, abs=0.05)
        assert float(student.bias.detach()) == pytest.approx(0.5, abs=0.05)


def test_the_maximum_a_posteriori_and_the_likelihood():
    x = torch.tensor([[1.0], [1.0], [1.0], [-1.0]], dtype=torch.float64)
    y = torch.tensor([1, 1, 0, 0])  # three of four right at x = sign: the likelihood's maximum is log 3
    fast = Training(steps=300, learning_rate=0.1)
    free = trained_point(_line(False), x, y, BernoulliLogits(), prior_weight=0.0, training=fast, generator=_seeded())
    assert float(free.members) == pytest.approx(math.log(3), abs=1e-3)
    bound = trained_point(_line(False), x, y, BernoulliLogits(), training=fast, generator=_seeded())
    z = float(bound.members)
    assert 4 * (0.75 - 1 / (1 + math.exp(-z))) == pytest.approx(z, abs=1e-3)  # gradient of the log posterior is zero


def test_fisher_spectrum_and_report():
    x = torch.randn(30, 2, generator=_seeded()).double()
    model = nn.Linear(2, 1).double()
    values, centre = fisher_spectrum(model, x, BernoulliLogits())
    p = torch.sigmoid(model(x)).detach()
    design = torch.cat([x / 2**0.5, torch.ones(30, 1).double()], 1)  # weights have prior deviation 1/sqrt 2, the bias 1
    F = design.T @ (p * (1 - p) * design) / 30
    torch.testing.assert_close(values.sort().values, torch.linalg.eigvalsh(F))
    assert float(centre.norm()) == pytest.approx(float(PriorCoordinates(model).point().norm()))
    wide = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    teacher = torch.full((30, 2), 0.5, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        rows = complexity_report(
            {"line": model, "net": wide},
            x,
            BernoulliLogits(),
            n=20,
            teacher=teacher,
            method=PriorSampling(500),
            generator=_seeded(),
        )
    assert [r.bound.value for r in rows] == sorted(r.bound.value for r in rows)
    assert {r.name: r.parameters for r in rows} == {"line": 3, "net": 33}
    with pytest.raises(ValueError, match="models is empty"):
        complexity_report({}, x, BernoulliLogits(), n=20, teacher=teacher)


def test_bad_input_one_by_one():
    x, y = torch.randn(10, 1, generator=_seeded()).double(), torch.ones(10, dtype=torch.long)
    for n in (0, -3):
        with pytest.raises(ValueError, match="n must be"):
            online_regret([0.5, 0.5], [[0.5, 0.5]], n=n)
        with pytest.raises(ValueError, match="n must be"):
            regret_bound(finite_weight_curve([0.5, 0.5], [[0.5, 0.5]]), n)
    with pytest.raises(ValueError, match="types"):
        online_regret([0.1] * 10, [[0.1] * 10], n=100)
    with pytest.raises(ValueError, match="sum to 1"):
        online_regret([0.5, 0.6], [[0.5, 0.5]], n=3)
    with pytest.raises(TypeError, match="likelihood must say"):
        SGLDEnsemble(None)
    with pytest.raises(TypeError, match="likelihood must say"):
        weight_curve(_line(), x, None, labels=y)
    with pytest.raises(ValueError, match="no probabilities"):
        Probabilities().log_probs(torch.tensor([[2.0, -1.0]]))
    torch.testing.assert_close(
        Probabilities(0.1).log_probs(torch.tensor([[1.0, 0.0]])).exp(), torch.tensor([[1 / 1.1, 0.1 / 1.1]])
    )
    with pytest.raises(ValueError, match="BernoulliLogits"):
        CategoricalLogits().log_probs(torch.zeros(3, 1))
    with pytest.raises(ValueError, match="floor"):
        Probabilities(0.5)
    with pytest.raises(ValueError, match="a teacher or labels"):
        weight_curve(_line(), x, BernoulliLogits())
    with pytest.raises(ValueError, match="must ascend"):
        weight_curve(_line(), x, BernoulliLogits(), labels=y, epsilons=(0.2, 0.1))
    with pytest.raises(ValueError, match="teacher must be probabilities"):
        weight_curve(_line(), x, BernoulliLogits(), teacher=torch.ones(3, 2) / 2)
    with pytest.raises(ValueError, match="3 outcomes and the network 2"):
        weight_curve(_line(), x, BernoulliLogits(), teacher=torch.ones(10, 3) / 3, method=PriorSampling(10))
    with pytest.raises(TypeError, match="curvature of KL"), pytest.warns(UserWarning, match="not of JensenShannon"):
        weight_curve(_line(), x, BernoulliLogits(), teacher=_line(), method=LaplaceWeight(), divergence=JensenShannon())
    ensemble = SGLDEnsemble(BernoulliLogits(), sampler=Langevin(burn_in=1, samples=1, thinning=1))
    with pytest.raises(ValueError, match="class 2 and the network 2"):
        ensemble.fit(_line(), x, y + 1)
    with pytest.raises(ValueError, match="class numbers"):
        ensemble.fit(_line(), x, y.double())
    with pytest.raises(ValueError, match="for each of the 10"):
        ensemble.fit(_line(), x, y[:3])
    with pytest.raises(ValueError, match="no trainable"):
        PriorCoordinates(nn.Tanh())
    with pytest.raises(NumericalError, match="too large"):
        SGLDEnsemble(BernoulliLogits(), GaussianPrior(1e3), Langevin(step=1e9)).fit(_line(), x, y)
    with pytest.raises(ValueError, match="std"):
        GaussianPrior(0.0)
