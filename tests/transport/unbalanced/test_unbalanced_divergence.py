"""The unbalanced Sinkhorn divergence against geomloss, a closed form, its definition and finite differences."""

import math

import pytest
import torch
from geomloss import SamplesLoss

from discrepancy.costs import SquaredEuclidean
from discrepancy.testing.gradients import directional_error
from discrepancy.transport import (
    Balanced,
    KLPenalty,
    SinkhornDivergence,
    TotalVariationPenalty,
    UnbalancedNewton,
    UnbalancedSinkhorn,
    UnbalancedSinkhornDivergence,
)

TIGHT = UnbalancedNewton(tolerance=1e-10)


def clouds(n=12, m=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    y = 1.2 * torch.randn(m, 2, generator=generator, dtype=torch.float64) + 0.5
    a = torch.rand(n, generator=generator, dtype=torch.float64)
    b = torch.rand(m, generator=generator, dtype=torch.float64)
    return x, y, 2 * a / a.sum(), 0.7 * b / b.sum()


@pytest.mark.parametrize(("blur", "reach"), [(0.3, 1.0), (0.5, 0.5)])
def test_agrees_with_geomloss(blur, reach):
    """geomloss anneals slowly and stops: its own error is about 5e-5 here."""
    x, y, a, b = clouds()
    want = SamplesLoss("sinkhorn", p=2, blur=blur, reach=reach, scaling=0.999, backend="tensorized")(a, x, b, y)
    got = UnbalancedSinkhornDivergence(2 * blur**2, penalty=KLPenalty(2 * reach**2), solver=TIGHT)(x, y, a, b)
    torch.testing.assert_close(got / 2, want, rtol=1e-4, atol=0)


@pytest.mark.parametrize("penalty", [KLPenalty(0.8), TotalVariationPenalty(1.0)], ids=repr)
def test_is_what_its_definition_says(penalty):
    x, y, a, b = clouds()
    epsilon = 0.2
    V = UnbalancedSinkhorn(epsilon, penalty=penalty, solver=TIGHT)
    mass = epsilon * (a.sum() - b.sum()) ** 2 / 2
    want = V(x, y, a, b) - V(x, x, a, a) / 2 - V(y, y, b, b) / 2 + mass
    got = UnbalancedSinkhornDivergence(epsilon, penalty=penalty, solver=TIGHT)(x, y, a, b)
    torch.testing.assert_close(got, want, atol=1e-8, rtol=1e-8)


def test_two_single_points():
    """V of one point each by its closed form, at three pairs."""
    epsilon, rho, a, b = 0.3, 0.9, 2.0, 0.5

    def value(cost, a, b):
        log_p = (epsilon * math.log(a * b) + rho * math.log(a * b) - cost) / (epsilon + 2 * rho)
        p = math.exp(log_p)

        def kl(p, q):
            return p * math.log(p / q) - p + q

        return p * cost + epsilon * kl(p, a * b) + rho * kl(p, a) + rho * kl(p, b)

    want = value(4.0, a, b) - value(0.0, a, a) / 2 - value(0.0, b, b) / 2 + epsilon * (a - b) ** 2 / 2
    x, y = torch.zeros(1, 1).double(), torch.full((1, 1), 2.0).double()
    D = UnbalancedSinkhornDivergence(epsilon, penalty=KLPenalty(rho), solver=TIGHT)
    assert abs(float(D(x, y, [a], [b])) - want) < 1e-9
    # Far apart nothing is carried: V(x, x) / 2 + V(y, y) / 2 is what remains to be paid.
    assert abs(float(D(x, y + 1e4, [a], [b])) - float(D(x, y + 2e4, [a], [b]))) < 1e-6


def test_zero_at_equality_and_positive_elsewhere():
    x, y, a, b = clouds()
    for penalty in (KLPenalty(1.0), TotalVariationPenalty(1.0)):
        D = UnbalancedSinkhornDivergence(penalty=penalty)
        assert float(D(x, x.clone(), a, a.clone())) == 0
        assert float(D(x, y, a, b)) > 1e-3
        assert float(D(x, x, a, 1.5 * a)) > 1e-3  # mass alone
        torch.testing.assert_close(D(x, y, a, b), D(y, x, b, a), rtol=0, atol=0)


def test_a_hard_penalty_is_the_balanced_divergence():
    x, y, _, _ = clouds()
    got = UnbalancedSinkhornDivergence(0.2, penalty=Balanced(), solver=TIGHT)(x, y)
    torch.testing.assert_close(got, SinkhornDivergence(0.2)(x, y), atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("k", range(4))
def test_gradients(k):
    inputs = clouds(8, 6)
    D = UnbalancedSinkhornDivergence(0.3, penalty=KLPenalty(0.7), solver=UnbalancedNewton(tolerance=1e-12))
    direction = torch.randn(inputs[k].shape, generator=torch.Generator().manual_seed(k), dtype=torch.float64)
    direction = direction * inputs[k].abs().min()

    def value(z):
        return D(*[z if i == k else v for i, v in enumerate(inputs)])

    exact, finite = directional_error(value, inputs[k], direction)
    assert abs(exact - finite) < 1e-7 * max(1, abs(finite))


def test_an_asymmetric_cost_takes_the_general_solver():
    x, y, a, b = clouds(6, 5)

    def skew(u, v):
        return (u - v).square().sum(-1) + 0.3 * (u - v)[..., 0].clamp_min(0)

    D = UnbalancedSinkhornDivergence(0.3, skew, KLPenalty(0.7), TIGHT)
    V = UnbalancedSinkhorn(0.3, skew, KLPenalty(0.7), TIGHT)
    want = V(x, y, a, b) - V(x, x, a, a) / 2 - V(y, y, b, b) / 2 + 0.3 * (a.sum() - b.sum()) ** 2 / 2
    torch.testing.assert_close(D(x, y, a, b), want, atol=1e-8, rtol=1e-8)
    with pytest.raises(TypeError, match="one object for both sides"):
        UnbalancedSinkhornDivergence(penalty=(KLPenalty(1.0), KLPenalty(2.0)), cost=SquaredEuclidean())
