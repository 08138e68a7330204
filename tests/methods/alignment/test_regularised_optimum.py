"""The regularised optimum on finite sets against the card's numbers, a convex solver and finite differences."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from discrepancy.divergences import (
    KL,
    Alpha,
    ChiSquared,
    CustomDivergence,
    Jeffreys,
    JensenShannon,
    LeCam,
    NeymanChiSquared,
    ReverseKL,
    TotalVariation,
)
from discrepancy.methods.alignment import regularised_optimum

REFERENCE = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
REWARDS = torch.tensor([0.0, 1.0, 0.5, 2.0], dtype=torch.float64)
KNOWN = {
    "reverse KL": (ReverseKL(), (0.17512, 0.35702, 0.14436, 0.32349)),
    "forward KL": (KL(), (0.18028, 0.24616, 0.11637, 0.45719)),
    "JS": (2 * JensenShannon(), (0.05427, 0.14426, 0.04905, 0.75242)),
    "alpha": (Alpha(0.5), (0.17726, 0.29869, 0.12755, 0.39651)),
}
MORE = [Jeffreys(), ChiSquared(), LeCam(), NeymanChiSquared(), KL() + 0.5 * LeCam(), Alpha(-0.5), KL().skewed(0.2)]


@pytest.mark.parametrize("name", KNOWN)
def test_the_papers_four(name):
    divergence, wanted = KNOWN[name]
    found = regularised_optimum(REFERENCE, REWARDS, divergence)
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), atol=6e-6, rtol=0)


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("divergence", MORE, ids=repr)
def test_against_a_convex_solver(divergence, scale):
    r = (scale * REWARDS).numpy()

    def loss(x):
        law = np.clip(x, 1e-15, None)
        return -x @ r + float(divergence.from_probs(REFERENCE, torch.from_numpy(law / law.sum())))

    start = np.full(4, 0.25)
    total = {"type": "eq", "fun": lambda x: x.sum() - 1}
    found = minimize(loss, start, bounds=[(1e-12, 1)] * 4, constraints=total, options={"ftol": 1e-14, "maxiter": 500})
    optimum = regularised_optimum(REFERENCE, scale * REWARDS, divergence)
    assert loss(optimum.numpy()) <= found.fun + 1e-9
    np.testing.assert_allclose(optimum.numpy(), found.x, atol=2e-5)


def test_answers_of_low_reward_may_get_nothing():
    found = regularised_optimum(REFERENCE, 5 * REWARDS, NeymanChiSquared())
    assert float(found[0]) == 0
    assert float(found.sum()) == pytest.approx(1)


def test_a_users_generator_and_the_scale_of_beta():
    user = CustomDivergence(lambda t: t * torch.log(t))
    torch.testing.assert_close(
        regularised_optimum(REFERENCE, REWARDS, user), regularised_optimum(REFERENCE, REWARDS, KL()), atol=1e-7, rtol=0
    )
    torch.testing.assert_close(
        regularised_optimum(REFERENCE, REWARDS, 3 * KL(), beta=0.5), regularised_optimum(REFERENCE, REWARDS, KL(), beta=1.5)
    )


@given(seed=st.integers(0, 10_000), beta=st.floats(0.05, 5.0), choice=st.sampled_from([0, 1, 2, 3]))
@settings(max_examples=40, deadline=None)
def test_stationarity(seed, beta, choice):
    """r - beta g'(pi / ref) is one number over all answers."""
    divergence = [ReverseKL(), KL(), 2 * JensenShannon(), Jeffreys()][choice]
    generator = torch.Generator().manual_seed(seed)
    reference = torch.softmax(2 * torch.randn(6, dtype=torch.float64, generator=generator), -1)
    rewards = torch.randn(6, dtype=torch.float64, generator=generator)
    law = regularised_optimum(reference, rewards, divergence, beta=beta)
    assert float(law.sum()) == pytest.approx(1, abs=1e-12)
    multiplier = rewards - beta * divergence.reversed().derivative(law / reference)
    assert float(multiplier.max() - multiplier.min()) < 1e-6


def test_limits_of_beta():
    torch.testing.assert_close(regularised_optimum(REFERENCE, REWARDS, KL(), beta=1e6), REFERENCE, atol=1e-5, rtol=0)
    sharp = regularised_optimum(REFERENCE, REWARDS, ReverseKL(), beta=1e-3)
    torch.testing.assert_close(sharp, torch.tensor([0.0, 0, 0, 1], dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("divergence", [ReverseKL(), KL(), 2 * JensenShannon(), NeymanChiSquared()], ids=repr)
def test_gradients_and_batches(divergence):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    rewards = torch.randn(5, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda a, b: regularised_optimum(torch.softmax(a, -1), b, divergence, beta=0.7), (logits, rewards)
    )
    whole = regularised_optimum(torch.softmax(logits, -1), rewards, divergence)
    row = regularised_optimum(torch.softmax(logits[1], -1), rewards, divergence)
    torch.testing.assert_close(whole[1], row)


def test_dtypes_and_bad_input():
    assert regularised_optimum(REFERENCE.float(), REWARDS.float(), KL()).dtype == torch.float32
    with pytest.raises(TypeError, match="twice differentiable"):
        regularised_optimum(REFERENCE, REWARDS, TotalVariation())
    with pytest.raises(ValueError, match="must be positive: leave out"):
        regularised_optimum([0.5, 0.5, 0.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="one entry an answer"):
        regularised_optimum(REFERENCE, REWARDS[:3])
    with pytest.raises(ValueError, match="beta"):
        regularised_optimum(REFERENCE, REWARDS, beta=-1.0)
    with pytest.raises(ValueError, match="non-finite"):
        regularised_optimum(REFERENCE, [0.0, 1.0, float("nan"), 2.0])
    with pytest.raises(ValueError, match="sum to 1"):
        regularised_optimum(2 * REFERENCE, REWARDS)
