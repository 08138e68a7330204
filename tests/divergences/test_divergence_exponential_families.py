"""Closed forms between parametric families against integrals by quadrature and sums over the support."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import distributions as td

from discrepancy import (
    KL,
    Alpha,
    Bregman,
    CauchySchwarz,
    ChiSquared,
    Hoelder,
    HoelderPseudo,
    Jeffreys,
    JensenShannon,
    NeymanChiSquared,
    NumericalError,
    Renyi,
    ReverseKL,
    SquaredHellinger,
    Tsallis,
)
from discrepancy.directions.von_mises_fisher import VonMisesFisher
from discrepancy.divergences import AlphaBeta, InfiniteDivergenceWarning


def d(*values):
    return torch.tensor(values, dtype=torch.float64)


def pair(family, *parameters):
    return tuple(family(*(torch.tensor(v, dtype=torch.float64) for v in row)) for row in parameters)


# Two laws of a family, and the interval or the values over which to integrate.
CONTINUOUS = {
    "normal": (pair(td.Normal, (0.3, 1.1), (-0.2, 1.3)), (-30, 30)),
    "gamma": (pair(td.Gamma, (2.5, 1.0), (3.2, 1.5)), (0, 60)),
    "exponential": (pair(td.Exponential, (1.3,), (0.9,)), (0, 80)),
    "exponential and gamma": ((td.Exponential(d(1.3)[0]), td.Gamma(d(1.4)[0], d(1.6)[0])), (0, 80)),
    "chi2": (pair(td.Chi2, (3.0,), (4.5,)), (0, 300)),
    "beta": (pair(td.Beta, (2.0, 3.0), (1.7, 2.2)), (0, 1)),
    "laplace": (pair(td.Laplace, (0.4, 1.2), (0.4, 0.8)), (-200, 0.4, 200)),
    "half-normal": (pair(td.HalfNormal, (1.2,), (0.9,)), (0, 20)),
    "von mises": (pair(td.VonMises, (0.4, 2.0), (1.5, 0.7)), (-math.pi, math.pi)),
    "log-normal": (pair(td.LogNormal, (0.1, 0.5), (0.3, 0.6)), (1e-4, 1, 400)),
}
DISCRETE = {
    "poisson": (pair(td.Poisson, (2.3,), (3.1,)), 120),
    "geometric": (pair(td.Geometric, (0.4,), (0.55,)), 400),
    "negative binomial": (pair(td.NegativeBinomial, (3.0, 0.35), (3.0, 0.5)), 400),
    "binomial": (pair(td.Binomial, (7.0, 0.35), (7.0, 0.5)), 8),
}
POWERS = [
    KL(),
    ReverseKL(),
    Jeffreys(),
    Alpha(0.3),
    Alpha(1.2),
    Alpha(-0.2),
    SquaredHellinger(),
    ChiSquared(),
    NeymanChiSquared(),
    2 * KL() + Alpha(0.5),
    Renyi(0.4),
    Renyi(1),
    Renyi(1.3),
    Renyi(0.7).reversed(),
    Tsallis(0.6),
    Tsallis(1),
    Tsallis(1.2),
]
DENSITIES = [
    CauchySchwarz(),
    Hoelder(1.7, 1.4),
    HoelderPseudo(1.6),
    AlphaBeta(1.0, 1.0),
    AlphaBeta(0.5, 0.7),
    AlphaBeta(0.3, 0.7),
    Bregman(),
]


def total(law_pair, where, integrand):
    """The integral or sum of integrand(log p, log q)."""
    P, Q = law_pair
    if callable(where):  # a rule of the caller's own
        return where(integrand)
    if isinstance(where, int):
        x = torch.arange(where, dtype=torch.float64)
        return float(integrand(P.log_prob(x), Q.log_prob(x)).sum())
    # The double-exponential rule: exact to rounding for integrands that are analytic inside, whatever they do at the ends.
    t = torch.linspace(-4.2, 4.2, 3001, dtype=torch.float64)
    parts = []
    for low, high in pairwise(where):
        left = (high - low) / (1 + torch.exp(-math.pi * torch.sinh(t)))  # the distance from the lower end
        right = (high - low) / (1 + torch.exp(math.pi * torch.sinh(t)))
        weight = math.pi * torch.cosh(t) * left * right / (high - low) * (t[1] - t[0])
        x = torch.where(left < right, low + left, high - right)
        inside = (x > low) & (x < high)
        x, weight = x[inside], weight[inside]
        parts.append(float((weight * integrand(P.log_prob(x), Q.log_prob(x))).sum()))
    return math.fsum(parts)


def by_definition(D, law_pair, where):
    """The textbook definition, on log densities."""

    def integral(a, b):
        return total(law_pair, where, lambda p, q: torch.exp(a * p + b * q))

    if isinstance(D, CauchySchwarz):
        return math.log(integral(2, 0)) + math.log(integral(0, 2)) - 2 * math.log(integral(1, 1))
    if isinstance(D, Hoelder):
        a, g = D.alpha, D.gamma
        b = a / (a - 1)
        return math.log(integral(g, 0)) / a + math.log(integral(0, g)) / b - math.log(integral(g / a, g / b))
    if isinstance(D, HoelderPseudo):
        a = D.alpha
        b = a / (a - 1)
        return math.log(integral(a, 0)) / a + math.log(integral(0, b)) / b - math.log(integral(1, 1))
    if isinstance(D, AlphaBeta):
        a, b = D.alpha, D.beta
        s = a + b
        return -(integral(a, b) - a / s * integral(s, 0) - b / s * integral(0, s)) / (a * b)
    if isinstance(D, Bregman):
        return total(law_pair, where, lambda p, q: (p.exp() - q.exp()) ** 2)
    if isinstance(D, Renyi) and D.order != 1:
        return math.log(integral(D.order, 1 - D.order)) / (D.order - 1)
    if isinstance(D, Tsallis) and D.order != 1:
        return (integral(D.order, 1 - D.order) - 1) / (D.order - 1)
    if isinstance(D, Renyi | Tsallis):
        D = KL()
    if not hasattr(D, "generator"):  # a reversed Renyi divergence
        return math.log(integral(1 - D.base.order, D.base.order)) / (D.base.order - 1)
    return total(law_pair, where, lambda p, q: q.exp() * D.generator(log_t=p - q))


EVERYWHERE = {**CONTINUOUS, **DISCRETE}


@pytest.mark.parametrize("D", POWERS, ids=repr)
@pytest.mark.parametrize("family", EVERYWHERE)
def test_power_divergences(D, family):
    laws, where = EVERYWHERE[family]
    got = D.between(*laws)
    assert got.value.item() == pytest.approx(by_definition(D, laws, where), rel=2e-7, abs=1e-11)
    assert got.standard_error == 0.0
    assert D.between(laws[0], laws[0]).value.item() == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize("D", DENSITIES, ids=repr)
@pytest.mark.parametrize("family", [f for f in EVERYWHERE if f not in ("log-normal", "negative binomial")])
def test_divergences_that_read_the_densities(D, family):
    laws, where = EVERYWHERE[family]
    if family == "poisson" and D not in (CauchySchwarz(), AlphaBeta(1.0, 1.0), AlphaBeta(0.3, 0.7), Bregman()):
        with pytest.raises(TypeError, match="no closed form"):  # its carrier 1/k! is not one
            D.between(*laws)
        return
    assert D.between(*laws).value.item() == pytest.approx(by_definition(D, laws, where), rel=2e-7, abs=1e-11)


@pytest.mark.parametrize("D", [D for D in POWERS + DENSITIES if KL() != D], ids=repr)
def test_dirichlet_and_correlated_normal_laws_on_a_grid(D):
    laws = (td.Dirichlet(d(2.0, 3.0, 2.5)), td.Dirichlet(d(2.4, 2.2, 3.0)))
    # Gauss-Legendre on the triangle: polynomials to fractional powers at the edges limit the accuracy.
    x, w = np.polynomial.legendre.leggauss(160)
    x, w = torch.from_numpy((x + 1) / 2), torch.from_numpy(w / 2)
    a = x[:, None].expand(160, 160)
    b = (1 - x)[:, None] * x
    points = torch.stack([a, b, 1 - a - b], -1).reshape(-1, 3)
    mass = (w[:, None] * w * (1 - x)[:, None]).reshape(-1)
    assert D.between(*laws).value.item() == pytest.approx(_on_points(D, laws, points, mass), rel=2e-5)
    laws = (
        td.MultivariateNormal(d(0.3, -0.2), d(1.0, 0.3, 0.3, 0.8).reshape(2, 2)),
        td.MultivariateNormal(d(-0.1, 0.1), d(0.9, -0.1, -0.1, 0.7).reshape(2, 2)),
    )
    axis = torch.linspace(-13, 13, 521, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    mass = torch.full((len(points),), float(axis[1] - axis[0]) ** 2, dtype=torch.float64)
    assert D.between(*laws).value.item() == pytest.approx(_on_points(D, laws, points, mass), rel=1e-7)


def _on_points(D, laws, points, mass):
    P, Q = (law.log_prob(points) for law in laws)
    return by_definition(D, laws, lambda integrand: float((mass * integrand(P, Q)).sum()))


@pytest.mark.parametrize("dimension", [2, 3, 5])
def test_von_mises_fisher(dimension):
    mean = torch.zeros(2, dimension, dtype=torch.float64)
    mean[0, 0], mean[1, 0], mean[1, 1] = 1.0, math.cos(0.8), math.sin(0.8)
    P, Q = VonMisesFisher(mean[0], d(3.0)[0]), VonMisesFisher(mean[1], d(1.2)[0])
    generator = torch.Generator().manual_seed(0)
    z = Q.sample((400_000,), generator=generator)
    log_r = P.log_prob(z) - Q.log_prob(z)
    for D in (KL(), ReverseKL(), Alpha(0.4), ChiSquared(), Renyi(0.5), Renyi(1.7), Tsallis(1.5)):
        simulated = D.from_log_ratio(log_r)
        assert abs(D.between(P, Q).value.item() - float(simulated)) < 4.5 * float(simulated.standard_error)
        assert D.between(P, P).value.item() == pytest.approx(0, abs=1e-13)
    if dimension == 2:  # the circle: von Mises laws
        left, right = td.VonMises(d(0.0)[0], d(3.0)[0]), td.VonMises(d(0.8)[0], d(1.2)[0])
        for D in (KL(), Renyi(0.5), ChiSquared(), CauchySchwarz(), Hoelder(3, 2)):
            assert D.between(P, Q).value.item() == pytest.approx(D.between(left, right).value.item(), rel=1e-10)
    a, b = P.log_prob(z).exp(), Q.log_prob(z)
    cross, own, other = (float((t / b.exp()).mean()) for t in (a * b.exp(), a * a, b.exp() ** 2))
    want = math.log(own) + math.log(other) - 2 * math.log(cross)
    assert CauchySchwarz().between(P, Q).value.item() == pytest.approx(want, rel=0.02)


@pytest.mark.parametrize("D", [*POWERS, CauchySchwarz(), Hoelder(1.7, 1.4)], ids=repr)
def test_independent_components(D):
    shape, rate = d(2.5, 3.0, 1.8), d(1.0, 1.2, 0.9)
    P, Q = td.Independent(td.Gamma(shape, rate), 1), td.Independent(td.Gamma(shape + 0.4, rate * 1.1), 1)
    parts = [(td.Gamma(shape[i], rate[i]), td.Gamma(shape[i] + 0.4, rate[i] * 1.1)) for i in range(3)]
    got = D.between(P, Q).value.item()
    additive = not hasattr(D, "powers") and not isinstance(D, Tsallis)
    if additive or D in (KL(), ReverseKL(), Jeffreys()):
        want = math.fsum(D.between(*laws).value.item() for laws in parts)  # additive
    else:
        return_to = dict.fromkeys(D.powers() if hasattr(D, "powers") else {}, 1.0)
        if not return_to:
            return
        want = 0.0
        for a, c in D.powers().items():
            if a == 1:
                want += c * math.fsum(KL().between(*laws).value.item() for laws in parts)
            elif a == 0:
                want += c * math.fsum(ReverseKL().between(*laws).value.item() for laws in parts)
            else:
                product = math.prod(1 + a * (a - 1) * Alpha(a).between(*laws).value.item() for laws in parts)
                want += c * (product - 1) / (a * (a - 1))
    assert got == pytest.approx(want, rel=1e-10)


def test_independent_bernoulli_laws_are_their_product():
    p, q = d(0.2, 0.6), d(0.35, 0.5)
    P, Q = td.Independent(td.Bernoulli(p), 1), td.Independent(td.Bernoulli(q), 1)
    joint = [torch.stack([(1 - t[0]) * (1 - t[1]), (1 - t[0]) * t[1], t[0] * (1 - t[1]), t[0] * t[1]]) for t in (p, q)]
    for D in (KL(), Renyi(0.3), ChiSquared(), CauchySchwarz(), Tsallis(2), SquaredHellinger()):
        assert D.between(P, Q).value.item() == pytest.approx(D.from_probs(*joint).item(), rel=1e-12)
    one, other = td.Independent(td.Bernoulli(d(1.0, 0.5)), 1), td.Independent(td.Bernoulli(d(0.0, 0.5)), 1)
    with pytest.warns(InfiniteDivergenceWarning):
        assert Renyi(0.5).between(one, other).value.item() == math.inf
    assert SquaredHellinger().between(one, other).value.item() == 1.0


def test_binomial_laws_of_other_counts():
    P, Q = td.Binomial(3, probs=d(0.4)[0]), td.Binomial(5, probs=d(0.3)[0])
    k = torch.arange(6, dtype=torch.float64)
    q = Q.log_prob(k).exp()
    p = torch.cat([P.log_prob(k[:4]).exp(), torch.zeros(2, dtype=torch.float64)])
    for D in (KL(), JensenShannon(), Renyi(0.0), CauchySchwarz()):
        assert D.between(P, Q).value.item() == pytest.approx(D.from_probs(p, q).item(), rel=1e-12)
    with pytest.warns(InfiniteDivergenceWarning):
        assert KL().between(Q, P).value.item() == math.inf


def test_a_poisson_law_of_rate_zero_sits_at_zero():
    P, Q = td.Poisson(d(0.0)), td.Poisson(d(2.0))
    # P is a point mass where Q has e^-2.
    for D in (KL(), Renyi(0), Renyi(0.5), Renyi(2)):
        assert D.between(P, Q).value.item() == pytest.approx(2.0)
    assert SquaredHellinger().between(Q, P).value.item() == pytest.approx(1 - math.exp(-1))
    for D in (KL(), Renyi(1.5)):
        with pytest.warns(InfiniteDivergenceWarning):
            assert D.between(Q, P).value.item() == math.inf
        assert D.between(P, P).value.item() == 0


def test_integrals_that_diverge_are_infinite_and_not_wrong():
    cases = [
        (ChiSquared(), td.Exponential(d(1.0)), td.Exponential(d(2.5))),  # 2 * 1.0 - 2.5 < 0
        (Renyi(2), td.Gamma(d(1.0), d(1.0)), td.Gamma(d(2.5), d(1.0))),  # shape 2 * 1 - 2.5 < 0
        (Alpha(3), td.Beta(d(0.5), d(1.0)), td.Beta(d(1.0), d(1.0))),
        (Renyi(3), td.Normal(d(0.0), d(1.4)), td.Normal(d(0.0), d(1.0))),
        (Renyi(math.inf), td.Normal(d(0.1), d(1.0)), td.Normal(d(0.0), d(1.0))),
        (NeymanChiSquared(), td.Laplace(d(0.0), d(0.4)), td.Laplace(d(0.0), d(1.0))),
        (CauchySchwarz(), td.Gamma(d(0.4), d(1.0)), td.Gamma(d(2.0), d(1.0))),  # p^2 is not integrable at zero
    ]
    for D, P, Q in cases:
        parameter = next(iter(P.__dict__.values()))
        with pytest.warns(InfiniteDivergenceWarning):
            value = D.between(P, Q).value
        assert value.item() == math.inf, (D, P, parameter)
    with pytest.raises(NumericalError, match="infinity minus infinity"):
        CauchySchwarz().between(td.Gamma(d(0.4), d(1.0)), td.Gamma(d(0.3), d(1.0)))
    scale = d(1.5).requires_grad_()
    with pytest.warns(InfiniteDivergenceWarning):
        (grad,) = torch.autograd.grad(Renyi(2).between(td.Normal(d(0.0), scale), td.Normal(d(0.0), d(1.0))).value, scale)
    assert grad.item() == 0


def test_renyi_limits_between_normal_laws():
    P, Q = td.Normal(d(0.4), d(0.8)), td.Normal(d(0.0), d(1.1))
    z = torch.linspace(-30, 30, 200001, dtype=torch.float64)
    sup = (P.log_prob(z) - Q.log_prob(z)).max().item()
    assert Renyi(math.inf).between(P, Q).value.item() == pytest.approx(sup, rel=1e-7)
    assert Renyi(math.inf).between(P, P).value.item() == 0.0
    assert Renyi(1e5).between(P, Q).value.item() == pytest.approx(sup, rel=1e-3)
    assert Renyi(0).between(P, Q).value.item() == 0.0
    assert Renyi(1 + 1e-6).between(P, Q).value.item() == pytest.approx(KL().between(P, Q).value.item(), rel=1e-5)
    orders = [0, 0.2, 0.5, 0.9, 1, 1.1, 2, 5, 50, math.inf]
    values = [Renyi(a).between(P, Q).value.item() for a in orders]
    assert values == sorted(values)
    full = (
        td.MultivariateNormal(d(0.4, 0.1), torch.diag(d(0.64, 0.25))),
        td.MultivariateNormal(d(0.0, 0.0), torch.eye(2).double()),
    )
    parts = [(td.Normal(d(0.4), d(0.8)), td.Normal(d(0.0), d(1.0))), (td.Normal(d(0.1), d(0.5)), td.Normal(d(0.0), d(1.0)))]
    want = sum(Renyi(math.inf).between(*laws).value.item() for laws in parts)
    assert Renyi(math.inf).between(*full).value.item() == pytest.approx(want, rel=1e-10)


@pytest.mark.parametrize(
    "D", [KL(), Alpha(0.3), Renyi(0.6), Renyi(1.2), Tsallis(1.3), CauchySchwarz(), Hoelder(3, 1.2)], ids=repr
)
def test_gradients_in_the_parameters(D):
    a, b = d(2.0, 3.0).requires_grad_(), d(1.5, 2.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: D.between(td.Gamma(a, b), td.Gamma(d(2.3), d(1.4))).value, (a, b))
    assert torch.autograd.gradcheck(lambda a: D.between(td.Dirichlet(a), td.Dirichlet(d(2.2, 2.7))).value, (a,))
    assert torch.autograd.gradcheck(lambda a, b: D.between(td.VonMises(a, b), td.VonMises(d(0.3), d(1.4))).value, (a, b))


def test_mixtures_of_categorical_laws_are_categorical():
    weights, rows = d(0.3, 0.7), torch.randn(2, 2, 4, dtype=torch.float64).softmax(-1)
    P, Q = (td.MixtureSameFamily(td.Categorical(probs=weights), td.Categorical(probs=r)) for r in rows)
    p, q = weights @ rows[0], weights @ rows[1]
    for D in (KL(), JensenShannon(), Renyi(2), CauchySchwarz(), AlphaBeta(0.4, 0.3)):
        assert D.between(P, Q).value.item() == pytest.approx(D.from_probs(p, q).item(), rel=1e-10)
        assert D.between(P, td.Categorical(probs=q)).value.item() == pytest.approx(D.from_probs(p, q).item(), rel=1e-10)


def test_refusals_name_the_remedy():
    P, Q = (td.MixtureSameFamily(td.Categorical(probs=d(0.5, 0.5)), td.Normal(d(0.0, m), d(1.0, 1.0))) for m in (1.0, 2.0))
    with pytest.raises(TypeError, match=r"between MixtureSameFamily and MixtureSameFamily.*mixture_bounds.*monte_carlo_between"):
        KL().between(P, Q)
    with pytest.raises(TypeError, match="share their location"):
        Renyi(2).between(td.Laplace(0.0, 1.0), td.Laplace(0.5, 1.0))
    with pytest.raises(TypeError, match="no closed form of JensenShannon"):
        JensenShannon().between(td.Gamma(1.0, 1.0), td.Gamma(2.0, 1.0))
    with pytest.raises(TypeError, match="no closed form"):
        Renyi(2).between(td.Gamma(1.0, 1.0), td.Normal(2.0, 1.0))
