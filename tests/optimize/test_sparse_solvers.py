"""Penalties against their defining integrals, solvers against coordinate descent, the normal equations and each other."""

import math

import pytest
import torch

from discrepancy import ConvergenceWarning, NumericalError
from discrepancy.optimize import (
    MCP,
    SCAD,
    AcceleratedGradient,
    CompositeProblem,
    Lasso,
    ProximalGradient,
    prox_ncg,
    soft_threshold,
)

PENALTIES = [Lasso(), SCAD(), SCAD(2.5), MCP(), MCP(1.5)]


def problem(seed=0, n=60, p=90, lam=0.3, penalty=PENALTIES[1]):
    g = torch.Generator().manual_seed(seed)
    X = torch.randn(n, p, generator=g, dtype=torch.float64)
    X = (X - X.mean(0)) / X.std(0, correction=0)
    y = X[:, :4] @ torch.tensor([2.0, -3.0, 1.5, 2.5], dtype=torch.float64)
    y = y + 0.5 * torch.randn(n, generator=g, dtype=torch.float64)
    y = y - y.mean()
    bound = float(torch.linalg.matrix_norm(X, 2)) ** 2 / n

    def smooth(b):
        r = X @ b - y
        return r.square().mean() / 2, X.T @ r / n

    return X, y, CompositeProblem(smooth, bound, penalty, lam)


@pytest.mark.parametrize("penalty", PENALTIES, ids=repr)
def test_a_penalty_is_the_integral_of_its_published_slope(penalty):
    lam = 0.7

    def slope(t):
        if isinstance(penalty, Lasso):
            return lam
        if isinstance(penalty, SCAD):
            return lam if t <= lam else max(penalty.a * lam - t, 0) / (penalty.a - 1)
        return max(lam - t / penalty.gamma, 0)

    grid = torch.linspace(0, 5, 50_001, dtype=torch.float64)
    slopes = torch.tensor([slope(float(t)) for t in grid], dtype=torch.float64)
    integral = torch.cat([torch.zeros(1, dtype=torch.float64), torch.cumulative_trapezoid(slopes, grid)])
    for sign in (1, -1):
        got = torch.stack([penalty.value(sign * grid[k : k + 1], lam) for k in range(0, len(grid), 500)])
        torch.testing.assert_close(got, integral[::500], rtol=0, atol=1e-6)
    if isinstance(penalty, Lasso):
        return
    b = torch.randn(200, generator=torch.Generator().manual_seed(1), dtype=torch.float64).mul(2).requires_grad_()
    (by_autograd,) = torch.autograd.grad(penalty.concave(b, lam).sum(), b)
    torch.testing.assert_close(penalty.slope(b.detach(), lam), by_autograd, rtol=1e-12, atol=1e-12)


def test_soft_threshold_is_the_proximal_map_of_the_absolute_value():
    x = torch.tensor([-2.0, -0.3, 0.0, 0.2, 1.7], dtype=torch.float64)
    grid = torch.linspace(-3, 3, 60_001, dtype=torch.float64)
    best = grid[((grid - x[:, None]).square() / 2 + 0.5 * grid.abs()).argmin(1)]
    torch.testing.assert_close(soft_threshold(x, 0.5), best, rtol=0, atol=1e-4)


@pytest.mark.parametrize("solver", [AcceleratedGradient(tolerance=1e-9), ProximalGradient(tolerance=1e-9)], ids=["fast", "plain"])
def test_the_lasso_of_scikit_learn(solver):
    sklearn = pytest.importorskip("sklearn.linear_model")
    X, y, task = problem(penalty=Lasso())
    got = solver.solve(task, torch.zeros(X.shape[1], dtype=torch.float64))
    want = sklearn.Lasso(alpha=0.3, tol=1e-12, max_iter=100_000).fit(X.numpy(), y.numpy()).coef_
    torch.testing.assert_close(got.b, torch.from_numpy(want), rtol=0, atol=1e-6)
    assert got.outcome.ok
    assert got.residual < 1e-6


@pytest.mark.parametrize("penalty", [SCAD(), MCP()], ids=repr)
@pytest.mark.parametrize("seed", range(3))
def test_nonconvex_solutions_are_stationary_equal_and_unshrunken(penalty, seed):
    X, y, task = problem(seed, penalty=penalty)
    start = torch.zeros(X.shape[1], dtype=torch.float64)
    fast = AcceleratedGradient(tolerance=1e-9).solve(task, start, record=True)
    plain = ProximalGradient(tolerance=1e-9).solve(task, start, record=True)
    assert fast.objective == pytest.approx(plain.objective, rel=1e-6)
    assert fast.iterations < plain.iterations
    assert all(a >= b - 1e-12 for a, b in zip(plain.objectives, plain.objectives[1:]))  # it never climbs
    assert fast.b.nonzero()[:, 0].tolist() == [0, 1, 2, 3]
    # Large coefficients carry no penalty: they are those of least squares on the support.
    plain_fit = torch.linalg.lstsq(X[:, :4], y).solution
    torch.testing.assert_close(fast.b[:4], plain_fit, rtol=0, atol=1e-5)
    # Optimality, written down from the definition: |gradient| <= lam at zeros.
    _, gradient = task.smooth(fast.b)
    assert float(gradient[4:].abs().max()) <= 0.3 + 1e-6


def test_conjugate_gradients_reach_the_same_minimum_sooner():
    X, _, task = problem(penalty=Lasso(), lam=0.1)
    start = torch.zeros(X.shape[1], dtype=torch.float64)
    fast = AcceleratedGradient(tolerance=1e-10).solve(task, start)
    got = prox_ncg(
        lambda b: task.smooth(b)[0],
        lambda b: task.smooth(b)[1],
        lambda v, t: soft_threshold(v, 0.1 * t),
        start,
        penalty=lambda b: 0.1 * b.abs().sum(),
        tolerance=1e-8,
    )
    assert got.outcome.ok
    assert got.objective == pytest.approx(fast.objective, rel=1e-9)
    assert got.iterations < fast.iterations


def test_conjugate_gradients_without_a_penalty_solve_equations_and_banana():
    g = torch.Generator().manual_seed(3)
    A = torch.randn(12, 12, generator=g, dtype=torch.float64)
    A = A @ A.T + torch.eye(12, dtype=torch.float64)
    c = torch.randn(12, generator=g, dtype=torch.float64)
    got = prox_ncg(lambda x: x @ A @ x / 2 - c @ x, lambda x: A @ x - c, lambda v, t: v, torch.zeros(12, dtype=torch.float64))
    torch.testing.assert_close(got.x, torch.linalg.solve(A, c), rtol=0, atol=1e-5)

    def banana(x):
        return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2

    def slope(x):
        across = 200 * (x[1] - x[0] ** 2)
        return torch.stack([-2 * (1 - x[0]) - 2 * x[0] * across, across])

    start = torch.tensor([-1.2, 1.0], dtype=torch.float64)
    got = prox_ncg(banana, slope, lambda v, t: v, start, tolerance=1e-7, max_iterations=20_000)
    torch.testing.assert_close(got.x, torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-5)


def test_coefficients_without_penalty_are_not_shrunk():
    X, _, task = problem()
    lam = torch.full((X.shape[1],), 0.3, dtype=torch.float64)
    lam[10] = 0
    free = CompositeProblem(task.smooth, task.lipschitz, Lasso(), lam)
    got = AcceleratedGradient(tolerance=1e-9).solve(free, torch.zeros(X.shape[1], dtype=torch.float64))
    assert abs(float(task.smooth(got.b)[1][10])) < 1e-6


def test_bad_input_is_refused():
    for a in (2, 1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="above 2"):
            SCAD(a)
    for gamma in (1, 0, -3.0, math.inf):
        with pytest.raises(ValueError, match="above 1"):
            MCP(gamma)
    X, _, task = problem()
    for lam in (-0.1, math.nan):
        with pytest.raises(ValueError, match="lam must be non-negative"):
            CompositeProblem(task.smooth, 1.0, SCAD(), lam)
    with pytest.raises(ValueError, match="lipschitz"):
        CompositeProblem(task.smooth, 0.0, SCAD(), 0.1)
    with pytest.raises(ValueError, match="tolerance"):
        AcceleratedGradient(tolerance=0)
    start = torch.zeros(X.shape[1], dtype=torch.float64)
    with pytest.warns(ConvergenceWarning, match="iteration limit"):
        AcceleratedGradient(max_iterations=3).solve(task, start)
    with pytest.raises(NumericalError, match="not finite"):
        prox_ncg(lambda x: x.sum() * math.nan, lambda x: x, lambda v, t: v, start)
