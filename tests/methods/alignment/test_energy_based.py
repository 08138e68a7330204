"""Unnormalised targets: scores, moments by the convex dual against enumeration and planted coefficients, refusals."""

import math

import pytest
import torch

from discrepancy import NumericalError
from discrepancy.divergences import KL, TotalVariation
from discrepancy.language_models import MarkovPolicy, TabularPolicy
from discrepancy.methods.alignment.energy_based import BooleanScorer, EnergyBasedModel, LinearScorer, RewardScorer
from discrepancy.methods.alignment.importance import RunningNormaliser, divergence_to_target
from discrepancy.methods.alignment.moment_targets import fit_moments, tilt_to_moments


def _features(strings):
    return torch.stack([(strings == 0).sum(-1), (strings[:, 0] == 1)], -1).double()


def _chain(seed=0):
    g = torch.Generator().manual_seed(seed)
    rows = torch.randn(4, 3, generator=g, dtype=torch.float64)
    return MarkovPolicy(rows[0], rows[1:], 4)


def test_scores_add_up():
    base = TabularPolicy.from_probs(torch.tensor([0.5, 0.25, 0.25]))
    x = torch.tensor([0, 1, 2])
    target = EnergyBasedModel(
        base,
        (
            BooleanScorer(lambda s: s != 1),
            RewardScorer(lambda s: s.double(), beta=2.0),
            LinearScorer(lambda s: s.double().unsqueeze(-1), torch.tensor([-3.0])),
        ),
    )
    assert target.log_score(x).tolist() == pytest.approx([math.log(0.5), -math.inf, math.log(0.25) + 1 - 6])
    assert not target.log_score(x).requires_grad


def test_exact_tilt_recovers_planted_coefficients():
    strings, log_a = _chain().enumerate()
    phi, planted = _features(strings), torch.tensor([0.8, -1.3], dtype=torch.float64)
    wanted = torch.softmax(log_a.detach() + phi @ planted, 0) @ phi
    fit = tilt_to_moments(phi, wanted, log_a.detach())
    torch.testing.assert_close(fit.coefficients, planted, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(fit.moments, wanted, rtol=0, atol=1e-8)
    assert fit.log_normaliser == pytest.approx(float(torch.logsumexp(log_a.detach() + phi @ planted, 0)), abs=1e-6)
    assert fit.standard_errors is None
    assert fit.outcome.ok


def test_the_tilt_is_the_information_projection():
    strings, log_a = _chain().enumerate()
    log_a, phi = log_a.detach(), _features(strings)
    mu = torch.tensor([1.9, 0.5], dtype=torch.float64)
    fit = tilt_to_moments(phi, mu, log_a)
    p = torch.softmax(log_a + phi @ fit.coefficients, 0)
    best = float(KL().from_probs(p, log_a.exp()))
    # Any other law with the same moments is farther: move along directions that keep sum and moments.
    basis = torch.cat([torch.ones(1, len(p), dtype=torch.float64), phi.T])
    _, _, rows = torch.linalg.svd(basis, full_matrices=True)
    g = torch.Generator().manual_seed(0)
    for _ in range(20):
        move = torch.randn(len(p) - 3, generator=g, dtype=torch.float64) @ rows[3:]
        other = p + 0.3 * move * (p / move.abs().clamp_min(1e-12)).min()
        torch.testing.assert_close(other @ phi, mu, atol=1e-8, rtol=0)
        assert float(KL().from_probs(other, log_a.exp())) > best


def test_sampled_fit_is_within_its_standard_errors():
    base = _chain()
    strings, log_a = base.enumerate()
    mu = torch.tensor([1.6, 0.45], dtype=torch.float64)
    exact = tilt_to_moments(_features(strings), mu, log_a.detach())
    scores = []
    for seed in range(8):
        fit = fit_moments(base, _features, mu, samples=4000, generator=torch.Generator().manual_seed(seed))
        scores.append(((fit.coefficients - exact.coefficients) / fit.standard_errors).tolist())
        assert fit.effective_sample_size > 500
    squares = torch.tensor(scores).square().mean(0)
    assert bool((squares < 3).all())
    assert bool((squares > 0.1).all())
    law = torch.softmax(fit.target.log_score(strings), 0)
    assert (
        float(TotalVariation().from_probs(torch.softmax(log_a.detach() + _features(strings) @ exact.coefficients, 0), law)) < 0.05
    )


def test_collinear_and_large_features():
    strings, log_a = _chain().enumerate()
    phi = _features(strings)
    twice = torch.cat([1e6 * phi, 1e6 * phi[:, :1]], -1)
    mu = torch.tensor([1.6e6, 0.45e6, 1.6e6], dtype=torch.float64)
    fit = tilt_to_moments(twice, mu, log_a.detach())
    torch.testing.assert_close(fit.moments, mu, rtol=1e-7, atol=0)


def test_unreachable_moments():
    strings, log_a = _chain().enumerate()
    phi = _features(strings)
    with pytest.raises(NumericalError, match=r"moment 0 is 9 and the feature lies in \[0, 4\]"):
        tilt_to_moments(phi, torch.tensor([9.0, 0.5]), log_a.detach())
    corner = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.5, 0.5]])
    with pytest.raises(NumericalError, match="convex hull"):
        tilt_to_moments(corner, torch.tensor([0.2, 0.8]))
    triangle = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.2, 0.2]])
    with pytest.raises(NumericalError, match="convex hull"):
        tilt_to_moments(triangle, torch.tensor([0.8, 0.7]))
    assert tilt_to_moments(triangle, torch.tensor([0.3, 0.3])).outcome.ok
    constant = torch.ones(5, 1)
    assert tilt_to_moments(constant, torch.tensor([1.0])).outcome.ok
    with pytest.raises(NumericalError, match="moment 0"):
        tilt_to_moments(constant, torch.tensor([0.5]))


def test_what_is_refused():
    base = TabularPolicy(torch.zeros(3))
    with pytest.raises(TypeError, match="base must offer log_prob"):
        EnergyBasedModel(object())
    with pytest.raises(TypeError, match="wrap a predicate in BooleanScorer"):
        EnergyBasedModel(base, (lambda x: x,))
    with pytest.raises(TypeError, match=r"boolean tensor, got torch\.float32"):
        EnergyBasedModel(base, (BooleanScorer(lambda x: x.float()),)).log_score(torch.tensor([0]))
    with pytest.raises(ValueError, match="log_score is nan at index 1"):
        EnergyBasedModel(base, (RewardScorer(lambda x: torch.tensor([0.0, math.nan])),)).log_score(torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="beta must be positive"):
        RewardScorer(lambda x: x, 0.0)
    with pytest.raises(ValueError, match="finite vector"):
        LinearScorer(lambda x: x, torch.tensor([math.nan]))
    with pytest.raises(ValueError, match=r"features must be \(n, 2\)"):
        LinearScorer(lambda x: x.double().unsqueeze(-1), torch.zeros(2)).log_factor(torch.tensor([0]))
    with pytest.raises(ValueError, match=r"moments must be 1 finite"):
        tilt_to_moments(torch.randn(4, 1), torch.tensor([0.0, 1.0]))
    with pytest.raises(ValueError, match="log_weights must be"):
        tilt_to_moments(torch.randn(4, 1), torch.tensor([0.0]), torch.zeros(3))


def test_running_normaliser_is_the_mean_of_its_window():
    running = RunningNormaliser(2)
    assert running.value == -math.inf
    with pytest.raises(NumericalError, match="warm up Z"):
        running.require()
    zero = torch.zeros(2)
    for z in (100.0, 1.0, 3.0):
        running.update(torch.full((2,), math.log(z)), zero)
    assert running.value == pytest.approx(math.log(2.0))


def test_divergence_to_target_agrees_with_enumeration():
    policy, proposal = _chain(1), _chain(2)
    target = EnergyBasedModel(_chain(0), (RewardScorer(lambda s: (s == 2).sum(-1).double()),))
    strings = policy.strings()
    scores = target.log_score(strings)
    log_z = float(torch.logsumexp(scores, 0))
    for divergence in (KL(), TotalVariation()):
        exact = float(divergence.from_logits(scores, policy.log_prob(strings).detach()))
        for source in (policy, proposal):
            x = source.sample(20_000, torch.Generator().manual_seed(5))
            found = divergence_to_target(
                divergence,
                target.log_score(x),
                policy.log_prob(x),
                log_z,
                proposal_log_probs=None if source is policy else proposal.log_prob(x),
            )
            assert abs(float(found) - exact) < 5 * float(found.standard_error)
