"""The content of POT's tests of sinkhorn, its variants, its divergence and its unbalanced form."""

from __future__ import annotations

import math
import warnings

import numpy as np
import ot
import pytest
import torch
from scipy.special import logsumexp

from discrepancy import Sinkhorn, SinkhornDivergence, UnbalancedSinkhorn
from discrepancy._results import ConvergenceWarning
from discrepancy.transport import Balanced, KLPenalty, LogSinkhorn, SemiDualNewton, SinkhornNewtonSparse, UnbalancedNewton

_SOLVERS = {"default": SemiDualNewton(1e-10), "sweeps": LogSinkhorn(1e-10), "sparse": SinkhornNewtonSparse(1e-10)}


def _cloud(n=100, seed=0):
    x = np.random.default_rng(seed).standard_normal((n, 2))
    return x, ot.dist(x, x)


@pytest.mark.parametrize("name", _SOLVERS)
def test_marginals_of_a_cloud_against_itself(name):
    _, cost = _cloud()
    plan = Sinkhorn(1.0, solver=_SOLVERS[name]).solve_cost(cost).plan().numpy()
    np.testing.assert_allclose(plan.sum(1), 0.01, atol=1e-10)
    np.testing.assert_allclose(plan.sum(0), 0.01, atol=1e-10)


@pytest.mark.parametrize("epsilon", [1.0, 0.1])
def test_all_solvers_find_the_plan_of_all_of_pots_variants(epsilon):
    rng = np.random.default_rng(1)
    cost = ot.dist(rng.standard_normal((60, 2)), rng.standard_normal((80, 2)))
    a, b = rng.dirichlet(np.ones(60)), rng.dirichlet(np.ones(80))
    truth = ot.sinkhorn(a, b, cost, epsilon, method="sinkhorn_log", stopThr=1e-13, numItermax=100_000)
    for solver in _SOLVERS.values():
        np.testing.assert_allclose(Sinkhorn(epsilon, solver=solver).solve_cost(cost, a, b).plan().numpy(), truth, atol=1e-10)


def test_the_value_by_its_definition():
    """<P, C> + epsilon KL(P | a x b), and POT's form with the entropy: value - epsilon (H(a) + H(b))."""
    rng = np.random.default_rng(2)
    cost, epsilon = rng.random((30, 40)), 0.2
    a, b = rng.dirichlet(np.ones(30)), rng.dirichlet(np.ones(40))
    plan = ot.sinkhorn(a, b, cost, epsilon, stopThr=1e-14, numItermax=100_000)
    divergence = (plan * np.log(plan / np.outer(a, b))).sum()
    result = Sinkhorn(epsilon, solver=SemiDualNewton(1e-11)).solve_cost(cost, a, b)
    assert float(result.cost) == pytest.approx((plan * cost).sum(), rel=1e-9)
    assert float(result.value) == pytest.approx((plan * cost).sum() + epsilon * divergence, rel=1e-9)
    entropies = -(a * np.log(a)).sum() - (b * np.log(b)).sum()
    assert float(result.value) - epsilon * entropies == pytest.approx(
        (plan * cost).sum() + epsilon * (plan * (np.log(plan))).sum(), rel=1e-9
    )


def test_zero_weights_and_many_targets_at_once():
    """One row of weights against several: each as if alone, and nothing moves where no mass is."""
    rng = np.random.default_rng(3)
    cost = rng.random((20, 25))
    a = rng.dirichlet(np.ones(20))
    a[3] = 0
    a /= a.sum()
    b = rng.dirichlet(np.ones(25), 4)
    b[:, 0] = 0
    b /= b.sum(1, keepdims=True)
    solver = SemiDualNewton(1e-11)
    batch = Sinkhorn(0.1, solver=solver).solve_cost(np.broadcast_to(cost, (4, 20, 25)).copy(), np.tile(a, (4, 1)), b)
    plans = batch.plan().numpy()
    assert np.isfinite(plans).all()
    assert plans[:, 3].sum() == 0
    assert plans[:, :, 0].sum() == 0
    for k in range(4):
        alone = ot.sinkhorn(a[a > 0], b[k, 1:], cost[a > 0][:, 1:], 0.1, stopThr=1e-14, numItermax=100_000)
        np.testing.assert_allclose(plans[k][a > 0][:, 1:], alone, atol=1e-10)


def test_an_iteration_limit_warns_once_and_says_so():
    n = 100
    bins = np.arange(n, dtype=float)
    a, b = (np.exp(-((bins - at) ** 2) / (2 * width**2)) for at, width in ((20, 5), (60, 10)))
    cost = (bins[:, None] - bins) ** 2 / n**2
    loss = Sinkhorn(1e-3, solver=LogSinkhorn(1e-9, max_iterations=1))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        result = loss.solve_cost(cost, a / a.sum(), b / b.sum())
    assert [w.category for w in seen] == [ConvergenceWarning]
    assert not result.outcome.ok


def test_the_divergence_of_two_histograms_on_ten_bins():
    n = 10
    a, b = np.linspace(1, n, n), np.full(n, 1 / n)
    a /= a.sum()
    x = np.arange(n, dtype=float)[:, None]

    def value(u, v):
        return float(Sinkhorn(1.0, solver=SemiDualNewton(1e-11))(x, x, u, v))

    plan = ot.sinkhorn(a, b, ot.dist(x, x), 1.0, stopThr=1e-14)
    direct = (plan * ot.dist(x, x)).sum() + (plan * np.log(plan / np.outer(a, b))).sum()
    assert value(a, b) == pytest.approx(direct, rel=1e-9)
    found = float(SinkhornDivergence(1.0, solver=SemiDualNewton(1e-11))(x, x, a, b))
    assert found == pytest.approx(value(a, b) - value(a, a) / 2 - value(b, b) / 2, rel=1e-8)
    assert found > 0


def test_far_smaller_epsilon_than_the_kernel_form_survives():
    """exp(-C / epsilon) underflows to rows of zeros: no NaN, marginals met, the cost near the exact one."""
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((60, 2)), rng.standard_normal((60, 2)) + 10
    cost = ot.dist(x, y)
    epsilon = 1e-4 * cost.mean()
    result = Sinkhorn(epsilon).solve_cost(cost)
    assert float(result.marginal_error) < 1e-6
    exact = ot.emd2([], [], cost)
    assert exact - 1e-6 * cost.max() <= float(result.cost) <= exact + epsilon * math.log(60)


def _relaxed(epsilon=1.0, rho=1.0, seed=42):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((100, 2))
    return ot.dist(x, x), np.full(100, 1 / 100), np.full(100, 1.5 / 100)


@pytest.mark.parametrize("rho", [(1.0, 1.0), (0.3, 2.0), (math.inf, 1.0), (1.0, math.inf)], ids=str)
def test_relaxed_marginals_satisfy_the_fixed_point(rho):
    """f_i = -(rho / (rho + eps)) eps log sum_j b_j exp((g_j - c_ij) / eps), the factor one where rho is infinite."""
    cost, a, b = _relaxed()
    sides = tuple(Balanced() if math.isinf(r) else KLPenalty(r) for r in rho)
    result = UnbalancedSinkhorn(1.0, penalty=sides, solver=UnbalancedNewton(1e-11)).solve_cost(cost, a, b)
    f, g = result.f.numpy(), result.g.numpy()
    share = [1.0 if math.isinf(r) else r / (r + 1.0) for r in rho]
    np.testing.assert_allclose(f, -share[0] * logsumexp(g - cost + np.log(b), axis=1), atol=1e-8)
    np.testing.assert_allclose(g, -share[1] * logsumexp(f[:, None] - cost + np.log(a)[:, None], axis=0), atol=1e-8)
    plan = result.plan().numpy()
    if math.isinf(rho[0]):
        np.testing.assert_allclose(plan.sum(1), a, atol=1e-8)
    if math.isinf(rho[1]):
        np.testing.assert_allclose(plan.sum(0), b, atol=1e-8)


@pytest.mark.parametrize("epsilon", [1.0, 0.1])
@pytest.mark.parametrize("rho", [0.3, 1.0, 20.0])
def test_relaxed_plans_are_pots(epsilon, rho):
    rng = np.random.default_rng(7)
    cost = ot.dist(rng.standard_normal((40, 2)), rng.standard_normal((50, 2)))
    a, b = rng.dirichlet(np.ones(40)), 1.4 * rng.dirichlet(np.ones(50))
    truth = ot.unbalanced.sinkhorn_unbalanced(
        a, b, cost, epsilon, rho, method="sinkhorn_translation_invariant", reg_type="kl", stopThr=1e-14, numItermax=1_000_000
    )
    found = UnbalancedSinkhorn(epsilon, penalty=KLPenalty(rho)).solve_cost(cost, a, b).plan().numpy()
    np.testing.assert_allclose(found, truth, atol=1e-7)


def test_relaxed_weights_may_have_any_mass_but_no_sign():
    cost, a, b = _relaxed()
    result = UnbalancedSinkhorn(1.0, penalty=KLPenalty(1.0)).solve_cost(cost, 1000 * a, b)
    assert torch.isfinite(result.value)
    with pytest.raises(ValueError, match="non-negative"):
        UnbalancedSinkhorn(1.0).solve_cost(cost, -a, b)
