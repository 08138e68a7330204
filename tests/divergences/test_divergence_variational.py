"""Variational bounds: equality at the optimal critic, never above elsewhere, errors that cover."""

import math

import pytest
import torch
from divergence_table import COMPOSED, EVERY
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributions as td

from discrepancy import KL, ChiSquared, JensenShannon, Renyi, ReverseKL
from discrepancy.divergences import donsker_varadhan, optimal_critic, variational_bound, variational_estimate

float64 = torch.float64


def laws(seed, k=6):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(2, k, generator=draw, dtype=float64).softmax(-1)


@pytest.mark.parametrize("D", EVERY + COMPOSED, ids=repr)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=6, deadline=None)
def test_equality_at_the_optimal_critic_and_a_bound_elsewhere(D, seed):
    p, q = laws(seed)
    value = D.from_probs(p, q).item()
    best = optimal_critic(D, (p / q).log())
    assert variational_bound(D, best, best, p, q).item() == pytest.approx(value, rel=1e-7, abs=1e-10)
    noise = torch.randn(6, generator=torch.Generator().manual_seed(seed + 1), dtype=float64)
    for scale in (0.01, 0.1):
        other = best - scale * noise.abs()  # stays below f'(inf)
        assert variational_bound(D, other, other, p, q).item() <= value + 1e-10


@given(seed=st.integers(0, 10_000), shift=st.floats(-500, 500))
@settings(max_examples=20, deadline=None)
def test_donsker_varadhan(seed, shift):
    p, q = laws(seed)
    value, best = KL().from_probs(p, q).item(), (p / q).log()
    assert donsker_varadhan(best + shift, best + shift, p, q).item() == pytest.approx(value, rel=1e-9, abs=1e-11)
    other = torch.randn(6, generator=torch.Generator().manual_seed(seed + 1), dtype=float64)
    assert donsker_varadhan(other, other, p, q).item() <= value + 1e-12
    assert donsker_varadhan(other, other, p, q).item() >= variational_bound(KL(), other, other, p, q).item() - 1e-12


def test_gradients_and_the_optimum_is_stationary():
    p, q = laws(3)
    for D in (KL(), ReverseKL(), JensenShannon(), ChiSquared()):
        best = optimal_critic(D, (p / q).log()).requires_grad_()
        assert torch.autograd.gradcheck(lambda t, D=D: variational_bound(D, t - 0.1, t - 0.1, p, q), best)
        (grad,) = torch.autograd.grad(variational_bound(D, best, best, p, q), best)
        assert float(grad.abs().max()) < 1e-10
    t = torch.randn(6, dtype=float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: donsker_varadhan(t, t, p, q), t)


def test_estimates_cover_the_bound_of_their_critic():
    P, Q = td.Normal(torch.tensor(0.5).double(), 1.0), td.Normal(torch.tensor(0.0).double(), 1.2)
    draw = torch.Generator().manual_seed(0)
    x = 0.5 + torch.randn(300, 400, generator=draw, dtype=float64)
    y = 1.2 * torch.randn(300, 500, generator=draw, dtype=float64)

    def log_r(z):
        return P.log_prob(z) - Q.log_prob(z)

    for D in (KL(), JensenShannon()):
        truth = D.between(P, Q).value.item() if isinstance(D, KL) else _integral(D, P, Q)
        got = variational_estimate(D, optimal_critic(D, log_r(x)), optimal_critic(D, log_r(y)))
        assert got.value.shape == (300,)
        covered = ((got.low <= truth) & (truth <= got.high)).double().mean().item()
        assert 0.9 <= covered <= 0.99
        assert got.value.std().item() == pytest.approx(got.standard_error.mean().item(), rel=0.15)
        assert "below the divergence" in got.note
    assert donsker_varadhan(log_r(x), log_r(y)).mean().item() == pytest.approx(KL().between(P, Q).value.item(), abs=0.01)


def _integral(D, P, Q):
    z = torch.linspace(-30, 30, 100001, dtype=float64)
    return float(torch.trapezoid(Q.log_prob(z).exp() * D.generator(log_t=P.log_prob(z) - Q.log_prob(z)), z))


def test_weights_infinite_values_and_refusals():
    t = torch.tensor([0.1, -0.4, 0.2], dtype=float64)
    w = torch.tensor([0.5, 0.5, 0.0], dtype=float64)
    assert variational_bound(KL(), t, t, w, w).item() == pytest.approx(variational_bound(KL(), t[:2], t[:2]).item())
    # A critic above f'(inf) = 1 of ReverseKL on Q: the bound is -inf, and the other values keep their gradient.
    high = torch.tensor([0.1, 1.5], dtype=float64, requires_grad=True)
    value = variational_bound(ReverseKL(), t, high)
    assert value.item() == -math.inf
    (grad,) = torch.autograd.grad(value, high)
    assert bool(torch.isfinite(grad).all())
    assert variational_estimate(ReverseKL(), t, high.detach()).standard_error is None
    assert variational_estimate(KL(), t[:1], t).note.startswith("no standard error")
    assert donsker_varadhan(torch.tensor([1e4]), torch.tensor([1e4, -1e4])).item() == pytest.approx(math.log(2), abs=1e-3)
    with pytest.raises(TypeError, match="needs an FDivergence"):
        variational_bound(Renyi(2), t, t)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="values_q has 1 NaN of 2"):
        variational_bound(KL(), t, torch.tensor([0.0, math.nan]))
    with pytest.raises(ValueError, match="critic at samples"):
        donsker_varadhan(torch.zeros(0), t)
    with pytest.raises(ValueError, match="make them broadcast"):
        variational_bound(KL(), torch.zeros(2, 3), torch.zeros(4, 3))
    with pytest.raises(ValueError, match="weights_p must sum to 1"):
        variational_bound(KL(), t, t, w * 2)
