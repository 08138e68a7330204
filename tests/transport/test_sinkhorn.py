"""Entropic transport against POT, closed forms, a linear program, limits, and its own certificate."""

from __future__ import annotations

import math

import numpy as np
import ot
import pytest
import torch

from discrepancy import ConvergenceWarning, Outcome
from discrepancy.costs import Euclidean, Manhattan, Sphere, SquaredEuclidean
from discrepancy.transport import RelativeEpsilon, SemiDualNewton, Sinkhorn, SinkhornDivergence
from discrepancy.transport.entropic.problem import MatrixProblem, StreamedProblem, point_problem

TIGHT = SemiDualNewton(tolerance=1e-11)


def cloud(n: int, d: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def masses(n: int, seed: int) -> torch.Tensor:
    w = 0.1 + torch.rand(n, generator=torch.Generator().manual_seed(100 + seed), dtype=torch.float64)
    return w / w.sum()


@pytest.fixture
def problem():
    return cloud(20), 1.3 * cloud(15, seed=1) + 0.5, masses(20, 0), masses(15, 1)


@pytest.mark.parametrize("epsilon", [3.0, 0.3])
@pytest.mark.parametrize("cost", [SquaredEuclidean(), Euclidean(), Manhattan()], ids=repr)
def test_plan_and_value_are_pots(problem, epsilon, cost) -> None:
    x, y, a, b = problem
    C = cost.matrix(x, y)
    plan = ot.sinkhorn(a.numpy(), b.numpy(), C.numpy(), epsilon, method="sinkhorn_log", stopThr=1e-13, numItermax=100_000)
    result = Sinkhorn(epsilon, cost, TIGHT).solve(x, y, a, b)
    torch.testing.assert_close(result.plan(), torch.from_numpy(plan), atol=1e-10, rtol=1e-7)
    reference = np.outer(a, b)
    value = (plan * C.numpy()).sum() + epsilon * (plan * np.log(plan / reference)).sum()
    assert float(result.value) == pytest.approx(value, rel=1e-9)
    assert float(result.cost) == pytest.approx((plan * C.numpy()).sum(), rel=1e-8)
    v = cloud(15, 3, seed=4)
    torch.testing.assert_close(result.apply(v), result.plan() @ v)


def test_two_points_by_hand() -> None:
    """Two points a side with equal weights and cost 0 or c: the plan has diagonal s/2, s = 1 / (1 + exp(-c / eps))."""
    x = torch.tensor([[0.0], [2.0]], dtype=torch.float64)
    eps, c = 0.7, 4.0
    s = 1 / (1 + math.exp(-c / eps))
    result = Sinkhorn(eps, solver=TIGHT).solve(x, x)
    torch.testing.assert_close(result.plan(), torch.tensor([[s, 1 - s], [1 - s, s]], dtype=torch.float64) / 2, atol=1e-12, rtol=0)
    value = c * (1 - s) + eps * (s * math.log(2 * s) + (1 - s) * math.log(2 * (1 - s)))
    assert float(result.value) == pytest.approx(value, rel=1e-11)


def test_monotone_in_epsilon_between_its_limits(problem) -> None:
    x, y, a, b = problem
    C = SquaredEuclidean().matrix(x, y)
    exact = ot.emd2(a.numpy(), b.numpy(), C.numpy())
    values = [float(Sinkhorn(e)(x, y, a, b)) for e in (1e-3, 1e-2, 0.1, 1.0, 10.0, 1e4)]
    assert values == sorted(values)
    assert exact <= values[0] <= exact + 1e-3 * math.log(20)
    assert values[-1] == pytest.approx(float(a @ C @ b), rel=1e-3)


@pytest.mark.parametrize("epsilon", [1.0, 0.05, 0.002])
def test_certificate_brackets_the_optimum(problem, epsilon) -> None:
    """Stopped early or not, dual <= optimum <= dual + gap, and the reported marginal error is the plan's."""
    x, y, a, b = problem
    optimum = float(Sinkhorn(epsilon, solver=TIGHT)(x, y, a, b))
    for tolerance in (1e-2, 1e-6):
        r = Sinkhorn(epsilon, solver=SemiDualNewton(tolerance=tolerance)).solve(x, y, a, b)
        plan = r.plan()
        error = float((plan.sum(1) - a).abs().sum() + (plan.sum(0) - b).abs().sum())
        assert float(r.marginal_error) == pytest.approx(error, abs=1e-12)
        assert error <= tolerance * 1.0001
        assert float(r.value) <= optimum + 1e-9
        assert optimum <= float(r.value) + float(r.dual_gap) + 1e-9
        assert float(r.dual_gap) >= -1e-12
        assert r.outcome is Outcome.CONVERGED
        assert float(r.epsilon) == pytest.approx(epsilon)


def test_relative_epsilon_is_a_share_of_the_mean_cost(problem) -> None:
    x, y, a, b = problem
    mean = float(a @ SquaredEuclidean().matrix(x, y) @ b)
    assert float(Sinkhorn(RelativeEpsilon(0.2)).solve(x, y, a, b).epsilon) == pytest.approx(0.2 * mean, rel=1e-12)
    assert Sinkhorn(RelativeEpsilon(0.2)).resolved(x, y, a, b).epsilon == pytest.approx(0.2 * mean, rel=1e-12)
    with pytest.raises(ValueError, match="one pair at a time"):
        Sinkhorn().resolved(torch.stack([x, 2 * x]), torch.stack([y, y]))


def test_potentials_of_zero_weights_are_the_limit(problem) -> None:
    """They are what a vanishing weight there would have, and the gradient in that weight is the potential."""
    x, y, a, b = problem
    a, b = a.clone(), b.clone()
    a[3], b[[0, 7]] = 0, 0
    a, b = a / a.sum(), b / b.sum()
    r = Sinkhorn(0.3, solver=TIGHT).solve(x, y, a, b)
    tiny = 1e-9
    seen = Sinkhorn(0.3, solver=TIGHT).solve(x, y, (a + tiny * (a == 0)) / (1 + tiny), (b + tiny * (b == 0)) / (1 + 2 * tiny))
    assert r.f is not None
    assert seen.f is not None
    assert r.g is not None
    assert seen.g is not None
    torch.testing.assert_close(r.f, seen.f, atol=1e-6, rtol=0)
    torch.testing.assert_close(r.g, seen.g, atol=1e-6, rtol=0)
    assert float(r.plan()[3].abs().max()) == 0
    keep_a, keep_b = a > 0, b > 0
    part = Sinkhorn(0.3, solver=TIGHT)(x[keep_a], y[keep_b], a[keep_a], b[keep_b])
    assert float(part) == pytest.approx(float(r.value), rel=1e-10)


@pytest.mark.parametrize(
    "cost", [SquaredEuclidean(), Euclidean(), Sphere(), lambda u, v: (u - v).abs().sum(-1) + u[..., 0] - 0.3 * v[..., 1]]
)
@pytest.mark.parametrize("kind", [Sinkhorn, SinkhornDivergence])
def test_gradients_against_finite_differences(kind, cost) -> None:
    x, y, u, v = cloud(6, 3), cloud(5, 3, 1) + 0.3, cloud(6, 1, 2)[:, 0], cloud(5, 1, 3)[:, 0]
    if isinstance(cost, Sphere):
        x, y = x / x.norm(dim=1, keepdim=True), y / y.norm(dim=1, keepdim=True)
    D = kind(0.5, cost, TIGHT)

    def value(x, y, u, v):
        if isinstance(cost, Sphere):
            x, y = x / x.norm(dim=1, keepdim=True), y / y.norm(dim=1, keepdim=True)
        return D(x, y, u.softmax(0), v.softmax(0))

    leaves = [t.clone().requires_grad_() for t in (x, y, u, v)]
    gradients = torch.autograd.grad(value(*leaves), leaves)
    for k, gradient in enumerate(gradients):
        direction = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(k), dtype=torch.float64)
        at = [[x, y, u, v], [x, y, u, v]]
        at[0][k], at[1][k] = at[0][k] + 1e-5 * direction, at[1][k] - 1e-5 * direction
        finite = float(value(*at[0]) - value(*at[1])) / 2e-5
        assert float((gradient * direction).sum()) == pytest.approx(finite, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("kind", [Sinkhorn, SinkhornDivergence])
@pytest.mark.parametrize("cost", [SquaredEuclidean(), Euclidean()], ids=repr)
def test_streaming_is_the_same_forward_and_backward(problem, kind, cost) -> None:
    """With a memory budget of a few rows the cost is never whole; value, gradient, plan action and potentials agree."""
    x, y, a, b = problem
    budget = 15 * 8 * 4 * 3 / 2**30  # three rows of 15 costs
    kept, streamed = kind(0.1, cost, TIGHT), kind(0.1, cost, SemiDualNewton(tolerance=1e-11, memory=budget))
    found = []
    for D in (kept, streamed):
        p, w = x.clone().requires_grad_(), a.clone().requires_grad_()
        r = D.solve(p, y, w, b)
        found.append((r.value, r.f, r.apply(y), r.dual_gap, *torch.autograd.grad(r.value, (p, w))))
    for left, right in zip(*found, strict=True):
        torch.testing.assert_close(left, right, atol=1e-9, rtol=1e-7)


def test_the_budget_decides_what_is_kept() -> None:
    x = cloud(50)[None]
    w = torch.full((1, 50), 0.02, dtype=torch.float64)
    assert isinstance(point_problem(x, x, w, w, SquaredEuclidean(), 1.0), MatrixProblem)
    streamed = point_problem(x, x, w, w, SquaredEuclidean(), 20_000 / 2**30)
    assert isinstance(streamed, StreamedProblem)
    assert all(cost.numel() * 8 * 4 <= 20_000 for _, cost in streamed.blocks())


def test_small_epsilon_far_clusters_and_outliers_converge() -> None:
    for name, x, y in (
        ("clusters", 8 * cloud(60).sign() + 0.1 * cloud(60, seed=2), 8 * cloud(50, seed=1).sign() + 0.1 * cloud(50, seed=3)),
        ("outlier", torch.cat([cloud(40), torch.full((1, 2), 1e4, dtype=torch.float64)]), cloud(41, seed=1)),
        (
            "grid",
            torch.cartesian_prod(*[torch.arange(7, dtype=torch.float64)] * 2),
            torch.cartesian_prod(*[torch.arange(7, dtype=torch.float64)] * 2) + 0.5,
        ),
    ):
        for share in (0.05, 1e-3):
            r = Sinkhorn(RelativeEpsilon(share)).solve(x, y)
            assert r.outcome is Outcome.CONVERGED, (name, share, r)
            assert float(r.dual_gap) <= 1e-4 * float(r.value), (name, share, r)


def test_warm_start_saves_work(problem) -> None:
    x, y, a, b = problem
    D = Sinkhorn(0.01)
    first = D.solve(x, y, a, b)
    again = D.solve(x + 1e-4, y, a, b, start=first)
    cold = D.solve(x + 1e-4, y, a, b)
    assert again.iterations < cold.iterations / 3
    assert float(again.value) == pytest.approx(float(cold.value), rel=1e-6)
    with pytest.raises(ValueError, match="same sizes"):
        D.solve(x, y[:5], start=first)


def test_solve_cost_is_solve(problem) -> None:
    x, y, a, b = problem
    C = SquaredEuclidean().matrix(x, y)
    left, right = Sinkhorn().solve(x, y, a, b), Sinkhorn().solve_cost(C, a, b)
    assert float(left.value) == pytest.approx(float(right.value), rel=1e-9)
    batch = Sinkhorn(0.5).solve_cost(torch.stack([C, 2 * C]))
    assert batch.plan().shape == (2, 20, 15)
    assert float(batch.value[1]) == pytest.approx(float(Sinkhorn(0.5).solve_cost(2 * C).value), rel=1e-8)  # type: ignore[index]
    for wrong, match in ((C[0], "cost matrix"), (C * math.nan, "NaN")):
        with pytest.raises(ValueError, match=match):
            Sinkhorn().solve_cost(wrong)


@pytest.mark.filterwarnings("default::discrepancy.ConvergenceWarning")
def test_stopping_early_warns_once_and_says_so(problem) -> None:
    x, y, a, b = problem
    with pytest.warns(ConvergenceWarning, match="iteration limit") as caught:
        r = Sinkhorn(0.01, solver=SemiDualNewton(max_iterations=3)).solve(x, y, a, b)
    assert len(caught) == 1
    assert r.outcome is Outcome.ITERATION_LIMIT
    assert float(r.marginal_error) > 1e-6
    assert float(r.dual_gap) > 0
    with pytest.warns(ConvergenceWarning) as caught:
        SinkhornDivergence(0.01, solver=SemiDualNewton(max_iterations=3))(x, y, a, b)
    assert len(caught) == 1


def test_float32_uses_its_own_tolerance(problem) -> None:
    x, y, a, b = (t.float() for t in problem)
    r = Sinkhorn(0.05).solve(x, y, a, b)
    assert (r.value.dtype, r.f.dtype, r.plan().dtype) == (torch.float32,) * 3  # type: ignore[union-attr]
    assert float(r.value) == pytest.approx(float(Sinkhorn(0.05)(*problem)), rel=1e-5)


def test_refusals() -> None:
    x = cloud(4)
    for epsilon, error in ((0, ValueError), (-1.0, ValueError), (math.nan, ValueError), ("auto", TypeError), (True, TypeError)):
        with pytest.raises(error, match="epsilon"):
            Sinkhorn(epsilon)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="solver"):
        Sinkhorn(solver=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="norm 1"):
        Sinkhorn(cost=Sphere())(2 * x, x)
    for options, match in (
        ({"tolerance": 0}, "tolerance"),
        ({"max_iterations": 0}, "max_iterations"),
        ({"annealing": 1}, "annealing"),
        ({"memory": -1}, "memory"),
    ):
        with pytest.raises(ValueError, match=match):
            SemiDualNewton(**options)
    with pytest.raises(ValueError, match="fraction"):
        RelativeEpsilon(0)


class TestDivergence:
    def test_is_the_debiased_combination(self, problem) -> None:
        x, y, a, b = problem
        W = Sinkhorn(0.4, solver=TIGHT)
        want = W(x, y, a, b) - W(x, x, a, a) / 2 - W(y, y, b, b) / 2
        assert float(SinkhornDivergence(0.4, solver=TIGHT)(x, y, a, b)) == pytest.approx(float(want), rel=1e-9)

    def test_translates_have_the_squared_shift(self) -> None:
        """Under the quadratic cost S_eps(mu, mu + t) = |t|^2 at every epsilon."""
        x, t = cloud(40, 3), torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
        for epsilon in (0.05, 1.0, 50.0):
            assert float(SinkhornDivergence(epsilon)(x, x + t)) == pytest.approx(float(t @ t), rel=1e-6)

    def test_limits_in_epsilon(self, problem) -> None:
        x, y, a, b = problem
        C = SquaredEuclidean().matrix(x, y)
        exact = ot.emd2(a.numpy(), b.numpy(), C.numpy())
        assert float(SinkhornDivergence(2e-3)(x, y, a, b)) == pytest.approx(exact, rel=5e-3)
        far = float(((a @ x - b @ y) ** 2).sum())
        assert float(SinkhornDivergence(1e5)(x, y, a, b)) == pytest.approx(far, rel=1e-3)
        energy = a @ torch.cdist(x, y) @ b - a @ torch.cdist(x, x) @ a / 2 - b @ torch.cdist(y, y) @ b / 2
        assert float(SinkhornDivergence(1e4, Euclidean())(x, y, a, b)) == pytest.approx(float(energy), rel=1e-3)

    def test_gaussians(self) -> None:
        """The closed form for N(0, s^2), N(0, t^2) on the line, epsilon = 2 sigma^2 (Janati et al. 2020), on fine quantile
        grids."""
        u = torch.special.ndtri((torch.arange(600, dtype=torch.float64) + 0.5) / 600)[:, None]
        s, t, epsilon = 1.0, 2.0, 1.0

        def value(v: float, w: float) -> float:
            # min over couplings of Gaussians of E|x - y|^2 + eps KL: correlation c solves eps c / (1 - c^2) = 2 v w.
            k = 4 * v * w / epsilon
            c = (math.sqrt(1 + k * k) - 1) / k
            return v * v + w * w - 2 * v * w * c - epsilon / 2 * math.log(1 - c * c)

        want = value(s, t) - value(s, s) / 2 - value(t, t) / 2
        assert float(SinkhornDivergence(epsilon)(s * u, t * u)) == pytest.approx(want, rel=2e-2)

    def test_batch_members_equal_or_not(self, problem) -> None:
        x, _, _, _ = problem
        z = torch.stack([x, x + 1, x])
        values = SinkhornDivergence()(z, x)
        assert values[0] == 0
        assert values[2] == 0
        assert float(values[1]) == pytest.approx(2.0, rel=1e-5)

    def test_gradient_at_equality_is_zero(self) -> None:
        x = cloud(12).requires_grad_()
        (slope,) = torch.autograd.grad(SinkhornDivergence()(x, x.detach().clone()), x)
        assert float(slope.abs().max()) < 1e-12

    def test_pooled_rows_of_overlapping_supports(self) -> None:
        z = cloud(15)
        A, B = torch.stack([masses(15, k) for k in range(4)]), torch.stack([masses(15, 9 + k) for k in range(4)])
        A[0, :5] = 0
        A = A / A.sum(1, keepdim=True)
        D = SinkhornDivergence(0.3)
        want = torch.stack([D(z, z, a, b) for a, b in zip(A, B, strict=True)])
        torch.testing.assert_close(D.pooled(z)(A, B), want, atol=1e-7, rtol=1e-5)
        small = SinkhornDivergence(0.3, solver=SemiDualNewton(memory=1e-6))
        torch.testing.assert_close(small.pooled(z)(A, B), want, atol=1e-7, rtol=1e-5)
        with pytest.raises(ValueError, match="non-negative"):
            D.pooled(z)(-A, B)

    def test_witness_is_the_first_variation(self, problem) -> None:
        """Adding a mass h at z changes the divergence by h (witness(z) - <a, witness(x)>)."""
        x, y, a, b = problem
        D = SinkhornDivergence(0.4, solver=TIGHT)
        z = cloud(1, seed=5)
        f = D.witness(x, y, a, b)
        h = 1e-5
        more = D(torch.cat([x, z]), y, torch.cat([(1 - h) * a, torch.tensor([h], dtype=torch.float64)]), b)
        assert float(more - D(x, y, a, b)) / h == pytest.approx(float(f(z) - a @ f(x)), rel=1e-3)
        assert float(a @ f(x) - b @ f(y)) > 0
