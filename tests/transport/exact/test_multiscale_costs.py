"""Every ground cost through the multi-scale solver: compiled metrics, directions, the sphere, and functions of a user."""

import numpy as np
import ot
import pytest
import torch
from point_certificates import check, matrix, weights

from discrepancy._results import NumericalError
from discrepancy.costs import Cosine, Euclidean, FunctionCost, Manhattan, PowerCost, Sphere, SquaredEuclidean
from discrepancy.transport.exact.multiscale import solve_points

COSTS = [
    SquaredEuclidean(),
    Euclidean(),
    Manhattan(),
    PowerCost(0.5),
    PowerCost(1.0),
    PowerCost(2.0),
    PowerCost(3.0),
    Cosine(),
    Sphere(),
    FunctionCost(lambda x, y: (x - y).abs().amax(-1)),
    FunctionCost(lambda x, y: (x - y).clamp_min(0).sum(-1) + 0.25 * (y - x).clamp_min(0).sum(-1)),
]
NAMES = ["squared", "euclidean", "manhattan", "half", "one", "two", "cubic", "cosine", "sphere", "maximum", "asymmetric"]


def problem(cost, n, m, d, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, d)), rng.standard_normal((m, d)) + 0.3
    if isinstance(cost, Sphere):
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        y /= np.linalg.norm(y, axis=1, keepdims=True)
    return x, y, weights(rng, n), weights(rng, m)


@pytest.mark.parametrize("d", [2, 9])
@pytest.mark.parametrize("cost", COSTS, ids=NAMES)
def test_optimum_under_every_cost(cost, d):
    x, y, a, b = problem(cost, 420, 350, d, 10 + d)
    s = solve_points(x, y, a, b, cost)
    C = matrix(x, y, cost)
    check(s, C, a, b)
    assert s.primal == pytest.approx(ot.emd2(a, b, C, numItermax=10**7), rel=1e-9)


@pytest.mark.parametrize("cost", COSTS, ids=NAMES)
def test_zero_weights_get_feasible_potentials(cost):
    x, y, a, b = problem(cost, 150, 180, 3, 2)
    a[::3], b[1::4] = 0, 0
    a, b = a / a.sum(), b / b.sum()
    s = solve_points(x, y, a, b, cost)
    C = matrix(x, y, cost)
    check(s, C, a, b)
    # The largest feasible: every potential touches its constraint somewhere.
    slack = C - s.f[:, None] - s.g
    np.testing.assert_allclose(slack[a == 0].min(1), 0, atol=1e-12)
    np.testing.assert_allclose(slack[:, b == 0].min(0), 0, atol=1e-12)
    kept = solve_points(x[a > 0], y[b > 0], a[a > 0], b[b > 0], cost)
    assert s.primal == pytest.approx(kept.primal, rel=1e-12)


@pytest.mark.parametrize("cost", [Euclidean(), PowerCost(3.0), Sphere()], ids=["euclidean", "cubic", "sphere"])
def test_unpruned_pass_for_metrics(cost):
    for d in (3, 8):
        x, y, a, b = problem(cost, 200, 240, d, 5)
        s = solve_points(x, y, a, b, cost, rigorous=True)
        check(s, matrix(x, y, cost), a, b)


def test_near_and_opposite_points_of_the_sphere():
    # Products lose half of the digits at both ends of the arc; the solver must not.
    rng = np.random.default_rng(8)
    for d in (3, 9):
        x = rng.standard_normal((300, d))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        y = np.where(np.arange(300)[:, None] % 2, -x, x) + 1e-9 * rng.standard_normal((300, d))
        y /= np.linalg.norm(y, axis=1, keepdims=True)
        a, b = weights(rng, 300), weights(rng, 300)
        s = solve_points(x, y, a, b, Sphere())
        C = matrix(x, y, Sphere())
        check(s, C, a, b)
        assert s.primal == pytest.approx(ot.emd2(a, b, C, numItermax=10**7), rel=1e-10)


def test_function_sees_the_samples_dtype_and_blocks_fit_the_memory():
    seen = []

    def distance(x, y):
        seen.append((x.dtype, np.broadcast_shapes(x.shape, y.shape)))
        return (x - y).square().sum(-1)

    rng = np.random.default_rng(9)
    x, y = rng.random((400, 3)).astype(np.float32), rng.random((500, 3)).astype(np.float32)
    a, b = weights(rng, 400), weights(rng, 500)
    s = solve_points(x, y, a, b, FunctionCost(distance), memory=1e-3)
    assert {dtype for dtype, _ in seen} == {torch.float32}
    assert max(np.prod(shape) for _, shape in seen) * 8 * 4 <= 1e-3 * 2**30
    exact = solve_points(x.astype(np.float64), y.astype(np.float64), a, b, SquaredEuclidean())
    assert s.primal == pytest.approx(exact.primal, rel=1e-6)


def test_cost_that_is_not_finite_is_refused():
    rng = np.random.default_rng(1)
    x, a = rng.random((40, 2)), weights(rng, 40)
    wall = FunctionCost(lambda x, y: torch.where((x - y).abs().amax(-1) > 0.5, torch.inf, (x - y).square().sum(-1)))
    with pytest.raises(NumericalError, match="solve_cost"):
        solve_points(x, x + 0.1, a, a, wall)


def test_subclass_of_a_compiled_cost_keeps_its_own_meaning():
    class Doubled(SquaredEuclidean):
        def matrix(self, x, y):
            return 2 * super().matrix(x, y)

        def pairs(self, x, y):
            return 2 * super().pairs(x, y)

    x, y, a, b = problem(SquaredEuclidean(), 60, 70, 2, 0)
    plain, doubled = (solve_points(x, y, a, b, cost()).primal for cost in (SquaredEuclidean, Doubled))
    assert doubled == pytest.approx(2 * plain, rel=1e-12)
