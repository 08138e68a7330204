"""Closed forms against integrals on a grid, and Monte Carlo against closed forms."""

import itertools
import math

import numpy as np
import pytest
import torch
from divergence_table import EVERY
from torch import distributions as td

from discrepancy import (
    KL,
    Alpha,
    ChiSquared,
    Jeffreys,
    JensenShannon,
    NeymanChiSquared,
    NumericalError,
    ReverseKL,
    SquaredHellinger,
)
from discrepancy.divergences import InfiniteDivergenceWarning, closed_form

POWERS = [
    KL(),
    ReverseKL(),
    Jeffreys(),
    Alpha(0.3),
    Alpha(1.4),
    SquaredHellinger(),
    ChiSquared(),
    NeymanChiSquared(),
    2 * KL() + Alpha(0.5),
]


def d(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("D", POWERS, ids=repr)
def test_normal_laws_by_quadrature(D):
    P, Q = td.Normal(d(0.3), d(1.1)), td.Normal(d(-0.2), d(1.3))
    z = torch.linspace(-40, 40, 400001, dtype=torch.float64)
    log_t = P.log_prob(z) - Q.log_prob(z)
    want = torch.trapezoid(Q.log_prob(z).exp() * D.generator(log_t=log_t), z)
    got = D.between(P, Q)
    assert got.value.shape == (1,)
    assert got.value.item() == pytest.approx(want.item(), rel=1e-9)
    assert got.standard_error == 0.0
    assert D.between(P, P).value.item() == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("D", POWERS, ids=repr)
def test_multivariate_normal_laws(D):
    m, s, r, u = d(0.2, -0.1), d(0.9, 1.2), d(-0.1, 0.4), d(1.1, 1.3)
    full = D.between(td.MultivariateNormal(m, torch.diag(s**2)), td.MultivariateNormal(r, torch.diag(u**2))).value
    diagonal = D.between(td.Independent(td.Normal(m, s), 1), td.Independent(td.Normal(r, u), 1)).value
    mixed = D.between(td.MultivariateNormal(m, torch.diag(s**2)), td.Independent(td.Normal(r, u), 1)).value
    torch.testing.assert_close(full, diagonal)
    torch.testing.assert_close(full, mixed)
    # Invariance under a common affine map, and the integral on a grid for correlated laws.
    A = d(1.0, 0.5, -0.3, 2.0).reshape(2, 2)
    P = td.MultivariateNormal(A @ m, A @ torch.diag(s**2) @ A.T)
    Q = td.MultivariateNormal(A @ r, A @ torch.diag(u**2) @ A.T)
    torch.testing.assert_close(D.between(P, Q).value, full, rtol=1e-10, atol=1e-12)
    axis = torch.linspace(-13, 13, 801, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    P, Q = (
        td.MultivariateNormal(m, d(1.0, 0.3, 0.3, 0.8).reshape(2, 2)),
        td.MultivariateNormal(r, d(0.9, -0.1, -0.1, 0.7).reshape(2, 2)),
    )
    want = (Q.log_prob(z).exp() * D.generator(log_t=P.log_prob(z) - Q.log_prob(z))).sum() * (axis[1] - axis[0]) ** 2
    assert D.between(P, Q).value.item() == pytest.approx(want.item(), rel=1e-7)


def test_gaussian_gradients_and_infinite_powers():
    m, s = d(0.4).requires_grad_(), d(0.8).requires_grad_()
    for D in POWERS:
        assert torch.autograd.gradcheck(lambda m, s, D=D: D.between(td.Normal(m, s), td.Normal(d(0.0), d(1.0))).value, (m, s))
    wide = td.Normal(d(0.0, 0.0), d(1.0, 1.5))
    with pytest.warns(InfiniteDivergenceWarning):
        value = ChiSquared().between(wide, td.Normal(d(0.0, 0.0), d(1.0, 1.0))).value
    assert value.tolist() == [0.0, math.inf]  # finite if and only if the variance of P is below twice that of Q
    # Next to equality, where the printed form has lost every digit.
    got = KL().between(td.Normal(d(0.0), d(1 + 1e-9)), td.Normal(d(0.0), d(1.0))).value
    assert got.item() == pytest.approx(1e-18, rel=1e-6)


@pytest.mark.parametrize("D", EVERY, ids=repr)
def test_discrete_laws(D):
    p, q = torch.randn(2, 3, 4, dtype=torch.float64).softmax(-1)
    want = D.from_probs(p, q)
    for left, right in itertools.product(
        (td.Categorical(probs=p), td.Categorical(logits=p.log())), (td.Categorical(probs=q), td.Categorical(logits=q.log() + 2))
    ):
        torch.testing.assert_close(D.between(left, right).value, want, rtol=1e-9, atol=1e-14)
    b = D.between(td.Bernoulli(probs=p[:, 0]), td.Bernoulli(logits=torch.logit(q[:, 0]))).value
    torch.testing.assert_close(b, D.from_probs(torch.stack([p[:, 0], 1 - p[:, 0]]), torch.stack([q[:, 0], 1 - q[:, 0]]), dim=0))


def test_zeros_of_a_categorical_are_kept():
    P, Q = td.Categorical(probs=d(0.5, 0.5, 0.0)), td.Categorical(probs=d(0.5, 0.0, 0.5))
    with pytest.warns(InfiniteDivergenceWarning):
        assert KL().between(P, Q).value.item() == math.inf
    assert JensenShannon().between(P, Q).value.item() == pytest.approx(math.log(2) / 2)


def test_torch_families_and_the_refusal():
    P, Q = td.Gamma(d(2.0), d(1.0)), td.Gamma(d(3.0), d(1.5))
    assert KL().between(P, Q).value == td.kl_divergence(P, Q)
    assert ReverseKL().between(P, Q).value == td.kl_divergence(Q, P)
    assert (2 * KL()).between(P, Q).value == 2 * td.kl_divergence(P, Q)
    with pytest.raises(TypeError, match=r"no closed form of JensenShannon\(\) between Normal and Normal.*from_log_ratio"):
        JensenShannon().between(td.Normal(0.0, 1.0), td.Normal(1.0, 1.0))
    with pytest.raises(TypeError, match="no closed form"):
        KL().between(td.Gamma(1.0, 1.0), "normal")
    with pytest.raises(ValueError, match="3 categories and Q has 2"):
        KL().between(td.Categorical(probs=torch.ones(3) / 3), td.Categorical(probs=torch.ones(2) / 2))


def test_other_packages_can_add_pairs():
    class Point:
        def __init__(self, at):
            self.at = at

    closed_form(JensenShannon, Point, Point)(lambda D, P, Q: torch.tensor(math.log(2) if P.at != Q.at else 0.0))
    assert (3 * JensenShannon()).between(Point(0), Point(1)).value.item() == pytest.approx(3 * math.log(2))


@pytest.mark.parametrize("D", [*POWERS[:6], POWERS[-1]], ids=repr)
def test_monte_carlo_covers_the_closed_form(D):
    P, Q = td.Normal(d(0.0), d(1.0)), td.Normal(d(0.3), d(1.1))
    truth = D.between(P, Q).value.item()
    generator = torch.Generator().manual_seed(3)
    z = 0.3 + 1.1 * torch.randn(400, 2000, generator=generator, dtype=torch.float64)
    got = D.from_log_ratio(P.log_prob(z) - Q.log_prob(z))
    assert got.value.shape == (400,)
    covered = ((got.low <= truth) & (truth <= got.high)).double().mean().item()
    assert 0.92 <= covered <= 0.98
    assert got.value.std().item() == pytest.approx(got.standard_error.square().mean().sqrt().item(), rel=0.15)
    assert got.value.mean().item() == pytest.approx(truth, abs=4 * got.value.std().item() / 20)


def test_monte_carlo_weights_control_variate_and_dtype():
    log_r = torch.tensor([0.2, -0.5, 0.1, 0.9], dtype=torch.float64, requires_grad=True)
    w = d(0.1, 0.2, 0.3, 0.4)
    t = log_r.detach().exp()
    got = KL().from_log_ratio(log_r, w, linear=0.7)
    assert got.value.item() == pytest.approx((w * (t * t.log() - t + 1 + 0.7 * (t - 1))).sum().item())
    (grad,) = torch.autograd.grad(got.value, log_r)
    torch.testing.assert_close(grad, w * t * (t.log() + 0.7))
    # -1 on ReverseKL is exactly -log t, at any size of the ratio.
    far = torch.tensor([2000.0, -2000.0, 5.0])
    assert ReverseKL().from_log_ratio(far, linear=-1).value.item() == pytest.approx(-5 / 3)
    assert ReverseKL().from_log_ratio(far).value.dtype == torch.float32
    assert JensenShannon().from_log_ratio(torch.tensor([100.0, -100.0])).value.item() > 1e38
    # Twice the same sample at half the weight is the same estimate.
    x = np.random.default_rng(0).normal(size=50)
    twice = KL().from_log_ratio(np.concatenate([x, x]), np.full(100, 0.01))
    assert twice.value.item() == pytest.approx(KL().from_log_ratio(x).value.item())


def test_monte_carlo_says_when_the_error_is_not_to_be_trusted():
    assert "one sample carries" in KL().from_log_ratio(d(*[0.0] * 50, 9.0)).note
    single = KL().from_log_ratio(d(0.3))
    assert single.standard_error is None
    assert "no standard error" in single.note
    endless = KL().from_log_ratio(d(0.3, math.inf))
    assert endless.value.item() == math.inf
    assert endless.standard_error is None
    with pytest.raises(ValueError, match="1 NaN of 2"):
        KL().from_log_ratio(d(0.1, math.nan))
    with pytest.raises(NumericalError, match="opposite signs"):
        SquaredHellinger().from_log_ratio(d(0.1, 2000.0), linear=-0.5)
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        KL().from_log_ratio(d(0.1), level=95)
