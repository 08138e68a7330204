"""Exponential families: parameters of means, cumulants three ways, divergences, draws, and means that no member has."""

from __future__ import annotations

import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence
from torch.distributions import Poisson as TorchPoisson

from discrepancy._results import NumericalError
from discrepancy.estimation.exponential_family import (
    CustomFamily,
    DrawCumulants,
    Exponential,
    Gaussian,
    Ising,
    LogLinear,
    PartitionCumulants,
    Poisson,
    PolynomialExp,
    SampledFamily,
    StateCumulants,
    information_projection,
    kl_between,
)

EXAMPLES = {
    "poisson": (Poisson(), [0.3]),
    "exponential": (Exponential(), [-0.7]),
    "gaussian": (Gaussian(1), [0.4, -0.8]),
    "gaussian in the plane": (Gaussian(2), [0.4, -0.2, -0.8, 0.3, -0.6]),
    "ising": (Ising(3), [0.2, -0.1, 0.3, 0.4, -0.3, 0.1]),
    "ising on a chain": (Ising(4, ((0, 1), (2, 1), (2, 3))), [0.2, -0.1, 0.3, 0.1, 0.4, -0.3, 0.1]),
    "log-linear": (LogLinear((2, 3), order=2), [0.2, -0.3, 0.4, 0.1, -0.5]),
    "log-linear by terms": (LogLinear((2, 2, 2), terms=((0,), (1,), (2,), (0, 2))), [0.2, -0.3, 0.4, 0.6]),
    "polynomial": (PolynomialExp(3, low=0.0, high=2.0), [0.5, -1.0, 0.3]),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def theta_of(name):
    return torch.tensor(EXAMPLES[name][1], dtype=torch.float64)


@pytest.mark.parametrize("name", EXAMPLES)
def test_parameters_and_means_are_inverse_to_each_other(name):
    family, theta = EXAMPLES[name][0], theta_of(name)
    assert family.dimension == len(theta) == len(set(family.names))
    mean = family.mean(theta)
    assert torch.allclose(information_projection(family, mean), theta, rtol=1e-7, atol=1e-9)
    both = torch.stack([mean, family.mean(theta * 0.9)])
    assert torch.allclose(family.natural(both), torch.stack([theta, theta * 0.9]), rtol=1e-7, atol=1e-9)
    # The mean is the gradient of the log-partition.
    step = 1e-6 * torch.eye(len(theta), dtype=torch.float64)
    slope = (family.log_partition(theta + step) - family.log_partition(theta - step)) / 2e-6
    assert torch.allclose(slope, mean, rtol=1e-6, atol=1e-8)
    assert pickle.loads(pickle.dumps(family)) == family


@pytest.mark.parametrize("name", EXAMPLES)
def test_cumulants_are_the_derivatives_of_the_mean(name):
    family, theta = EXAMPLES[name][0], theta_of(name)
    cumulants, h = family.cumulants(theta), 1e-4
    p = len(theta)
    steps = h * torch.eye(p, dtype=torch.float64)
    second = torch.stack([(family.mean(theta + e) - family.mean(theta - e)) / (2 * h) for e in steps])
    assert torch.allclose(cumulants.second, second, rtol=1e-5, atol=1e-7)
    third = torch.stack([(family.cumulants(theta + e).second - family.cumulants(theta - e).second) / (2 * h) for e in steps])
    assert torch.allclose(cumulants.thirds()[0], third, rtol=1e-4, atol=1e-6)
    D = torch.randn(p, p, generator=generator(), dtype=torch.float64)
    D = D + D.mT
    fourth = torch.stack(
        [(family.cumulants(theta + e).thirds()[0] - family.cumulants(theta - e).thirds()[0]) / (2 * h) for e in steps]
    )
    quartic = torch.einsum("abcd,ab,cd->", fourth, D, D)
    assert float(cumulants.quartic(D)) == pytest.approx(float(quartic), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", EXAMPLES)
def test_draws_have_the_mean_and_covariance_of_the_member(name):
    family, theta = EXAMPLES[name][0], theta_of(name)
    n = 40_000
    xi = family.statistic(family.draw(theta, n, generator=generator(1)))
    second = family.cumulants(theta).second
    z = (xi.mean(0) - family.mean(theta)) / (second.diagonal() / n).sqrt()
    assert float(z.abs().max()) < 5
    assert torch.allclose(torch.cov(xi.mT).reshape(second.shape), second, rtol=0.1, atol=0.02 * float(second.max()))
    again = family.draw(theta, 5, generator=generator(2))
    assert torch.equal(again, family.draw(theta, 5, generator=generator(2)))


def test_draw_cumulants_tend_to_the_exact_ones():
    family, theta = Ising(3), theta_of("ising")
    exact = family.cumulants(theta)
    found = DrawCumulants(family.statistic(family.draw(theta, 200_000, generator=generator())))
    assert torch.allclose(found.second, exact.second, atol=0.02)
    for half in found.thirds():
        assert torch.allclose(half, exact.thirds()[0], atol=0.04)
    assert not torch.equal(*found.thirds())
    D = torch.eye(6, dtype=torch.float64)
    assert float(found.quartic(D)) == pytest.approx(float(exact.quartic(D)), abs=0.2)
    partition = PartitionCumulants(lambda t: torch.logsumexp(family.table @ t, 0), theta)
    assert torch.allclose(partition.second, exact.second)
    assert torch.allclose(partition.thirds()[0], exact.thirds()[0])
    assert float(partition.quartic(D)) == pytest.approx(float(exact.quartic(D)))


def test_blocks_of_states_change_nothing():
    table = torch.randn(9000, 3, generator=generator(), dtype=torch.float64)
    weights = torch.softmax(torch.randn(9000, generator=generator(1), dtype=torch.float64), 0)
    u = table - weights @ table
    whole = torch.einsum("s,sa,sb,sc->abc", weights, u, u, u)
    assert torch.allclose(StateCumulants(table, weights).thirds()[0], whole)


def test_divergences_between_members_are_those_of_torch():
    rates = torch.tensor([2.0, 3.5], dtype=torch.float64)
    found = kl_between(Poisson(), rates[:1].log(), rates[1:].log())
    assert float(found) == pytest.approx(float(kl_divergence(TorchPoisson(rates[0]), TorchPoisson(rates[1]))))
    family = Gaussian(2)
    one, two = theta_of("gaussian in the plane"), torch.tensor([0.1, 0.3, -1.1, -0.2, -0.9], dtype=torch.float64)
    laws = [MultivariateNormal(*family.moments(t)) for t in (one, two)]
    assert float(kl_between(family, one, two)) == pytest.approx(float(kl_divergence(*laws)))
    assert float(kl_between(family, one, two)) != pytest.approx(float(kl_between(family, two, one)), rel=1e-3)
    x = torch.randn(4, 2, generator=generator(), dtype=torch.float64)
    density = family.statistic(x) @ one - family.log_partition(one)
    assert torch.allclose(density, laws[0].log_prob(x))
    table = LogLinear((2, 3))
    p, q = (table.probabilities(t) for t in (theta_of("log-linear"), -theta_of("log-linear")))
    expected = (p * (p / q).log()).sum()
    assert float(kl_between(table, theta_of("log-linear"), -theta_of("log-linear"))) == pytest.approx(float(expected))


def test_the_fit_maximises_the_likelihood():
    family = LogLinear((2, 2, 3), order=2)
    x = torch.stack([torch.randint(0, k, (300,), generator=generator(j)) for j, k in enumerate((2, 2, 3))], -1)
    fit = family.fit(x)
    assert torch.allclose(family.mean(fit.theta), fit.mean, atol=1e-10)

    def likelihood(theta):
        return float(fit.mean @ theta - family.log_partition(theta))

    best = likelihood(fit.theta)
    for seed in range(20):
        assert likelihood(fit.theta + 0.05 * torch.randn(family.dimension, generator=generator(seed), dtype=torch.float64)) < best
    saturated = LogLinear((2, 2, 3), order=3).fit(x)
    counts = torch.tensor(
        [((x == torch.tensor(c)).all(-1)).double().mean() for c in itertools.product(range(2), range(2), range(3))]
    )
    assert torch.allclose(saturated.family.probabilities(saturated.theta), counts.double(), atol=1e-7)
    assert torch.allclose(fit.fisher(), family.cumulants(fit.theta).second)
    assert torch.allclose(fit.covariance, torch.cov(family.statistic(x).mT))


def test_polynomials_are_densities():
    family = PolynomialExp(2, low=-3.0, high=5.0)
    theta = torch.tensor([1.0, -6.0], dtype=torch.float64)
    grid = torch.linspace(-3, 5, 20_001, dtype=torch.float64)[:, None]
    density = (family.statistic(grid) @ theta - family.log_partition(theta)).exp()
    assert float(torch.trapezoid(density, grid[:, 0])) == pytest.approx(1.0, rel=1e-6)
    fit = family.fit(family.draw(theta, 30_000, generator=generator()))
    assert torch.allclose(fit.theta, theta, rtol=0.1)


def test_a_family_of_ones_own_agrees_with_the_built_in_one():
    own = CustomFamily(
        lambda x: torch.cat([x, x.square()], -1),
        lambda t: -(t[0] ** 2) / (4 * t[1]) + 0.5 * torch.log(-math.pi / t[1]),
        start=(0.0, -1.0),
        labels=("x", "x^2"),
    )
    built = Gaussian(1)
    x = 2 + torch.randn(200, 1, generator=generator(), dtype=torch.float64)
    one, two = own.fit(x), built.fit(x)
    assert torch.allclose(one.theta, two.theta, rtol=1e-8)
    assert torch.allclose(own.cumulants(one.theta).thirds()[0], built.cumulants(two.theta).thirds()[0])
    assert float(kl_between(own, one.theta, one.theta * 1.1)) == pytest.approx(
        float(kl_between(built, two.theta, two.theta * 1.1))
    )
    with pytest.raises(TypeError, match="no sampler"):
        own.draw(one.theta, 3)


def test_a_family_without_a_normaliser_is_fitted_by_draws():
    model = Ising(4)
    theta = 0.3 * torch.randn(model.dimension, generator=generator(), dtype=torch.float64)
    x = model.draw(theta, 400, generator=generator(1))
    blind = SampledFamily(
        model.statistic, lambda t, n, g: model.gibbs(t, n, generator=g, burn_in=30, sweeps=2), start=(0.0,) * 10, draws=10_000
    )
    found, exact = blind.fit(x, generator=generator(2)), model.fit(x)
    errors = (model.fit(x).fisher().inverse().diagonal() / 400).sqrt()
    assert float(((found.theta - exact.theta) / errors).abs().max()) < 0.5
    assert torch.equal(found.theta, blind.fit(x, generator=generator(2)).theta)
    with pytest.raises(TypeError, match="no log-partition"):
        blind.log_partition(found.theta)


def test_gibbs_draws_have_the_moments_of_the_enumeration():
    model, theta = Ising(4), 0.4 * torch.randn(10, generator=generator(3), dtype=torch.float64)
    xi = model.statistic(model.gibbs(theta, 30_000, generator=generator()))
    assert float((xi.mean(0) - model.mean(theta)).abs().max()) < 0.03
    assert len(model.gibbs(theta, 7, generator=generator())) == 7


def test_means_that_no_member_has_name_the_statistic():
    with pytest.raises(ValueError, match="statistic count"):
        Poisson().fit(torch.zeros(5))
    with pytest.raises(ValueError, match="statistic time"):
        Exponential().fit(torch.zeros(5))
    with pytest.raises(ValueError, match=r"statistic x1\^2"):
        Gaussian(2).fit(torch.stack([torch.arange(5.0), torch.ones(5)], -1))
    with pytest.raises(ValueError, match="rank 1 of 2"):
        Gaussian(2).fit(torch.stack([torch.arange(5.0), torch.arange(5.0)], -1))
    x = torch.tensor([[0, 0], [0, 1], [1, 0], [0, 1]])  # the cell (1, 1) is empty
    with pytest.raises(ValueError, match="statistic x0=1 x1=1"):
        LogLinear((2, 2), order=2).fit(x)
    LogLinear((2, 2), order=1).fit(x)  # main effects have their estimate
    spins = torch.tensor([[1.0, -1.0], [1.0, 1.0], [1.0, -1.0]])
    with pytest.raises(ValueError, match="no maximum-likelihood estimate"):
        Ising(2).fit(spins)
    inside = LogLinear((2, 2), order=2)
    means = torch.tensor([[0.5, 0.5, 0.25], [0.5, 0.5, 0.0], [0.5, 0.5, 0.5], [0.2, 0.9, 0.19]], dtype=torch.float64)
    assert inside.attainable(means).tolist() == [True, False, False, True]
    # Close to the boundary is inside: one in ten thousand.
    rare = torch.tensor([0.5, 0.5, 1e-4], dtype=torch.float64)
    assert torch.allclose(inside.mean(inside.natural(rare)), rare, atol=1e-10)


def test_collinear_statistics_are_told_their_rank():
    twice = CustomFamily(
        lambda x: torch.cat([x, 2 * x], -1), lambda t: (t[0] + 2 * t[1]) ** 2 / 2, start=(0.0, 0.0), labels=("x", "2x")
    )
    with pytest.raises(ValueError, match="rank 1; leave 1 out"):
        twice.fit(torch.randn(20, 1, generator=generator()))
    constant = CustomFamily(
        lambda x: torch.cat([x, 0 * x], -1), lambda t: t[0] ** 2 / 2, start=(0.0, 0.0), labels=("x", "nothing")
    )
    with pytest.raises(ValueError, match="nothing is constant"):
        constant.fit(torch.randn(20, 1, generator=generator()))


def test_bad_arguments():
    with pytest.raises(ValueError, match="counts"):
        Poisson().fit([0.5, 1.0])
    with pytest.raises(ValueError, match="times"):
        Exponential().fit([-1.0, 1.0])
    with pytest.raises(ValueError, match="spins"):
        Ising(2).fit([[0.0, 1.0], [1.0, 1.0]])
    with pytest.raises(ValueError, match="factor 1, whose values are 0 to 2"):
        LogLinear((2, 3)).fit([[0, 3], [1, 1]])
    with pytest.raises(ValueError, match="must lie in"):
        PolynomialExp(2).fit([0.0, 1.5])
    with pytest.raises(ValueError, match="2 feature"):
        Gaussian(2).fit(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="at least two"):
        Poisson().fit([3.0])
    with pytest.raises(ValueError, match="theta must end in 2"):
        Gaussian(1).log_partition([0.0])
    with pytest.raises(ValueError, match="mean must end in 2"):
        Gaussian(1).natural([0.0])
    with pytest.raises(ValueError, match="non-finite"):
        Gaussian(1).natural([math.nan, 1.0])
    with pytest.raises(ValueError, match="20 nodes"):
        Ising(30)
    with pytest.raises(ValueError, match="two different nodes"):
        Ising(3, ((0, 0),))
    with pytest.raises(ValueError, match="edges must differ"):
        Ising(3, ((0, 1), (1, 0)))
    with pytest.raises(ValueError, match="at most the number of factors"):
        LogLinear((2, 2), order=3)
    with pytest.raises(ValueError, match="factors 0 to 1"):
        LogLinear((2, 2), terms=((0, 2),))
    with pytest.raises(ValueError, match="terms must differ"):
        LogLinear((2, 2), terms=((0, 1), (1, 0)))
    with pytest.raises(ValueError, match="too many to enumerate"):
        LogLinear((10,) * 8)
    with pytest.raises(ValueError, match="no term of the model"):
        LogLinear((2, 2), order=1).without((0, 1))
    with pytest.raises(ValueError, match="interval"):
        PolynomialExp(2, low=1.0, high=1.0)
    with pytest.raises(TypeError, match="callable"):
        CustomFamily(3, lambda t: t[0], start=(0.0,))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="inside the domain"):
        CustomFamily(lambda x: x, lambda t: torch.log(t[0]), start=(-1.0,))
    with pytest.raises(ValueError, match="labels must be 1"):
        CustomFamily(lambda x: x, lambda t: t[0] ** 2, start=(0.0,), labels=("a", "b"))
    with pytest.raises(ValueError, match=r"shape \(3, 2\)"):
        CustomFamily(lambda x: x, lambda t: t[0] ** 2 + t[1] ** 2, start=(0.0, 0.0)).fit(torch.zeros(3, 1))
    with pytest.raises(ValueError, match="draws"):
        SampledFamily(lambda x: x, lambda t, n, g: torch.zeros(n, 1), start=(0.0,), draws=3)
    unreachable = SampledFamily(
        lambda x: x,
        lambda t, n, g: torch.randn(n, 1, generator=g, dtype=torch.float64),
        start=(0.0,),
        draws=200,
        labels=("shift",),
    )
    with pytest.raises(NumericalError, match="statistic shift"):
        unreachable.natural([50.0], generator=generator())
    bounded = CustomFamily(lambda x: x, lambda t: torch.nn.functional.softplus(t[0]), start=(0.0,), labels=("bit",))
    with pytest.raises((NumericalError, ValueError), match="bit"):
        bounded.fit(np.ones((4, 1)))
