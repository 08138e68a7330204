"""Unbalanced entropic transport against closed forms, POT, general solvers, limits and finite differences."""

import math
import subprocess
import sys
import warnings

import numpy as np
import ot
import pytest
import torch
from scipy.optimize import minimize

from discrepancy import ConvergenceWarning, Outcome
from discrepancy.costs import Euclidean, SquaredEuclidean
from discrepancy.testing.gradients import directional_error
from discrepancy.transport import Balanced, KLPenalty, Sinkhorn, TotalVariationPenalty, UnbalancedNewton, UnbalancedSinkhorn

TIGHT = UnbalancedNewton(tolerance=1e-10)


def problem(n=14, m=11, d=2, seed=0, masses=(2.0, 0.7)):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    y = 1.2 * torch.randn(m, d, generator=generator, dtype=torch.float64) + 0.5
    a = torch.rand(n, generator=generator, dtype=torch.float64) + 0.1
    b = torch.rand(m, generator=generator, dtype=torch.float64) + 0.1
    return x, y, a * masses[0] / a.sum(), b * masses[1] / b.sum()


def kl(p, q):
    return float((np.where(p > 0, p * np.log(np.where(p > 0, p, 1) / q), 0) - p + q).sum())


def primal(P, C, a, b, epsilon, price_a, price_b):
    return float((P * C).sum()) + epsilon * kl(P, a[:, None] * b) + price_a(P.sum(1), a) + price_b(P.sum(0), b)


@pytest.mark.parametrize(("rho1", "rho2"), [(1.0, 1.0), (0.3, 4.0)])
@pytest.mark.parametrize("cost", [0.0, 3.0, 500.0])
def test_one_point_against_one_point_has_a_closed_form(rho1, rho2, cost):
    """C + eps log(p / ab) + rho1 log(p / a) + rho2 log(p / b) = 0."""
    a, b, epsilon = 2.0, 0.5, 0.2
    log_p = (epsilon * math.log(a * b) + rho1 * math.log(a) + rho2 * math.log(b) - cost) / (epsilon + rho1 + rho2)
    p = np.array([[math.exp(log_p)]])
    weights = np.array([a]), np.array([b])
    want = primal(p, np.array([[cost]]), *weights, epsilon, lambda p, a: rho1 * kl(p, a), lambda p, b: rho2 * kl(p, b))
    got = UnbalancedSinkhorn(epsilon, penalty=(KLPenalty(rho1), KLPenalty(rho2)), solver=TIGHT).solve_cost(
        np.array([[cost]]), [a], [b]
    )
    torch.testing.assert_close(got.plan(), torch.tensor(p), rtol=1e-6, atol=0)
    assert abs(float(got.value) - want) <= 1e-9 * want
    assert abs(float(got.mass) - p.item()) <= 1e-6 * p.item()


@pytest.mark.parametrize(("cost", "carried"), [(0.5, 0.5), (2.9, None), (40.0, 0.0)])
def test_total_variation_carries_mass_where_that_is_cheaper_than_two_prices(cost, carried):
    """One point each: a cheap pair carries the lesser mass, a dear one nothing, between p = ab exp((rho1 + rho2 - C) / eps)."""
    a, b, epsilon, rho1, rho2 = 2.0, 0.5, 0.1, 1.0, 1.8
    want = a * b * math.exp((rho1 + rho2 - cost) / epsilon) if carried is None else carried
    penalty = (TotalVariationPenalty(rho1), TotalVariationPenalty(rho2))
    C = torch.tensor([[cost]], dtype=torch.float64)
    got = UnbalancedSinkhorn(epsilon, penalty=penalty, solver=TIGHT).solve_cost(C, [a], [b])
    assert abs(float(got.mass) - want) < 1e-9
    value = want * cost + epsilon * kl(np.array([want]), np.array([a * b])) + rho1 * abs(want - a) + rho2 * abs(want - b)
    assert abs(float(got.value) - value) < 1e-9


@pytest.mark.parametrize("epsilon", [0.5, 0.05])
@pytest.mark.parametrize(("rho", "pot"), [((1.0, 1.0), (1.0, 1.0)), ((0.2, 3.0), (0.2, 3.0)), ((None, 1.0), (math.inf, 1.0))])
def test_kl_agrees_with_pot(epsilon, rho, pot):
    x, y, a, b = problem()
    C = SquaredEuclidean().matrix(x, y)
    penalties = tuple(Balanced() if r is None else KLPenalty(r) for r in rho)
    found = UnbalancedSinkhorn(epsilon, penalty=penalties, solver=TIGHT).solve(x, y, a, b)
    A, B, M = a.numpy(), b.numpy(), C.numpy()
    plan = ot.unbalanced.sinkhorn_unbalanced(A, B, M, epsilon, pot, reg_type="kl", numItermax=100_000, stopThr=1e-14)
    np.testing.assert_allclose(found.plan().numpy(), plan, atol=1e-8)

    def price(r):
        return (lambda p, w: 0.0) if r is None else (lambda p, w: r * kl(p, w))

    assert abs(float(found.value) - primal(plan, M, A, B, epsilon, price(rho[0]), price(rho[1]))) < 1e-7
    assert abs(float(found.cost) - float((plan * M).sum())) < 1e-7
    assert abs(float(found.mass) - plan.sum()) < 1e-7


@pytest.mark.parametrize(
    "penalty",
    [TotalVariationPenalty(0.5), (TotalVariationPenalty(2.0), KLPenalty(0.3)), (Balanced(), TotalVariationPenalty(1.0))],
    ids=repr,
)
@pytest.mark.parametrize("epsilon", [0.5, 0.1])
def test_total_variation_agrees_with_a_general_solver(penalty, epsilon):
    """The dual in both potentials at once, by L-BFGS-B with bounds."""
    x, y, a, b = problem(8, 6)
    C = SquaredEuclidean().matrix(x, y).numpy()
    A, B = a.numpy(), b.numpy()
    one, two = penalty if isinstance(penalty, tuple) else (penalty, penalty)

    def negative(z):
        f, g = torch.tensor(z[:8]), torch.tensor(z[8:])
        P = A[:, None] * B * np.exp((z[:8, None] + z[8:] - C) / epsilon)
        value = (A * one.reward(f).numpy()).sum() + (B * two.reward(g).numpy()).sum() - epsilon * (P.sum() - A.sum() * B.sum())
        slope = np.concatenate([A * one.mass(f).numpy() - P.sum(1), B * two.mass(g).numpy() - P.sum(0)])
        return -value, -slope

    bounds = [(one.lower, one.upper)] * 8 + [(two.lower, two.upper)] * 6
    fit = minimize(
        negative,
        np.zeros(14),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": 20_000, "ftol": 1e-15, "gtol": 1e-10, "maxfun": 50_000},
    )
    found = UnbalancedSinkhorn(epsilon, penalty=penalty, solver=TIGHT).solve(x, y, a, b)
    assert abs(float(found.value) + fit.fun) < 1e-7
    assert 0 <= float(found.dual_gap) < 1e-8
    # The primal value of the plan itself, by the definition of the objective.
    plan = found.plan().numpy()
    prices = [(lambda p, w, k=k: 0.0 if k.hard else float((w * k.price(torch.tensor(p / w)).numpy()).sum())) for k in (one, two)]
    assert abs(primal(plan, C, A, B, epsilon, *prices) - float(found.value)) < 1e-7


def test_a_large_rho_is_balanced_transport_and_a_small_one_carries_nothing():
    x, y, a, _ = problem(masses=(1.0, 1.0))
    b = problem(masses=(1.0, 1.0))[3]
    want = Sinkhorn(0.2).solve(x, y, a, b)
    stiff = UnbalancedSinkhorn(0.2, penalty=KLPenalty(1e7), solver=TIGHT).solve(x, y, a, b)
    hard = UnbalancedSinkhorn(0.2, penalty=Balanced(), solver=TIGHT).solve(x, y, a, b)
    for got in (stiff, hard):
        torch.testing.assert_close(got.value, want.value, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(got.plan(), want.plan(), atol=1e-6, rtol=1e-4)
    free = UnbalancedSinkhorn(1e-4, penalty=KLPenalty(1e-4), solver=TIGHT).solve(x + 3, y, a, b)
    assert float(free.mass) < 1e-12
    assert abs(float(free.value) - 1e-4 * 3) < 1e-9  # epsilon m(a) m(b) + rho m(a) + rho m(b)


def test_the_value_scales_with_cost_and_mass():
    """V(s C, s eps, s rho) = s V; and with both weights t times and eps KL's reference too: V is jointly convex, checked at 2."""
    x, y, a, b = problem()
    base = UnbalancedSinkhorn(0.1, penalty=KLPenalty(0.5), solver=TIGHT)(x, y, a, b)
    scaled = UnbalancedSinkhorn(0.4, penalty=KLPenalty(2.0), solver=TIGHT)(2 * x, 2 * y, a, b)
    torch.testing.assert_close(scaled, 4 * base, rtol=1e-9, atol=0)


@pytest.mark.parametrize("penalty", [KLPenalty(1.0), (Balanced(), KLPenalty(0.4)), TotalVariationPenalty(3.0)], ids=repr)
def test_gradients_in_points_and_weights(penalty):
    x, y, a, b = problem(9, 6)
    D = UnbalancedSinkhorn(0.3, penalty=penalty, solver=UnbalancedNewton(tolerance=1e-12))
    generator = torch.Generator().manual_seed(1)
    for k, at in enumerate((x, y, a, b)):
        direction = torch.randn(at.shape, generator=generator, dtype=torch.float64)

        def value(z, k=k):
            return D(*[z if i == k else v for i, v in enumerate((x, y, a, b))])

        exact, finite = directional_error(value, at, direction * at.abs().min())
        assert abs(exact - finite) < 1e-7 * max(1, abs(finite)), (k, exact, finite)


@pytest.mark.parametrize(
    "penalty",
    [KLPenalty(1.0), (TotalVariationPenalty(1.0), KLPenalty(0.4)), (KLPenalty(2.0), Balanced()), Balanced()],
    ids=repr,
)
def test_streamed_equals_kept(penalty):
    """Above the memory budget costs are formed again in every pass: same value, gradient, plan, certificate."""
    x, y, a, b = problem(120, 90, masses=(2.0, 2.0 if penalty == Balanced() else 0.7))
    kept = UnbalancedSinkhorn(0.2, penalty=penalty, solver=TIGHT)
    streamed = UnbalancedSinkhorn(0.2, penalty=penalty, solver=UnbalancedNewton(tolerance=1e-10, memory=1e-4))
    grads = []
    for D in (kept, streamed):
        z = x.clone().requires_grad_()
        found = D.solve(z, y, a, b)
        (grad,) = torch.autograd.grad(found.value, z)
        assert 0 <= float(found.dual_gap) < 1e-8
        grads.append((found.value.detach(), grad, found.plan(), found.cost, found.mass, found.apply(y)))
    for one, two in zip(*grads, strict=True):
        torch.testing.assert_close(one, two, atol=1e-8, rtol=1e-7)


def test_small_epsilon_and_extreme_scales_stay_finite():
    x, y, a, b = problem(60, 50)
    for epsilon, rho, scale in ((1e-4, 1.0, 1.0), (1e-5, 10.0, 1.0), (1e-12, 1e-10, 1e-6), (1e10, 1e12, 1e6), (0.1, 1e9, 1.0)):
        D = UnbalancedSinkhorn(epsilon, penalty=KLPenalty(rho))
        z = (scale * x).requires_grad_()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # rounding may stop it: the outcome then says so
            found = D.solve(z, scale * y, a, b)
        (grad,) = torch.autograd.grad(found.value, z)
        assert bool(torch.isfinite(found.value) and torch.isfinite(grad).all() and torch.isfinite(found.plan()).all())
        assert found.outcome in (Outcome.CONVERGED, Outcome.EXHAUSTED)


def test_batches_and_sizes_of_weights():
    generator = torch.Generator().manual_seed(5)
    x, y = torch.randn(3, 10, 2, generator=generator).double(), torch.randn(3, 7, 2, generator=generator).double()
    a, b = 5 * torch.rand(3, 10, generator=generator).double(), 0.1 * torch.rand(3, 7, generator=generator).double()
    a[1, 3] = 0
    D = UnbalancedSinkhorn(0.2, Euclidean(), KLPenalty(0.5), TIGHT)
    whole = D.solve(x, y, a, b)
    for k in range(3):
        alone = D.solve(x[k], y[k], a[k], b[k])
        torch.testing.assert_close(whole.value[k], alone.value, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(whole.f[k], alone.f, rtol=1e-6, atol=1e-7)
    assert whole.mass.shape == (3,)


def test_forbidden_pairs_carry_nothing():
    x, y, a, b = problem(6, 5)
    C = SquaredEuclidean().matrix(x, y)
    C[2] = math.inf
    C[0, 1] = math.inf
    D = UnbalancedSinkhorn(0.1, penalty=KLPenalty(1.0), solver=TIGHT)
    found = D.solve_cost(C, a, b)
    assert float(found.plan()[2].max()) == 0
    assert float(found.plan()[0, 1]) == 0
    keep = [0, 1, 3, 4, 5]
    less = D.solve_cost(C[keep], a[keep], b)
    # The closed row is destroyed: its price, and its share of epsilon m(a) m(b), are paid in full.
    paid = float(a[2]) * (1.0 + 0.1 * float(b.sum()))
    assert abs(float(found.value) - float(less.value) - paid) < 1e-8
    assert math.isfinite(float(found.cost))
    with pytest.raises(ValueError, match="only forbidden pairs"):
        UnbalancedSinkhorn(0.1, penalty=Balanced()).solve_cost(C, a, b / b.sum() * a.sum())
    with pytest.raises(ValueError, match="NaN or -inf"):
        D.solve_cost(-C, a, b)


def test_far_points_of_tiny_mass_have_their_limit_potentials():
    """A column that hardly takes mass, or weighs nothing, still has the potential that its best response is."""
    x, y, a, b = problem(8, 6)
    y[2] += 100
    b[4] = 0
    rho, epsilon = 1.0, 0.1
    found = UnbalancedSinkhorn(epsilon, penalty=KLPenalty(rho), solver=TIGHT).solve(x, y, a, b)
    C = SquaredEuclidean().matrix(x, y)
    t = -epsilon * torch.logsumexp((found.f[:, None] - C) / epsilon + a.log()[:, None], 0)
    torch.testing.assert_close(found.g, t * rho / (rho + epsilon), rtol=1e-7, atol=1e-7)


def test_a_start_is_worth_it():
    x, y, a, b = problem(60, 50)
    D = UnbalancedSinkhorn(0.01, penalty=KLPenalty(1.0))
    cold = D.solve(x, y, a, b)
    warm = D.solve(x + 1e-4, y, a, b, start=cold)
    assert warm.iterations < cold.iterations
    with pytest.raises(ValueError, match="same sizes"):
        D.solve(x, y[:-1], a, b[:-1], start=cold)


def test_bad_options_are_refused():
    x, y, a, b = problem()
    with pytest.raises(TypeError, match="penalty must be"):
        UnbalancedSinkhorn(penalty=1.0)
    with pytest.raises(TypeError, match="penalty must be"):
        UnbalancedSinkhorn(penalty=(KLPenalty(1.0),) * 3)
    with pytest.raises(TypeError, match="solver must be"):
        UnbalancedSinkhorn(solver="newton")
    with pytest.raises(ValueError, match="masses must be equal"):
        UnbalancedSinkhorn(penalty=Balanced())(x, y, a, b)
    with pytest.raises(ValueError, match="positive sum"):
        UnbalancedSinkhorn()(x, y, 0 * a, b)


@pytest.mark.slow
def test_nothing_quadratic_is_held_above_the_budget():
    """Value, certificate and gradient of 4,000 against 4,000 points in a process of its own: one n x m array would be 128 MB."""
    code = """
import resource, torch
from discrepancy.transport import KLPenalty, UnbalancedNewton, UnbalancedSinkhorn
def run(n):
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    D = UnbalancedSinkhorn(0.5, penalty=KLPenalty(2.0), solver=UnbalancedNewton(memory=1e-3))
    found = D.solve(x, x.detach() + 0.5)
    torch.autograd.grad(found.value, x)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = run(400)
print((run(4000) - before) // 1024)
"""
    grown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=250)
    assert int(grown.stdout) < 50, f"grew by {grown.stdout} MiB"
