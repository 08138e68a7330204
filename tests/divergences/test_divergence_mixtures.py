"""Mixtures: the bounds hold the integral between them, the simulation covers it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributions as td

from discrepancy import (
    KL,
    Alpha,
    Bregman,
    CauchySchwarz,
    ChiSquared,
    Jeffreys,
    JensenShannon,
    LeCam,
    Renyi,
    ReverseKL,
    SquaredHellinger,
    TotalVariation,
    Tsallis,
)
from discrepancy.divergences import FDivergence, mixture_bounds, monte_carlo_between

float64 = torch.float64
LINE = torch.linspace(-60, 60, 120001, dtype=float64)
# p^a q^(1-a), a > 1, of a wide p and a narrow q peaks where neither law has mass.
FAR_LINE = torch.linspace(-600, 600, 240001, dtype=float64)
FAMILY = [
    KL(),
    ReverseKL(),
    Jeffreys(),
    JensenShannon(),
    SquaredHellinger(),
    LeCam(),
    TotalVariation(),
    Alpha(0.3),
    ChiSquared(),
    Renyi(0.5),
    Renyi(1),
    Renyi(1.5),
    Tsallis(0.7),
    2 * KL() + JensenShannon(),
    KL().skewed(0.2),
]


def gaussian_mixture(components, seed, *, spread=1.5):
    draw = torch.Generator().manual_seed(seed)
    weights = 0.1 + torch.rand(components, generator=draw, dtype=float64)
    means = spread * torch.randn(components, generator=draw, dtype=float64)
    return td.MixtureSameFamily(
        td.Categorical(probs=weights), td.Normal(means, 0.9 + 0.3 * torch.rand(components, generator=draw, dtype=float64))
    )


def power_integral(a, P, Q, z):
    z = FAR_LINE if z is LINE else z
    return torch.trapezoid(torch.exp(a * P.log_prob(z) + (1 - a) * Q.log_prob(z)), z)


def integral(D, P, Q, z=LINE):
    if isinstance(D, ChiSquared):
        return float(power_integral(2.0, P, Q, z)) - 1
    log_p, log_q = P.log_prob(z), Q.log_prob(z)
    seen = torch.maximum(log_p, log_q) > -200  # further out neither law has mass, and the two are close enough
    z, log_p, log_q = z[seen], log_p[seen], log_q[seen]
    if isinstance(D, FDivergence):
        return float(torch.trapezoid(log_q.exp() * D.generator(log_t=log_p - log_q), z))
    if D.order == 1:
        return integral(KL(), P, Q, z)
    return float(D._outer(power_integral(D.order, P, Q, z).log()))


@pytest.mark.parametrize("seed", [10, 13, 24, 37, 92, 10_000])
def test_the_tails_of_cells_are_exact_enough_for_chi_squared(seed):
    # Where torch's normal distribution function has lost half its digits, and a ratio of masses is squared.
    P, Q = gaussian_mixture(3, seed), gaussian_mixture(2, seed + 1)
    assert mixture_bounds(ChiSquared(), P, Q).lower <= integral(ChiSquared(), P, Q) * (1 + 1e-7)


@pytest.mark.parametrize("D", FAMILY, ids=repr)
@given(seed=st.integers(0, 10_000), sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)))
@settings(max_examples=6, deadline=None)
def test_the_integral_lies_between_the_bounds(D, seed, sizes):
    P, Q = gaussian_mixture(sizes[0], seed), gaussian_mixture(sizes[1], seed + 1)
    truth, bounds = integral(D, P, Q), mixture_bounds(D, P, Q)
    slack = 1e-7 * abs(truth) + 1e-9  # the quadrature's
    assert bounds.lower <= truth + slack
    assert bounds.upper >= truth - slack
    if D not in (ChiSquared(), Renyi(1.5)):  # whose mass may lie beyond the ten standard deviations that have fine cells
        assert bounds.lower >= 0.99 * truth - 1e-6


@pytest.mark.parametrize("D", [D for D in FAMILY if D not in (KL().skewed(0.2),)], ids=repr)
def test_one_component_of_equal_laws(D):
    single = td.MixtureSameFamily(td.Categorical(probs=torch.ones(1, dtype=float64)), td.Normal(torch.zeros(1).double(), 1.0))
    bounds = mixture_bounds(D, single, td.Normal(torch.zeros((), dtype=float64), 1.0))
    assert bounds.lower == pytest.approx(0, abs=1e-12)
    assert bounds.upper == pytest.approx(0, abs=1e-7)


def test_bounds_of_kl_are_each_a_bound_and_the_best_is_reported():
    # Two far components of one mixture in two orders: matching them is exact where the components do not overlap.
    means, scales = torch.tensor([-20.0, 20.0], dtype=float64), torch.ones(2, dtype=float64)
    P = td.MixtureSameFamily(td.Categorical(probs=torch.tensor([0.3, 0.7], dtype=float64)), td.Normal(means, scales))
    Q = td.MixtureSameFamily(
        td.Categorical(probs=torch.tensor([0.6, 0.4], dtype=float64)), td.Normal(means.flip(0) + 0.5, scales)
    )
    want = 0.3 * math.log(0.3 / 0.4) + 0.7 * math.log(0.7 / 0.6) + 0.125
    bounds = mixture_bounds(KL(), P, Q)
    assert bounds.upper == pytest.approx(want, rel=1e-9)
    assert bounds.upper_method == "variational"
    assert bounds.lower == pytest.approx(want, rel=1e-3)
    assert mixture_bounds(ReverseKL(), Q, P).upper == pytest.approx(want, rel=1e-9)
    assert "upper=" in repr(bounds)
    assert bounds.to_dict()["upper_method"] == "variational"


@pytest.mark.parametrize("D", [KL(), Jeffreys(), SquaredHellinger(), JensenShannon(), Renyi(0.5)], ids=repr)
def test_correlated_gaussian_components(D):
    draw = torch.Generator().manual_seed(5)
    laws = []
    for k in (2, 3):
        root = 0.6 * torch.eye(2, dtype=float64) + 0.2 * torch.randn(k, 2, 2, generator=draw, dtype=float64).tril()
        laws.append(
            td.MixtureSameFamily(
                td.Categorical(probs=0.2 + torch.rand(k, generator=draw, dtype=float64)),
                td.MultivariateNormal(1.5 * torch.randn(k, 2, generator=draw, dtype=float64), scale_tril=root),
            )
        )
    axis = torch.linspace(-9, 9, 601, dtype=float64)
    points = torch.cartesian_prod(axis, axis)
    log_p, log_q = (law.log_prob(points) for law in laws)
    cell = float(axis[1] - axis[0]) ** 2
    if isinstance(D, FDivergence):
        truth = float((log_q.exp() * D.generator(log_t=log_p - log_q)).sum()) * cell
    else:
        truth = -2 * math.log(float(torch.exp((log_p + log_q) / 2).sum()) * cell)
    bounds = mixture_bounds(D, *laws)
    assert bounds.lower <= truth * (1 + 1e-6)
    assert truth <= bounds.upper * (1 + 1e-6)
    assert bounds.lower >= 0.3 * truth


def test_other_components():
    shape, rate = torch.tensor([2.0, 5.0], dtype=float64), torch.tensor([1.0, 2.0], dtype=float64)
    weights = td.Categorical(probs=torch.tensor([0.4, 0.6]).double())
    z = torch.linspace(1e-6, 80, 400001, dtype=float64)
    for P, Q in (
        (td.MixtureSameFamily(weights, td.Gamma(shape, rate)), td.Gamma(torch.tensor(3.0).double(), torch.tensor(1.2).double())),
        (td.MixtureSameFamily(weights, td.Exponential(rate)), td.MixtureSameFamily(weights, td.Exponential(rate * 1.3))),
    ):
        for D in (KL(), SquaredHellinger(), Renyi(0.5)):
            bounds, truth = mixture_bounds(D, P, Q), integral(D, P, Q, z)
            assert 0.9 * truth <= bounds.lower <= truth * (1 + 1e-5) <= bounds.upper * (1 + 2e-5)
    rows = torch.randn(2, 3, dtype=float64).softmax(-1)
    P = td.MixtureSameFamily(weights, td.Categorical(probs=rows))
    bounds = mixture_bounds(JensenShannon(), P, td.Categorical(probs=rows[0]))
    assert bounds.lower == bounds.upper == JensenShannon().between(P, td.Categorical(probs=rows[0])).value.item()


def test_bounds_refuse():
    P, Q = gaussian_mixture(2, 0), gaussian_mixture(2, 1)
    with pytest.raises(TypeError, match="no bounds between mixtures"):
        mixture_bounds(CauchySchwarz(), P, Q)
    with pytest.raises(TypeError, match="strictly between 0 and inf"):
        mixture_bounds(Renyi(math.inf), P, Q)
    with pytest.raises(TypeError, match=r"Q must be a torch\.distributions object"):
        mixture_bounds(KL(), P, 3.0)
    batch = td.MixtureSameFamily(td.Categorical(probs=torch.ones(2, 2).double()), td.Normal(torch.zeros(2, 2).double(), 1.0))
    with pytest.raises(ValueError, match="batch shape"):
        mixture_bounds(KL(), P, batch)
    with pytest.raises(TypeError, match="mixture_bounds"):
        Renyi(2).between(P, Q)


@pytest.mark.parametrize(
    "D", [KL(), ReverseKL(), JensenShannon(), TotalVariation(), Alpha(0.4), Renyi(0.5), Tsallis(1.2)], ids=repr
)
@pytest.mark.parametrize("from_given", [False, True])
def test_simulation_covers_the_integral(D, from_given):
    P, Q = gaussian_mixture(3, 3, spread=0.5), gaussian_mixture(2, 4, spread=0.5)
    truth, generator = integral(D, P, Q), torch.Generator().manual_seed(11)
    found = [monte_carlo_between(D, P, Q, 1500, generator, from_given=from_given) for _ in range(60)]
    covered = sum(float(e.low) <= truth <= float(e.high) for e in found)
    assert covered >= 49  # of 60 at 95 %: fewer has a probability below 1e-4 where the error is right
    mean = sum(float(e) for e in found) / 60
    assert mean == pytest.approx(truth, abs=4 * float(found[0].standard_error) / math.sqrt(60))


def test_simulation_is_repeatable_and_leaves_the_global_stream_alone():
    P, Q = gaussian_mixture(3, 3), td.Normal(torch.zeros((), dtype=float64), 2.0)
    torch.manual_seed(0)
    one = monte_carlo_between(KL(), P, Q, 500, torch.Generator().manual_seed(1))
    after = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(3))
    two = monte_carlo_between(KL(), P, Q, 500, torch.Generator().manual_seed(1))
    assert torch.equal(one.value, two.value)
    batch = td.Normal(torch.zeros(4, dtype=float64), 1.0)
    assert monte_carlo_between(KL(), batch, Q, 500).value.shape == (4,)
    # The plain mean of log p/q over draws of P.
    plain = monte_carlo_between(KL(), P, Q, 4000, torch.Generator().manual_seed(2), from_given=True, linear=-1.0)
    assert abs(float(plain) - integral(KL(), P, Q)) < 4 * float(plain.standard_error)
    with pytest.raises(TypeError, match="no function of the density ratio"):
        monte_carlo_between(Bregman(), P, Q)
    with pytest.raises(TypeError, match="P must have sample and log_prob"):
        monte_carlo_between(KL(), [0.5], Q)
    with pytest.raises(ValueError, match="samples must be a whole number"):
        monte_carlo_between(KL(), P, Q, 1)
