"""`OptimalTransport` as an object: values, results, gradients, starts, batches, refusals, against HiGHS, SciPy and POT."""

from __future__ import annotations

import numpy as np
import ot
import pytest
import torch
from scipy.optimize import linear_sum_assignment, linprog

from discrepancy import NumericalError, OptimalTransport, Outcome, Sinkhorn, TransportResult, Wasserstein
from discrepancy._results import ConvergenceWarning
from discrepancy.costs import Cosine, Euclidean, FunctionCost, Manhattan, PowerCost, Sphere, SquaredEuclidean
from discrepancy.transport import NetworkSimplex
from discrepancy.transport.exact.solution import ExactSolution


def cloud(n: int, d: int, seed: int, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def masses(n: int, seed: int) -> torch.Tensor:
    w = 0.05 + torch.rand(n, generator=torch.Generator().manual_seed(100 + seed), dtype=torch.float64)
    return w / w.sum()


def by_linear_program(C: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """The transport problem handed to HiGHS."""
    n, m = C.shape
    rows, columns = np.kron(np.eye(n), np.ones((1, m))), np.kron(np.ones((1, n)), np.eye(m))
    scale = np.abs(C).max() or 1.0
    found = linprog(C.ravel() / scale, A_eq=np.vstack([rows, columns]), b_eq=np.concatenate([a, b]), method="highs")
    return float(found.fun) * scale


def certify(result: TransportResult, C: torch.Tensor, a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-12) -> None:
    """Everything that a result promises, checked on the full matrix."""
    plan = result.plan().to_dense().double()
    scale = float(C[torch.isfinite(C)].abs().max()) or 1.0
    assert float(plan.min()) >= 0
    assert result.plan()._nnz() <= C.shape[0] + C.shape[1] - 1
    assert float((plan.sum(1) - a).abs().sum() + (plan.sum(0) - b).abs().sum()) <= max(tolerance, 1e-13)
    assert float(result.marginal_error) <= max(tolerance, 1e-13)
    assert result.f is not None
    assert result.g is not None
    f, g = result.f.double(), result.g.double()
    assert float((C - f[:, None] - g).min()) >= -tolerance * scale, "the potentials are not feasible"
    primal = float((plan * torch.where(plan > 0, C, torch.zeros_like(C))).sum())
    assert abs(primal - float(a @ f + b @ g)) <= 10 * tolerance * scale
    assert abs(float(result.dual_gap)) <= 10 * tolerance * scale
    assert abs(float(a @ f) - float(b @ g)) <= 10 * tolerance * scale
    assert float(result.value) == pytest.approx(primal, rel=10 * tolerance, abs=tolerance * scale)
    assert result.outcome.ok
    assert result.epsilon == 0


COSTS = [SquaredEuclidean(), Euclidean(), Manhattan(), PowerCost(3.0), PowerCost(0.5), Cosine()]


@pytest.mark.parametrize("cost", COSTS, ids=repr)
@pytest.mark.parametrize(("n", "m", "d"), [(7, 7, 2), (9, 5, 3), (1, 6, 2), (30, 40, 9)])
def test_value_and_certificate_against_highs(cost, n, m, d) -> None:
    x, y, a, b = cloud(n, d, 1), cloud(m, d, 2) + 0.3, masses(n, 1), masses(m, 2)
    C = cost.matrix(x, y)
    for left, right in ((None, None), (a, b)):
        u, v = (torch.full((k,), 1 / k, dtype=torch.float64) if w is None else w for k, w in ((n, left), (m, right)))
        result = OptimalTransport(cost).solve(x, y, left, right)
        certify(result, C, u, v)
        assert float(result.value) == pytest.approx(by_linear_program(C.numpy(), u.numpy(), v.numpy()), rel=1e-9, abs=1e-12)
        assert float(OptimalTransport(cost)(x, y, left, right)) == pytest.approx(float(result.value), rel=1e-12)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.5])
def test_the_plan_on_the_line(p) -> None:
    """Sorting solves it, and its result is certified as any other."""
    x, y, a, b = cloud(12, 1, 3), cloud(9, 1, 4), masses(12, 3), masses(9, 4)
    a[2] = 0
    x[5] = x[7]
    a = a / a.sum()
    D = OptimalTransport(PowerCost(p))
    result = D.solve(x, y, a, b)
    assert result.rungs == ("sorting",)
    assert result.outcome is Outcome.CLOSED_FORM
    C = (x - y.mT).abs() ** p
    certify(result, C, a, b)
    assert float(result.value) == pytest.approx(by_linear_program(C.numpy(), a.numpy(), b.numpy()), rel=1e-9)
    assert float(D(x, y, a, b)) == pytest.approx(float(result.value), rel=1e-12)


def test_a_concave_cost_on_the_line_is_not_sorted() -> None:
    """|x - y|^(1/2) prefers one long journey to two: sorting would be wrong, and is not used."""
    x, y = torch.tensor([[0.0], [1.0]], dtype=torch.float64), torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    assert float(OptimalTransport(PowerCost(0.5))(x, y)) == pytest.approx(2**0.5 / 2)  # sorted pairs would cost 1


@pytest.mark.parametrize("n", [200, 450])
def test_assignment_is_scipys(n) -> None:
    """Below and above the size where the multi-scale solver takes over."""
    x, y = cloud(n, 2, 5), 0.5 * cloud(n, 2, 6)
    C = torch.cdist(x, y).square().numpy()
    rows, columns = linear_sum_assignment(C)
    result = OptimalTransport().solve(x, y)
    assert float(result.value) == pytest.approx(C[rows, columns].mean(), rel=1e-12)
    np.testing.assert_allclose(result.plan().to_dense().sum(0), 1 / n, rtol=1e-12)
    moved = result.map()(x)
    np.testing.assert_allclose(moved, y[columns], atol=1e-12)


@pytest.mark.parametrize("cost", [SquaredEuclidean(), Euclidean(), Sphere()], ids=repr)
def test_pots_value_for_general_weights(cost) -> None:
    x, y, a, b = cloud(400, 3, 7), cloud(350, 3, 8) + 0.5, masses(400, 7), masses(350, 8)
    x, y = x / x.norm(dim=1, keepdim=True), y / y.norm(dim=1, keepdim=True)
    C = cost.matrix(x, y)
    want = ot.emd2(a.numpy(), b.numpy(), C.numpy(), numItermax=10**7)
    D = OptimalTransport(cost)
    assert float(D(x, y, a, b)) == pytest.approx(want, rel=1e-9)
    assert float(D.solve_cost(C, a, b).value) == pytest.approx(want, rel=1e-9)


def test_cost_matrix_with_forbidden_pairs() -> None:
    C = torch.rand(8, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a, b = masses(8, 9), masses(6, 9)
    C[torch.rand(8, 6, generator=torch.Generator().manual_seed(1)) < 0.2] = torch.inf
    result = OptimalTransport().solve_cost(C, a, b)
    certify(result, C, a, b)
    assert float(result.value) == pytest.approx(
        by_linear_program(np.where(np.isinf(C.numpy()), 1e3, C.numpy()), a.numpy(), b.numpy()), rel=1e-9
    )
    assert not bool((result.plan().to_dense() > 0)[C.isinf()].any())
    assert bool(C.isinf().any())
    blocked = torch.full((2, 2), torch.inf, dtype=torch.float64)
    blocked[0, 0] = blocked[1, 0] = 0.0
    with pytest.raises(NumericalError):
        OptimalTransport().solve_cost(blocked)
    with pytest.raises(TypeError, match="knows no points"):
        result.map()


@pytest.mark.parametrize("n", [40, 1100])
def test_a_function_that_forbids_pairs(n) -> None:
    """On points, and beyond the block and the size where named costs are no longer kept."""

    def near(u, v):
        square = (u - v).square().sum(-1)
        return torch.where(square > 4.0, torch.inf, square)

    x, y = cloud(n, 2, 60), cloud(n, 2, 61)
    C = FunctionCost(near).matrix(x, y)
    assert bool(C.isinf().any())
    result = OptimalTransport(near).solve(x, y)
    assert not bool(C[tuple(result.plan().indices())].isinf().any())
    assert float(result.value) == pytest.approx(float(OptimalTransport().solve_cost(C).value), rel=1e-12)
    assert abs(float(result.dual_gap)) < 1e-12
    with pytest.raises(NumericalError, match="NaN or -inf"):
        OptimalTransport(lambda u, v: (u - v).sum(-1).log())(x, y)


def test_negative_costs_and_a_cost_that_is_not_symmetric() -> None:
    def uphill(x, y):
        return (y - x).sum(-1) + (y - x).relu().square().sum(-1)

    x, y, a, b = cloud(11, 2, 10), cloud(8, 2, 11), masses(11, 10), masses(8, 11)
    D = OptimalTransport(uphill)
    C = FunctionCost(uphill).matrix(x, y)
    certify(D.solve(x, y, a, b), C, a, b)
    assert float(D(x, y, a, b)) == pytest.approx(by_linear_program(C.numpy(), a.numpy(), b.numpy()), rel=1e-9)
    assert float(D(y, x, b, a)) != pytest.approx(float(D(x, y, a, b)), rel=1e-2)


def test_zero_weights_duplicates_and_one_point() -> None:
    x, y, b = cloud(9, 2, 12), cloud(7, 2, 13), masses(7, 13)
    x[3] = x[4]
    a = masses(9, 12).clone()
    a[[0, 8]] = 0
    a = a / a.sum()
    x[0] = 1e6  # where no mass is, nothing may be scaled by it
    certify(OptimalTransport().solve(x, y, a, b), SquaredEuclidean().matrix(x, y), a, b)
    one = OptimalTransport().solve(x[1:2], y, None, b)
    assert float(one.value) == pytest.approx(float(b @ (x[1] - y).square().sum(1)), rel=1e-13)
    same = OptimalTransport().solve(x[1:2], x[1:2])
    assert (float(same.value), float(same.dual_gap)) == (0.0, 0.0)


@pytest.mark.parametrize("d", [2, 64, 10_000])
def test_float32_and_layouts(d) -> None:
    x, y = cloud(12, d, 14, torch.float32), cloud(10, d, 15, torch.float32)
    want = float(OptimalTransport()(x.double(), y.double()))
    got = OptimalTransport()(x.T.contiguous().T, y[:, :])
    assert got.dtype == torch.float32
    assert float(got) == pytest.approx(want, rel=1e-6)
    result = OptimalTransport().solve(x, y)
    assert result.f is not None
    assert {result.f.dtype, result.value.dtype, result.plan().dtype} == {torch.float32}


def test_a_far_offset_does_not_cost_digits() -> None:
    x, y = cloud(30, 20, 16), cloud(30, 20, 17)
    near = float(OptimalTransport()(x, y))
    shift = 2.0**20
    assert float(OptimalTransport()(x + shift, y + shift)) == pytest.approx(near, rel=1e-8)
    tiny = 1e-9 * cloud(30, 20, 18)
    assert float(OptimalTransport()(x, x + tiny)) == pytest.approx(float(tiny.square().sum(1).mean()), rel=1e-5)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_costs_of_any_size(scale, dtype) -> None:
    C = torch.rand(20, 25, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    a, b = masses(20, 20), masses(25, 21)
    want = by_linear_program(C.numpy(), a.numpy(), b.numpy())
    result = OptimalTransport().solve_cost((scale * C).to(dtype), a.to(dtype), b.to(dtype))
    assert result.outcome.ok
    assert float(result.value) == pytest.approx(scale * want, rel=1e-9 if dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize("cost", [SquaredEuclidean(), Euclidean(), PowerCost(1.5), Cosine()], ids=repr)
def test_gradients_in_points_and_weights(cost) -> None:
    """Central differences in float64, in every coordinate; in the weights along directions that keep the mass."""
    x, y, a, b = cloud(6, 2, 22), cloud(5, 2, 23) + 0.4, masses(6, 22), masses(5, 23)
    D = OptimalTransport(cost)
    leaves = [t.clone().requires_grad_() for t in (x, y, a, b)]
    gradients = torch.autograd.grad(D(*leaves), leaves)
    h = 1e-6
    for k, at in enumerate((x, y)):
        for i in np.ndindex(*at.shape):
            step = torch.zeros_like(at)
            step[i] = h
            ends = [[x, y], [x, y]]
            ends[0][k], ends[1][k] = at + step, at - step
            finite = (D(*ends[0], a, b) - D(*ends[1], a, b)) / (2 * h)
            assert float(gradients[k][i]) == pytest.approx(float(finite), abs=1e-7)
    for k, at in ((2, a), (3, b)):
        for i in range(len(at) - 1):
            step = torch.zeros_like(at)
            step[i], step[i + 1] = h, -h
            ends = [[a, b], [a, b]]
            ends[0][k - 2], ends[1][k - 2] = at + step, at - step
            finite = (D(x, y, *ends[0]) - D(x, y, *ends[1])) / (2 * h)
            assert float(gradients[k][i] - gradients[k][i + 1]) == pytest.approx(float(finite), abs=1e-7)
        assert float(gradients[k] @ at) == pytest.approx(0.0, abs=1e-12)  # centred: weights are divided by their sum


def test_gradients_in_the_parameters_of_a_cost_and_in_a_matrix() -> None:
    x, y, b = cloud(8, 3, 24), cloud(6, 3, 25), masses(6, 25)
    theta = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64, requires_grad=True)

    def value(theta: torch.Tensor) -> torch.Tensor:
        return OptimalTransport(lambda u, v: ((u - v).square() * theta).sum(-1))(x, y, None, b)

    (gradient,) = torch.autograd.grad(value(theta), theta)
    for i in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[i] = 1e-6
        finite = (value(theta.detach() + step) - value(theta.detach() - step)) / 2e-6
        assert float(gradient[i]) == pytest.approx(float(finite), rel=1e-6)
    C = SquaredEuclidean().matrix(x, y).requires_grad_()
    result = OptimalTransport().solve_cost(C, None, b)
    torch.testing.assert_close(torch.autograd.grad(result.value, C)[0], result.plan().to_dense())


def test_an_upstream_factor_reaches_all_gradients() -> None:
    x, y, a = cloud(5, 2, 26).requires_grad_(), cloud(5, 2, 27), masses(5, 26).requires_grad_()
    plain = torch.autograd.grad(OptimalTransport()(x, y, a), (x, a))
    scaled = torch.autograd.grad(-3 * OptimalTransport()(x, y, a), (x, a))
    for one, other in zip(plain, scaled, strict=True):
        torch.testing.assert_close(other, -3 * one)


@pytest.mark.parametrize("d", [1, 2])
def test_second_derivatives_are_refused(d) -> None:
    x, y = cloud(5, d, 28).requires_grad_(), cloud(5, d, 29)
    (gradient,) = torch.autograd.grad(OptimalTransport()(x, y), x, create_graph=True)
    with pytest.raises(RuntimeError, match="Sinkhorn"):
        torch.autograd.grad(gradient.square().sum(), x)


def test_batches_and_lists() -> None:
    x, y = cloud(24, 2, 30).reshape(2, 4, 3, 2), cloud(30, 2, 31).reshape(2, 3, 5, 2)[:, :1].expand(2, 4, 5, 2)
    a, b = masses(3, 30), masses(40, 31).reshape(2, 4, 5)
    b = b / b.sum(-1, keepdim=True)
    D = OptimalTransport()
    whole = D.solve(x, y, a, b)
    v = cloud(5, 2, 32)
    for i, j in np.ndindex(2, 4):
        alone = D.solve(x[i, j], y[i, j], a, b[i, j])
        torch.testing.assert_close(whole.value[i, j], alone.value)
        torch.testing.assert_close(whole.plan().to_dense()[i, j], alone.plan().to_dense())
        torch.testing.assert_close(whole.apply(v)[i, j], alone.apply(v))
        torch.testing.assert_close(whole.map()(x)[i, j], alone.map()(x[i, j]))
        torch.testing.assert_close(whole.potentials()[0](x)[i, j], alone.potentials()[0](x[i, j]))
    torch.testing.assert_close(D(x, y, a, b), whole.value)
    xs, ys = [cloud(4, 2, 33), cloud(7, 2, 34)], [cloud(5, 2, 35), cloud(5, 2, 36)]
    weights = [None, masses(7, 34)]
    torch.testing.assert_close(D(xs, ys, weights), torch.stack([D(xs[0], ys[0]), D(xs[1], ys[1], weights[1])]))
    torch.testing.assert_close(Wasserstein(1)(xs, ys[0])[1], Wasserstein(1)(xs[1], ys[0]))


def test_apply_is_the_plan() -> None:
    x, y, a = cloud(20, 3, 37), cloud(15, 3, 38), masses(20, 37)
    result = OptimalTransport().solve(x, y, a)
    v = cloud(15, 4, 39)
    torch.testing.assert_close(result.apply(v), result.plan().to_dense() @ v)
    with pytest.raises(ValueError, match=r"\(\.\.\., 15, k\)"):
        result.apply(v[:3])


def test_the_map_and_the_potentials_beyond_the_samples() -> None:
    x, y, a = cloud(40, 2, 40), cloud(30, 2, 41), masses(40, 40)
    result = OptimalTransport().solve(x, y, a)
    plan = result.plan().to_dense()
    torch.testing.assert_close(result.map()(x), plan @ y / a[:, None])
    # A translation is found everywhere.
    t = torch.tensor([3.0, -1.0], dtype=torch.float64)
    z = cloud(11, 2, 42)
    torch.testing.assert_close(OptimalTransport().solve(x, x + t).map()(z), z + t)
    f, g = result.potentials()
    torch.testing.assert_close(f(x), result.f, atol=1e-12, rtol=0)
    torch.testing.assert_close(g(y), result.g, atol=1e-12, rtol=0)
    C = SquaredEuclidean().matrix(z, y)
    assert result.g is not None
    torch.testing.assert_close(f(z), (C - result.g).min(1).values)
    assert bool((f(z)[:, None] + result.g <= C + 1e-12).all())
    z.requires_grad_()
    (slope,) = torch.autograd.grad(f(z).sum(), z)
    torch.testing.assert_close(slope, 2 * (z - y[(C - result.g).argmin(1)]).detach())
    torch.testing.assert_close(OptimalTransport().witness(x, y, a)(z), f(z))
    with pytest.raises(ValueError, match=r"shape \(k, 2\)"):
        f(cloud(3, 3, 0))
    # Where differences of points mean nothing, an image is the nearest sample's own.
    sphere = x / x.norm(dim=1, keepdim=True)
    image = OptimalTransport(Cosine()).solve(sphere, sphere.flip(0)).map()(z.detach())
    assert bool(((image[:, None] - sphere).abs().sum(-1).min(1).values < 1e-12).all())


@pytest.mark.parametrize("n", [60, 450])
def test_starts(n) -> None:
    """A start changes nothing but the work, also with the sides exchanged, other weights, and a batch."""
    x, y, a = cloud(n, 2, 43), cloud(n, 2, 44) + 0.2, masses(n, 43)
    D = OptimalTransport()
    first = D.solve(x, y, a)
    moved = x + 1e-5 * cloud(n, 2, 45)
    cold = D.solve(moved, y, a)
    assert D.solve(moved, y, a, start=first).iterations < cold.iterations / 4
    for earlier in (first, D.solve(moved, y), D.solve(moved, y, masses(n, 44))):
        again = D.solve(moved, y, a, start=earlier)
        assert float(again.value) == pytest.approx(float(cold.value), rel=1e-12)
        assert again.outcome.ok
    # The first entry decides which side comes first to the solver: here it does so differently in the two calls.
    y[0, 0] = 0.0
    x[0, 0], moved[0, 0] = 1e-6, -1e-6
    for left, right, before in (((moved, a), (y, None), x), ((y, None), (moved, a), x), ((y[:-7], None), (moved, a), x)):
        ends = [(before if points is moved else points) for points, _ in (left, right)]
        weights = (left[1], right[1])
        warm = D.solve(left[0], right[0], *weights, start=D.solve(*ends, *weights))
        without = D.solve(left[0], right[0], *weights)
        assert float(warm.value) == pytest.approx(float(without.value), rel=1e-12)
        assert warm.iterations < without.iterations / 4
    C = SquaredEuclidean().matrix(moved, y)
    matrix = D.solve_cost(C, a)
    assert float(D.solve_cost(C * 1.001, a, start=matrix).value) == pytest.approx(1.001 * float(matrix.value), rel=1e-12)
    pair = D.solve(torch.stack([x, moved]), y, a)
    again = D.solve(torch.stack([moved, x]), y, a, start=pair)
    torch.testing.assert_close(again.value, pair.value.flip(0))
    assert again.iterations < pair.iterations / 4
    with pytest.raises(ValueError, match="same sizes"):
        D.solve(x[1:], y, start=first)
    with pytest.raises(TypeError, match="earlier exact solve"):
        D.solve(x, y, start=Sinkhorn(1.0).solve(x[:5], y[:5]))
    with pytest.raises(TypeError, match="earlier exact solve"):
        D.solve(x, y, start=3)  # type: ignore[arg-type]


def test_refusals() -> None:
    with pytest.raises(TypeError, match="solver must be"):
        OptimalTransport(solver="simplex")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="solver must be"):
        OptimalTransport(solver=NetworkSimplex)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="cost must be"):
        OptimalTransport("l2")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="memory"):
        NetworkSimplex(memory=0)
    with pytest.raises(TypeError, match="rigorous"):
        NetworkSimplex(rigorous=1)  # type: ignore[arg-type]
    D = OptimalTransport()
    with pytest.raises(ValueError, match=r"1 entries that are NaN or -inf, the first at index \(0, 1\)"):
        D.solve_cost([[0.0, float("nan")]])
    with pytest.raises(ValueError, match="NaN or -inf"):
        D.solve_cost([[0.0, float("-inf")], [float("inf"), 0.0]])
    with pytest.raises(ValueError, match="cost matrix of shape"):
        D.solve_cost([1.0, 2.0])
    with pytest.raises(ValueError, match="sum to 1"):
        D.solve_cost([[1.0, 2.0]], b=[1.0, 1.0])
    with pytest.raises(ValueError, match="zero row"):
        OptimalTransport(Cosine())(torch.zeros(2, 2), torch.ones(2, 2))
    with pytest.raises(ValueError, match="non-negative"):
        D.pooled(torch.ones(3, 2))(torch.tensor([[2.0, -1.0, 0.0]]), torch.tensor([[0.0, 0.0, 1.0]]))
    with pytest.raises(ValueError, match="weight rows must both have shape"):
        D.pooled(torch.ones(3, 2))(torch.ones(2, 2), torch.ones(2, 2))


def test_a_solver_of_ones_own_is_not_believed() -> None:
    """A plan that is not optimal never comes without a word, whoever made it."""

    class Product:
        def solve_points(self, x, y, a, b, cost, *, start=None):
            return self.solve_matrix(np.zeros((len(a), len(b))), a, b)

        def solve_matrix(self, C, a, b, *, start=None):
            rows, columns = np.divmod(np.arange(C.size), C.shape[1])
            f, g = np.zeros(len(a)), np.zeros(len(b))
            return ExactSolution(rows, columns, a[rows] * b[columns], f, g, 0.0, 0.0, 0, 0, Outcome.CONVERGED)

    x, y = cloud(5, 2, 46), cloud(4, 2, 47)
    with pytest.warns(ConvergenceWarning):
        result = OptimalTransport(solver=Product()).solve(x, y)
    assert result.outcome is Outcome.EXHAUSTED
    assert float(result.dual_gap) == pytest.approx(float(torch.cdist(x, y).square().mean()))


@pytest.mark.parametrize("cost", [SquaredEuclidean(), Euclidean(), PowerCost(0.5)], ids=repr)
@pytest.mark.parametrize("memory", [1.0, 1e-9])
def test_pooled_rows_are_weighted_samples(cost, memory) -> None:
    """With the cost matrix kept, and solved on points where it does not fit; overlapping and signed rows for a metric."""
    z = cloud(18, 2, 48)
    A, B = torch.stack([masses(18, k) for k in range(4)]), torch.stack([masses(18, 10 + k) for k in range(4)])
    A[0, ::2] = 0
    B[1, 5:] = 0
    A, B = A / A.sum(1, keepdim=True), B / B.sum(1, keepdim=True)
    statistic = OptimalTransport(cost, NetworkSimplex(memory=memory)).pooled(z)
    want = torch.stack([OptimalTransport(cost)(z, z, a, b) for a, b in zip(A, B, strict=True)])
    torch.testing.assert_close(statistic(A, B), want, atol=1e-12, rtol=1e-10)
    if cost.metric:
        torch.testing.assert_close(statistic(3 * A - 2 * B, B), 3 * want, atol=1e-12, rtol=1e-10)


def test_other_devices_are_refused() -> None:
    x = torch.ones(3, 2, device="meta")
    with pytest.raises(ValueError, match="meta"):
        OptimalTransport().solve_cost(torch.ones(3, 3, device="meta"))
    with pytest.raises(ValueError, match="meta"):
        OptimalTransport()(x, x)
