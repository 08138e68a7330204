"""The risk of a fit about its projection: expansions against the conjugate's derivatives, enumeration and simulation."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from discrepancy.estimation.exponential_family import Exponential, Gaussian, Ising, LogLinear, Poisson, SampledFamily, kl_between
from discrepancy.estimation.exponential_family.cumulants import PartitionCumulants
from discrepancy.estimation.information_projection_mle import (
    BretagnolleHuber,
    Pinsker,
    RiskExpansion,
    SharperBound,
    largest_affordable,
    pn_criterion,
    reduce_until_accepted,
    risk_expansion,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draws(n, d, seed=0):
    return torch.randn(n, d, generator=generator(seed), dtype=torch.float64)


def by_the_conjugate(conjugate, mean, C, k3):
    """(first, second) from the derivatives of the conjugate of Psi in the mean: no formula shared with the library."""
    second = torch.func.hessian(conjugate)(mean)
    third = torch.func.jacfwd(torch.func.hessian(conjugate))(mean)
    fourth = torch.func.jacfwd(torch.func.jacfwd(torch.func.hessian(conjugate)))(mean)
    first = torch.einsum("ij,ij->", second, C) / 2
    rest = torch.einsum("ijk,ijk->", third, k3) / 3 + 3 / 8 * torch.einsum("ijkl,ij,kl->", fourth, C, C)
    return float(first), float(rest)


def test_poisson_and_gamma_values_of_the_card():
    expansion = risk_expansion(Poisson().cumulants([math.log(2.0)]), torch.tensor([[2.0]]), torch.tensor([[[2.0]]]))
    for n in (10, 20, 50):
        assert expansion.at(n, 1) == pytest.approx(1 / (2 * n))
        assert expansion.at(n) == pytest.approx(1 / (2 * n) + 5 / (24 * n**2), rel=1e-12)
    for shape in (0.5, 1.0, 3.0):
        family = Exponential()
        found = risk_expansion(family.cumulants(family.natural([shape])), torch.tensor([[shape]]), torch.tensor([[[2 * shape]]]))
        # Psi'' = a^2, C = a, and the second order is 11 / (12 a^2).
        assert found.penalty == pytest.approx(1 / shape)
        assert found.second == pytest.approx(11 / (12 * shape**2))
        n = 20
        total = torch.tensor(n * shape, dtype=torch.float64)
        exact = float(torch.digamma(total) - total.log() + total / (total - 1) - 1)
        assert found.at(n) == pytest.approx(exact, rel=0.02)
        assert abs(found.at(n) - exact) < abs(found.at(n, 1) - exact) / 3


def test_multinomial_expansion_against_the_entropy():
    # The conjugate of a saturated table's log-partition is the negative entropy.
    family = LogLinear((2, 2), order=2)
    theta = torch.tensor([0.3, -0.4, 0.7], dtype=torch.float64)
    mean = family.mean(theta)

    def negative_entropy(eta):
        p = torch.stack([1 - eta[0] - eta[1] + eta[2], eta[1] - eta[2], eta[0] - eta[2], eta[2]])
        return (p * p.log()).sum()

    law = torch.tensor([0.4, 0.1, 0.2, 0.3], dtype=torch.float64)  # any other law: only its moments enter
    u = family.table - law @ family.table
    C, k3 = torch.einsum("s,sa,sb->ab", law, u, u), torch.einsum("s,sa,sb,sc->abc", law, u, u, u)
    found = risk_expansion(family.cumulants(theta), C, k3)
    first, second = by_the_conjugate(negative_entropy, mean, C, k3)
    assert found.first == pytest.approx(first)
    assert found.second == pytest.approx(second)


def test_gaussian_expansion_against_its_conjugate():
    family = Gaussian(2)
    theta = torch.tensor([0.4, -0.2, -0.8, 0.3, -0.6], dtype=torch.float64)
    mean = family.mean(theta)

    def conjugate(eta):
        determinant = (eta[2] - eta[0] ** 2) * (eta[4] - eta[1] ** 2) - (eta[3] - eta[0] * eta[1]) ** 2
        return -0.5 * determinant.log()

    x = draws(50, 2) @ torch.tensor([[1.0, 0.4], [0.0, 2.0]], dtype=torch.float64)
    u = family.statistic(x) - family.statistic(x).mean(0)
    C, k3 = u.mT @ u / 50, torch.einsum("na,nb,nc->abc", u, u, u) / 50
    found = risk_expansion(family.cumulants(theta), C, k3)
    assert (found.first, found.second) == pytest.approx(by_the_conjugate(conjugate, mean, C, k3), rel=1e-8)
    n = len(x)
    from_sample = risk_expansion(family.cumulants(theta), C, centred=u)
    unbiased = risk_expansion(family.cumulants(theta), C, k3 * n**2 / ((n - 1) * (n - 2)))
    assert from_sample.second == pytest.approx(unbiased.second)


def test_expansion_against_the_enumerated_risk_of_a_small_table():
    # Three categories: all samples of n are enumerated, with the law of the data outside of the smaller model of equal odds.
    family = LogLinear((2, 2), order=1)
    law = torch.tensor([0.3, 0.2, 0.15, 0.35], dtype=torch.float64)
    mean = law @ family.table
    projection = family.natural(mean)
    u = family.table - mean
    C, k3 = torch.einsum("s,sa,sb->ab", law, u, u), torch.einsum("s,sa,sb,sc->abc", law, u, u, u)
    expansion = risk_expansion(family.cumulants(projection), C, k3)
    n = 24
    cells, log_mass = [], []
    for counts in itertools.product(range(n + 1), repeat=3):
        if sum(counts) <= n:
            full = torch.tensor([*counts, n - sum(counts)], dtype=torch.float64)
            cells.append(full)
            log_mass.append(math.lgamma(n + 1) - float(torch.lgamma(full + 1).sum()) + float((full * law.log()).sum()))
    table = torch.stack(cells) @ family.table / n
    mass = torch.tensor(log_mass, dtype=torch.float64).exp()
    assert float(mass.sum()) == pytest.approx(1.0)
    kept = ((table > 0) & (table < 1)).all(-1)
    fits = (table[kept] / (1 - table[kept])).log()  # independent factors: logits
    assert torch.allclose(fits[:20], family.natural(table[kept][:20]), atol=1e-7)
    risk = float((mass[kept] * kl_between(family, projection, fits)).sum() / mass[kept].sum())
    assert expansion.at(n) == pytest.approx(risk, rel=0.02)
    assert abs(expansion.at(n) - risk) < 0.4 * abs(expansion.at(n, 1) - risk)


def test_a_true_model_has_half_its_parameters_as_first_order_and_reports_them():
    x = draws(4000, 2)
    report = pn_criterion(Gaussian(2).fit(x))
    assert report.tic == pytest.approx(5, rel=0.1)
    assert report.aic == report.dimension == 5
    assert report.first_order == pytest.approx(report.tic / 8000)
    assert report.risk == pytest.approx(report.first_order + report.second_order)
    assert report.accepted
    assert report.threshold == pytest.approx(0.02)
    tails = draws(4000, 2, 1) / (draws(4000, 5, 2).square().sum(-1, keepdim=True) / 5).sqrt()
    assert pn_criterion(Gaussian(2).fit(tails), order=1).tic > 6.5


def test_the_risk_predicts_simulated_fits():
    family = LogLinear((2, 2, 2), order=2)
    theta = torch.tensor([0.4, -0.3, 0.2, 0.5, -0.4, 0.3], dtype=torch.float64)
    n = 120
    counts = torch.stack(
        [
            torch.bincount(torch.multinomial(family.probabilities(theta), n, True, generator=generator(k)), minlength=8)
            for k in range(1500)
        ]
    )
    means = counts.double() @ family.table / n
    means = means[family.attainable(means)]
    simulated = float(kl_between(family, theta, family.natural(means)).mean())
    exact = family.cumulants(theta)
    expansion = risk_expansion(exact, exact.second, exact.thirds()[0])
    assert expansion.at(n) == pytest.approx(simulated, rel=0.06)


def test_draws_in_place_of_the_normaliser_change_little_and_do_not_bias_the_second_order():
    model = Ising(5)
    theta = 0.25 * torch.randn(15, generator=generator(), dtype=torch.float64)
    x = model.draw(theta, 300, generator=generator(1))
    exact = pn_criterion(model.fit(x))
    blind = SampledFamily(model.statistic, lambda t, n, g: model.draw(t, n, generator=g), start=(0.0,) * 15, draws=8000)
    found = [pn_criterion(blind.fit(x, generator=generator(k)), generator=generator(10 + k)) for k in range(3)]
    for report in found:
        assert report.risk == pytest.approx(exact.risk, rel=0.05)
    mean = sum(report.second_order for report in found) / 3
    assert mean == pytest.approx(exact.second_order, abs=0.3 * abs(exact.second_order) + 0.01 * exact.first_order)
    assert pn_criterion(model.fit(x)) == exact


def test_required_sizes_solve_the_quadratic():
    for first, second in ((2.5, 17.0), (5.0, -30.0), (0.5, 0.0), (5.0, -1e4)):
        expansion = RiskExpansion(first, second)
        for threshold in (0.02, 0.003):
            for order in (1, 2):
                n = expansion.samples(threshold, order)
                assert all(expansion.at(k, order) <= threshold for k in range(n, n + 200))
                if n > 1 and order == 1:
                    assert expansion.at(n - 1, 1) > threshold
                if n > 1 and order == 2 and second > 0:
                    assert expansion.at(n - 1) > threshold
    assert RiskExpansion(5.0, 0.0).samples(0.02) == 250


def test_rules_bound_the_bayes_error():
    assert Pinsker().threshold(0.05) == pytest.approx(0.02)
    assert SharperBound().threshold(0.05) == Pinsker().threshold(0.05)
    assert SharperBound().threshold(0.49) == BretagnolleHuber().threshold(0.49) > Pinsker().threshold(0.49)
    # Two normal laws a distance apart: the Bayes error is Phi(-d / 2), KL is d^2 / 2.
    for distance in (0.1, 0.5, 1.0, 3.0):
        error = 0.5 * math.erfc(distance / 2 / math.sqrt(2))
        for rule in (Pinsker(), BretagnolleHuber()):
            for delta in (0.01, 0.1, 0.3, 0.49):
                if distance**2 / 2 <= rule.threshold(delta):
                    assert error >= 0.5 - delta
    x = draws(120, 2)
    fit = Gaussian(2).fit(x)
    assert pn_criterion(fit, delta=0.49, rule=SharperBound()).n_required < pn_criterion(fit, delta=0.49).n_required
    assert pn_criterion(fit, delta=0.02).n_required > pn_criterion(fit).n_required


def wine():
    from sklearn.datasets import load_wine

    values = torch.from_numpy(load_wine().data[:, :4])
    return (values > values.median(0).values).double()


def test_a_nested_family_has_a_largest_affordable_model_and_reduction_ends_at_one():
    x = wine()
    reports = [pn_criterion(LogLinear((2, 2, 2, 2), order=k).fit(x)) for k in (1, 2, 3)]
    assert [r.accepted for r in reports] == [True, False, False]
    assert [r.dimension for r in reports] == [4, 10, 14]
    best = largest_affordable(reports)
    assert best is reports[0]
    assert largest_affordable(reports[1:]) is None
    reduced = reduce_until_accepted(LogLinear((2, 2, 2, 2), order=3), x)
    assert reduced.report.accepted
    assert 4 < reduced.model.dimension < 10
    assert reduced.model.dimension + len(reduced.dropped) == 14
    # A planted pair is what survives.
    planted = LogLinear((2, 2, 2), terms=((0,), (1,), (2,), (0, 2)))
    y = planted.draw([0.1, 0.2, -0.1, 1.5], 200, generator=generator())
    kept = reduce_until_accepted(LogLinear((2, 2, 2), order=3), y, delta=0.04)
    assert (0, 2) in kept.model.interactions
    with pytest.raises(ValueError, match="even the main effects"):
        reduce_until_accepted(LogLinear((2, 2, 2, 2), order=2), x, delta=0.01)


def test_warnings_for_samples_too_small():
    x = draws(5, 2)
    with pytest.warns(UserWarning, match="5 rows for 5 parameters"):
        pn_criterion(Gaussian(2).fit(x), order=1)
    skewed = torch.cat([torch.full((9, 1), 1e-3), torch.tensor([[5.0]])])
    with pytest.warns(UserWarning, match="second-order term"):
        pn_criterion(Exponential().fit(skewed))


def test_bad_arguments():
    fit = Gaussian(1).fit(draws(20, 1))
    for delta in (0, 1, 0.5, -0.1, 0.0, True):
        with pytest.raises(ValueError, match="delta must be a fraction"):
            pn_criterion(fit, delta=delta)
    with pytest.raises(ValueError, match="order must be 1 or 2"):
        pn_criterion(fit, order=3)
    with pytest.raises(TypeError, match="rule must be"):
        pn_criterion(fit, rule="pinsker")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"family.fit\(x\)"):
        pn_criterion(draws(20, 1))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="third or centred"):
        risk_expansion(Poisson().cumulants([0.0]), torch.ones(1, 1))
    with pytest.raises(TypeError, match="LogLinear"):
        reduce_until_accepted(Gaussian(1), draws(20, 1))  # type: ignore[arg-type]
    assert isinstance(Poisson().cumulants([0.0]), PartitionCumulants)
