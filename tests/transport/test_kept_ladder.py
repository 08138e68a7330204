"""The compiled ladder on kept costs: against logarithms in NumPy, POT, the torch path, and on data that break solvers."""

from __future__ import annotations

import math

import numpy as np
import ot
import pytest
import torch
from scipy.special import logsumexp
from torch import Tensor

from discrepancy import NumericalError, Outcome
from discrepancy.costs import SquaredEuclidean
from discrepancy.transport import LogSinkhorn, SemiDualNewton, Sinkhorn, SinkhornDivergence
from discrepancy.transport.entropic.certificate import certify
from discrepancy.transport.entropic.problem import MatrixProblem, Problem


def matrix_problem(cost: np.ndarray, a: np.ndarray, b: np.ndarray) -> MatrixProblem:
    return MatrixProblem(*(torch.from_numpy(np.ascontiguousarray(t))[None] for t in (cost, a, b)), torch.float64)


class Plain(Problem):
    """The same problem for the torch path."""

    def __init__(self, problem: MatrixProblem) -> None:
        super().__init__(problem.a, problem.b, problem.dtype)
        self.cost = problem.cost

    def blocks(self):
        yield slice(0, self.cost.shape[1]), self.cost


def at(epsilon: float) -> Tensor:
    return torch.tensor([epsilon], dtype=torch.float64)


def residual(cost: np.ndarray, a: np.ndarray, b: np.ndarray, found, epsilon: float) -> float:
    """The L1 error of both marginals, by logarithms and independently of any solver."""
    f, g = found.f[0].numpy(), found.g[0].numpy()
    assert np.isfinite(f).all()
    assert np.isfinite(g).all()
    with np.errstate(divide="ignore"):
        exponents = (f[:, None] + g - cost) / epsilon + np.log(a)[:, None] + np.log(b)
    rows, columns = np.exp(logsumexp(exponents, axis=1)), np.exp(logsumexp(exponents, axis=0))
    return float(np.abs(rows - a).sum() + np.abs(columns - b).sum())


def squared(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return ((x[:, None] - y) ** 2).sum(-1)


def normal(w: np.ndarray) -> np.ndarray:
    return w / w.sum()


def clouds(n: int, d: int, seed: int = 0, m: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x, y = random.standard_normal((n, d)), 1.2 * random.standard_normal((m or n, d)) + 0.5
    return squared(x, y), normal(random.random(n) + 0.1), normal(random.random(m or n) + 0.1)


# 90 points: one compiled loop; 300 points: the ladder in Python, dense and sparse.
@pytest.mark.parametrize("n", [90, 300])
@pytest.mark.parametrize("share", [0.5, 0.05, 0.005])
def test_potentials_are_those_of_the_torch_path(n, share) -> None:
    cost, a, b = clouds(n, 2, m=n - 10)
    problem, epsilon = matrix_problem(cost, a, b), at(share * cost.mean())
    solver = SemiDualNewton(tolerance=1e-11)
    compiled, plain = solver.solve(problem, epsilon), solver.solve(Plain(problem), epsilon)
    assert compiled.outcome is plain.outcome is Outcome.CONVERGED
    torch.testing.assert_close(compiled.f, plain.f, atol=1e-7, rtol=0)
    torch.testing.assert_close(compiled.g, plain.g, atol=1e-7, rtol=0)
    value = [float((problem.a * p.f).sum() + (problem.b * p.g).sum()) for p in (compiled, plain)]
    assert value[0] == pytest.approx(value[1], rel=1e-12)
    assert residual(cost, a, b, compiled, float(epsilon)) <= 1.1e-11
    assert float((problem.a * compiled.f).sum()) == pytest.approx(float((problem.b * compiled.g).sum()), rel=1e-12)


@pytest.mark.parametrize("n", [60, 280])
def test_plan_is_pots(n) -> None:
    cost, a, b = clouds(n, 3)
    epsilon = 0.2 * cost.mean()
    plan = ot.sinkhorn(a, b, cost, epsilon, method="sinkhorn_log", stopThr=1e-13, numItermax=10_000)
    found = Sinkhorn(epsilon, solver=SemiDualNewton(tolerance=1e-11)).solve_cost(cost, a, b)
    np.testing.assert_allclose(found.plan().numpy(), plan, atol=1e-12, rtol=1e-6)


def stress():
    n = 300
    random = np.random.default_rng(7)
    equal = np.full(n, 1 / n)
    for d in (2, 32):
        x, y = random.standard_normal((n, d)), 1.2 * random.standard_normal((n, d)) + 0.5
        for share in (1e-3, 1e-4, 1e-5):
            yield f"cloud d={d} {share:g}", squared(x, y), equal, equal, share
    x = random.standard_normal((n, 2))
    y = x[random.integers(0, 60, 200)] + 0.3
    yield "duplicates, n != m", squared(x, y), equal, np.full(200, 1 / 200), 1e-3
    centres = 50 * random.standard_normal((5, 2))
    i, j = random.integers(0, 5, n), random.integers(0, 5, n)
    x, y = centres[i] + random.standard_normal((n, 2)), centres[j] + random.standard_normal((n, 2))
    yield "clusters, equal weights", squared(x, y), equal, equal, 1e-3
    a = normal(random.random(n) * np.array([1, 1e-2, 1e-3, 1e-4, 1e-5])[i])
    b = normal(random.random(n) * np.array([1e-5, 1e-1, 1e-3, 1, 1e-2])[j])
    for share in (1e-2, 1e-3):
        yield f"clusters, masses down to 1e-5, {share:g}", squared(x, y), a, b, share
    for d in (1, 2, 10):
        x, y = random.standard_cauchy((n, d)), random.standard_cauchy((n, d))
        yield f"Cauchy d={d}", squared(x, y), equal, equal, 1e-3
        yield f"Cauchy d={d}, distances", np.sqrt(squared(x, y)), equal, equal, 1e-3
    x, y = random.standard_normal((n, 2)), random.standard_normal((n, 2))
    a, b = normal(10 ** random.uniform(-9, 0, n)), normal(10 ** random.uniform(-9, 0, n))
    yield "weights over nine decades", squared(x, y), a, b, 1e-3
    grid = np.stack(np.meshgrid(np.arange(17.0), np.arange(17.0)), -1).reshape(-1, 2)
    uniform = np.full(289, 1 / 289)
    yield "grid onto itself", squared(grid, grid), uniform, uniform, 1e-3
    bump = [normal(np.exp(-squared(grid, np.array([c]))[:, 0] / 17) + 1e-4) for c in ([5.0, 5.0], [12.0, 10.0])]
    yield "bumps, l1 cost", np.abs(grid[:, None] - grid).sum(-1), *bump, 1e-3
    yield "random costs", random.random((n, n)), equal, equal, 1e-3
    yield "costs of 1e12", 1e12 * random.random((n, n)), equal, equal, 1e-2
    yield "costs of 1e-12", 1e-12 * random.random((n, n)), equal, equal, 1e-2
    yield "negative costs", -random.random((n, n)) + 0.7, equal, equal, 1e-1
    yield "all costs equal", np.full((n, n), 3.0), equal, equal, 1e-3


@pytest.mark.parametrize("case", list(stress()), ids=lambda c: c[0])
def test_stress(case) -> None:
    _, cost, a, b, share = case
    problem, epsilon = matrix_problem(cost, a, b), share * abs(float(cost.mean()))
    found = SemiDualNewton(tolerance=1e-8).solve(problem, at(epsilon))
    assert found.outcome is Outcome.CONVERGED
    assert residual(cost, a, b, found, epsilon) <= 2e-8
    gap = float(certify(problem, found.f, found.g, at(epsilon)).dual_gap)
    assert -1e-12 * np.abs(cost).max() <= gap <= 1e-6 * np.abs(cost).max()


def test_tight_on_request() -> None:
    for n, d, share in ((300, 2, 1e-2), (300, 32, 1e-3), (80, 2, 1e-3)):
        cost, a, b = clouds(n, d)
        found = SemiDualNewton(tolerance=1e-12).solve(matrix_problem(cost, a, b), at(share * cost.mean()))
        assert found.outcome is Outcome.CONVERGED
        assert residual(cost, a, b, found, share * cost.mean()) <= 2e-12 + 1e-15 / share


def test_what_cannot_be_reached_says_so() -> None:
    cost, a, b = clouds(300, 2)
    for n in (300, 60):
        part = cost[:n, :n], normal(a[:n]), normal(b[:n])
        found = SemiDualNewton(tolerance=1e-30).solve(matrix_problem(*part), at(0.01))
        assert found.outcome is Outcome.EXHAUSTED
        assert float(found.error) < 1e-12
        limited = SemiDualNewton(max_iterations=5).solve(matrix_problem(*part), at(0.01))
        assert limited.outcome is Outcome.ITERATION_LIMIT
        assert residual(*part, limited, 0.01) == pytest.approx(float(limited.error), rel=1e-9)


@pytest.mark.parametrize("n", [40, 270])
def test_zero_weights_are_left_out_and_completed(n) -> None:
    cost, a, b = clouds(n, 2)
    a[::3], b[1::2] = 0, 0
    a, b = normal(a), normal(b)
    epsilon = 0.05 * cost.mean()
    found = SemiDualNewton(tolerance=1e-11).solve(matrix_problem(cost, a, b), at(epsilon))
    f, g = found.f[0].numpy(), found.g[0].numpy()
    assert residual(cost, a, b, found, epsilon) <= 2e-11
    soft_f = -epsilon * logsumexp((g - cost) / epsilon, b=b, axis=1)
    soft_g = -epsilon * logsumexp((f[:, None] - cost) / epsilon, b=a[:, None], axis=0)
    np.testing.assert_allclose(f, soft_f, atol=1e-10 * epsilon + 1e-12)
    np.testing.assert_allclose(g, soft_g, atol=1e-8)


def test_a_batch_is_its_members_on_any_number_of_threads() -> None:
    random = np.random.default_rng(3)
    cost = torch.from_numpy(random.random((40, 30, 25)))
    a = torch.from_numpy(np.stack([normal(random.random(30)) for _ in range(40)]))
    b = torch.from_numpy(np.stack([normal(random.random(25)) for _ in range(40)]))
    b[:7, 3] = 0
    b = b / b.sum(-1, keepdim=True)
    epsilon = torch.from_numpy(random.uniform(0.01, 0.5, 40))
    solver, threads = SemiDualNewton(), torch.get_num_threads()
    try:
        found = []
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(solver.solve(MatrixProblem(cost, a, b, torch.float64), epsilon))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0].f, found[1].f)
    assert torch.equal(found[0].g, found[1].g)
    for k in (0, 17, 39):
        one = solver.solve(MatrixProblem(cost[k : k + 1], a[k : k + 1], b[k : k + 1], torch.float64), epsilon[k : k + 1])
        assert torch.equal(one.f[0], found[0].f[k])
        assert torch.equal(one.g[0], found[0].g[k])
    x, y = torch.randn(20, 16, 2, dtype=torch.float64), torch.randn(20, 12, 2, dtype=torch.float64)
    together = SinkhornDivergence(0.3)(x, y)
    torch.testing.assert_close(together, torch.stack([SinkhornDivergence(0.3)(p, q) for p, q in zip(x, y)]), rtol=1e-12, atol=0)


def test_large_batches_member_by_member_and_rungs() -> None:
    cost, a, b = clouds(280, 2)
    costs = torch.from_numpy(np.stack([cost, 2 * cost]))
    weights = [torch.from_numpy(np.stack([w, w])) for w in (a, b)]
    epsilon = torch.tensor([0.01, 0.02], dtype=torch.float64)
    found = SemiDualNewton(tolerance=1e-10).solve(MatrixProblem(costs, *weights, torch.float64), epsilon)
    torch.testing.assert_close(2 * found.f[0], found.f[1], atol=1e-8, rtol=0)
    words = " ".join(found.rungs)
    assert "annealing:" in words
    assert "dense Newton:" in words
    assert "sparse Newton:" in words
    assert "entries a row" in words


@pytest.mark.slow
def test_a_quarter_begins_large_problems() -> None:
    for d in (2, 16):
        cost, a, b = clouds(2000, d)
        for share in (0.01, 0.001):
            found = SemiDualNewton().solve(matrix_problem(cost, a, b), at(share * cost.mean()))
            assert found.outcome is Outcome.CONVERGED
            assert "sample of 500 x 500" in found.rungs
            assert residual(cost, a, b, found, share * cost.mean()) <= 1.01e-6


@pytest.mark.parametrize("n", [50, 300])
def test_a_start_saves_the_annealing_and_a_bad_one_does_no_harm(n) -> None:
    cost, a, b = clouds(n, 2)
    problem, epsilon = matrix_problem(cost, a, b), at(0.01 * cost.mean())
    solver = SemiDualNewton(tolerance=1e-9)
    cold = solver.solve(problem, epsilon)
    warm = solver.solve(problem, epsilon, start=cold.g + 1e-5)
    assert warm.iterations <= 5
    torch.testing.assert_close(warm.f, cold.f, atol=1e-6, rtol=0)
    lost = solver.solve(problem, epsilon, start=1e3 * torch.randn(1, n, dtype=torch.float64))
    assert lost.outcome is Outcome.CONVERGED


@pytest.mark.parametrize("n", [70, 300])
@pytest.mark.parametrize("share", [0.3, 0.01, 0.0005])
def test_a_measure_against_itself(n, share) -> None:
    """The symmetric potential is the fixed point f = softmin(C - f), which no other solver computed."""
    random = np.random.default_rng(0)
    x, a = random.standard_normal((n, 2)), normal(random.random(n) + 0.01)
    a[5] = 0
    a = normal(a)
    cost = squared(x, x)
    epsilon = share * cost.mean()
    found = SemiDualNewton(tolerance=1e-10).solve_symmetric(matrix_problem(cost, a, a), at(epsilon))
    f = found.f[0].numpy()
    assert found.outcome is Outcome.CONVERGED
    assert torch.equal(found.f, found.g)
    soft = -epsilon * logsumexp((f - cost) / epsilon, b=a, axis=1)
    assert np.abs(a * np.expm1((f - soft) / epsilon)).sum() <= 2e-10
    # A point without weight takes the potential that a vanishing weight would have.
    assert f[5] == pytest.approx(soft[5], abs=1e-9)
    if share >= 0.01:
        cross = SemiDualNewton(tolerance=1e-11).solve(matrix_problem(cost, a, a), at(epsilon))
        # The two potentials of the same problem unsymmetrised; each alone is free by a constant on any far-off group of points.
        np.testing.assert_allclose(f[a > 0], ((cross.f + cross.g) / 2)[0].numpy()[a > 0], atol=1e-7)


@pytest.mark.parametrize("n", [40, 270])
@pytest.mark.parametrize("solver", [SemiDualNewton(tolerance=1e-9), LogSinkhorn(tolerance=1e-9)], ids=lambda s: type(s).__name__)
def test_forbidden_pairs_are_exact(n, solver) -> None:
    """As a cost so large that exp underflows, but with zeros, a finite certificate, and no effect on the default epsilon."""
    random = np.random.default_rng(5)
    cost, a, b = random.random((n, n)), normal(random.random(n) + 0.1), normal(random.random(n) + 0.1)
    closed = random.random((n, n)) < 0.6
    walled, high = np.where(closed, np.inf, cost), np.where(closed, 500.0, cost)
    found, like = Sinkhorn(0.1, solver=solver).solve_cost(walled, a, b), Sinkhorn(0.1, solver=solver).solve_cost(high, a, b)
    plan = found.plan().numpy()
    assert (plan[closed] == 0).all()
    np.testing.assert_allclose(plan.sum(0), b, atol=1e-9)
    np.testing.assert_allclose(plan, like.plan().numpy(), atol=1e-9)
    assert float(found.value) == pytest.approx(float(like.value), rel=1e-8)
    assert float(found.cost) == pytest.approx((plan[~closed] * cost[~closed]).sum(), rel=1e-10)
    assert 0 <= float(found.dual_gap) + 1e-12 < 1e-6
    relative = float(Sinkhorn(solver=solver).solve_cost(walled, a, b).epsilon)
    reference = np.outer(a, b)[~closed]
    assert relative == pytest.approx(0.05 * (reference * cost[~closed]).sum() / reference.sum(), rel=1e-10)


def test_gap_of_forbidden_pairs_bounds_the_optimum_of_a_rough_plan() -> None:
    random = np.random.default_rng(6)
    cost = np.where(random.random((30, 30)) < 0.5, np.inf, random.random((30, 30)))
    optimum = float(Sinkhorn(0.05, solver=SemiDualNewton(tolerance=1e-12)).solve_cost(cost).value)
    rough = Sinkhorn(0.05, solver=SemiDualNewton(tolerance=1e-2)).solve_cost(cost)
    assert float(rough.value) <= optimum + 1e-12
    assert optimum <= float(rough.value) + float(rough.dual_gap)
    assert float(rough.dual_gap) < 1


@pytest.mark.parametrize("scale", [1, 90])
def test_what_is_forbidden_too_much_is_named(scale) -> None:
    wall = math.inf
    cost = np.array([[1, wall, wall], [1, wall, wall], [wall, 0, 0]], dtype=float).repeat(scale, 0).repeat(scale, 1)
    with pytest.raises(NumericalError, match=r"no plan.*of weight 0\.666667"):
        Sinkhorn(0.1).solve_cost(cost)
    cost[0] = wall
    with pytest.raises(ValueError, match="every pair of row 0"):
        Sinkhorn(0.1).solve_cost(cost)
    for bad in (math.nan, -wall):
        cost[0] = 1
        cost[1, 1] = bad
        with pytest.raises(ValueError, match=r"NaN or -inf.*\(0, 1, 1\)"):
            Sinkhorn(0.1).solve_cost(cost)


def test_a_plan_that_only_its_zeros_allow() -> None:
    """Allowed below the diagonal only, equal weights: the diagonal is the one plan, at infinite potentials."""
    cost = np.where(np.tri(6) > 0, 1.0, math.inf) + np.eye(6)
    found = Sinkhorn(0.1).solve_cost(cost)
    assert float(found.value) == pytest.approx(2 + 0.1 * math.log(6), rel=1e-6)
    np.testing.assert_allclose(found.plan().numpy(), np.eye(6) / 6, atol=1e-6)


@pytest.mark.parametrize("d", [2, 9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_taken_with_the_kept_cost(d, dtype) -> None:
    """n m beyond 2^14: the gradient is taken while costs are at hand; by hand from the plan, and against central differences."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(150, d, generator=random, dtype=torch.float64).to(dtype)
    y = (torch.randn(130, d, generator=random, dtype=torch.float64) + 3).to(dtype)
    D = Sinkhorn(2.0, solver=SemiDualNewton(tolerance=1e-11))
    p, q = x.clone().requires_grad_(), y.clone().requires_grad_()
    result = D.solve(p, q)
    gx, gy = torch.autograd.grad(result.value, (p, q))
    assert gx.dtype == dtype
    plan = result.plan().double()
    want = 2 * (plan.sum(1, keepdim=True) * x.double() - plan @ y.double())
    torch.testing.assert_close(gx.double(), want, atol=1e-13 if dtype == torch.float64 else 1e-6, rtol=0)
    want = 2 * (plan.sum(0)[:, None] * y.double() - plan.T @ x.double())
    torch.testing.assert_close(gy.double(), want, atol=1e-13 if dtype == torch.float64 else 1e-6, rtol=0)
    if dtype == torch.float64:
        for kind in (D, SinkhornDivergence(2.0, solver=SemiDualNewton(tolerance=1e-11))):
            p, q = x.clone().requires_grad_(), y.clone().requires_grad_()
            slopes = torch.autograd.grad(kind(p, q), (p, q))
            step = [1e-4 * torch.randn(t.shape, generator=random, dtype=dtype) for t in (x, y)]
            finite = float(kind(x + step[0], y + step[1]) - kind(x - step[0], y - step[1])) / 2
            assert float(sum((g * s).sum() for g, s in zip(slopes, step))) == pytest.approx(finite, rel=1e-6)


def test_gradient_at_equality_is_zero_with_the_kept_cost() -> None:
    x = torch.randn(150, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    value = SinkhornDivergence()(x, x.detach().clone())
    assert float(value.detach()) == 0
    assert float(torch.autograd.grad(value, x)[0].abs().max()) < 1e-15


def test_a_matrix_is_never_written_to() -> None:
    cost = SquaredEuclidean().matrix(torch.randn(50, 2, dtype=torch.float64), torch.randn(40, 2, dtype=torch.float64))
    kept = cost.clone()
    Sinkhorn(0.01).solve_cost(cost)
    assert torch.equal(cost, kept)
