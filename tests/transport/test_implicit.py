"""Implicit derivatives of plan, potentials and bare cost, and second derivatives of the value, against finite differences."""

from __future__ import annotations

import pytest
import torch

from discrepancy import ConvergenceWarning
from discrepancy.costs import Cosine, Euclidean, Manhattan, PowerCost, SquaredEuclidean
from discrepancy.transport import LogSinkhorn, RelativeEpsilon, SemiDualNewton, Sinkhorn, SinkhornDivergence
from discrepancy.transport.entropic import implicit, implicit_system
from discrepancy.transport.entropic.implicit import ImplicitPlan
from discrepancy.transport.entropic.implicit_system import ImplicitSystem, conjugate_gradients
from discrepancy.transport.entropic.pair_costs import MatrixCosts, PointCosts

TIGHT = SemiDualNewton(tolerance=1e-12)
STREAMED = SemiDualNewton(tolerance=1e-12, memory=12 * 8 * 4 * 3 / 2**30)  # a few rows at a time


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cloud(n: int, d: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=rng(seed), dtype=torch.float64)


def masses(logits: torch.Tensor, empty: tuple[int, ...] = ()) -> torch.Tensor:
    """Weights from logits, zero at the given places."""
    w = logits.exp()
    mask = torch.ones_like(w)
    mask[..., list(empty)] = 0
    w = w * mask
    return w / w.sum(-1, keepdim=True)


def check(function, leaves, step: float = 1e-5, rel: float = 2e-6) -> None:
    """Gradients of a scalar function of the leaves, along random directions, against central differences of fourth order."""
    own = [t.clone().requires_grad_() for t in leaves]
    value = function(*own)
    gradients = torch.autograd.grad(value, own, allow_unused=True)
    for k, gradient in enumerate(gradients):
        direction = torch.randn(leaves[k].shape, generator=rng(k), dtype=torch.float64)

        def at(size: float, k=k, direction=direction) -> float:
            moved = [t.clone() for t in leaves]
            moved[k] = moved[k] + size * direction
            with torch.no_grad():
                return float(function(*moved))

        finite = (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step)
        found = 0.0 if gradient is None else float((gradient * direction).sum())
        assert found == pytest.approx(finite, rel=rel, abs=1e-9 / step * 1e-5), k


OUTPUTS = {
    "cost": lambda r, v: r.cost.sum(),
    "f": lambda r, v: (r.f * v[0]).sum(),
    "g": lambda r, v: (r.g * v[1]).sum(),
    "plan": lambda r, v: (r.plan() * (v[0][:, None] + v[1].sin() * v[0][:, None] ** 2)).sum(),
    "apply": lambda r, v: (r.apply(v[2]) * v[0][:, None]).sum(),
    "all": lambda r, v: r.cost.sum() + (r.f * v[0]).sum() * (r.g * v[1]).sum() + r.plan().square().sum(),
}


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize(("kind", "epsilon"), [("kept", 1.0), ("kept", 0.1), ("streamed", 0.3), ("matrix", 0.1)])
def test_every_output_in_every_input(output, kind, epsilon) -> None:
    x, y, u, v = cloud(9), cloud(7, seed=1) + 0.3, cloud(9, 1, 2)[:, 0], cloud(7, 1, 3)[:, 0]
    ways = (cloud(9, 1, 4)[:, 0], cloud(7, 1, 5)[:, 0], cloud(7, 2, 6))
    solver = STREAMED if kind == "streamed" else TIGHT
    D = Sinkhorn(epsilon, solver=solver)

    def points(x, y, u, v):
        return OUTPUTS[output](D.solve(x, y, masses(u), masses(v), differentiable=True), ways)

    def matrix(C, u, v):
        return OUTPUTS[output](D.solve_cost(C, masses(u), masses(v), differentiable=True), ways)

    if kind == "matrix":
        check(matrix, (SquaredEuclidean().matrix(x, y), u, v))
    else:
        check(points, (x, y, u, v))
        if output == "all":  # the two sides are exchanged inside: the smaller one first
            check(
                lambda y, x, v, u: OUTPUTS["all"](
                    D.solve(y, x, masses(v), masses(u), differentiable=True), (ways[1], ways[0], cloud(9, 2, 6))
                ),
                (y, x, v, u),
            )


@pytest.mark.parametrize("kind", ["kept", "streamed"])
def test_zero_weights(kind) -> None:
    """Potentials of points without mass, and the derivative in what moves them, are there and right."""
    x, y, u, v = cloud(8), cloud(7, seed=1) + 0.3, cloud(8, 1, 2)[:, 0], cloud(7, 1, 3)[:, 0]
    ways = (cloud(8, 1, 4)[:, 0], cloud(7, 1, 5)[:, 0], cloud(7, 2, 6))
    D = Sinkhorn(0.3, solver=STREAMED if kind == "streamed" else TIGHT)
    for output in ("f", "g", "plan", "cost"):

        def function(x, y, u, v, output=output):
            found = D.solve(x, y, masses(u, (2,)), masses(v, (0, 3)), differentiable=True)
            return OUTPUTS[output](found, ways)

        check(function, (x, y, u, v))


def test_the_derivative_in_a_weight_that_is_zero() -> None:
    """One-sided: a little mass put where there was none, taken from the others."""
    x, y = cloud(6), cloud(5, seed=1)
    a = torch.tensor([0.3, 0.0, 0.2, 0.1, 0.2, 0.2], dtype=torch.float64, requires_grad=True)
    D, w = Sinkhorn(0.5, solver=TIGHT), cloud(5, 1, 4)[:, 0]
    (slope,) = torch.autograd.grad((D.solve(x, y, a, differentiable=True).g * w).sum(), a)

    def at(h: float) -> float:
        moved = (1 - h) * a.detach() + h * torch.eye(6, dtype=torch.float64)[1]
        return float((D.solve(x, y, moved).g * w).sum())

    h = 1e-5
    assert float(slope[1] - slope @ a.detach()) == pytest.approx((4 * at(h) - at(2 * h) - 3 * at(0.0)) / (2 * h), rel=1e-6)


@pytest.mark.parametrize("epsilon", [0.02, 0.004])
def test_small_epsilon(epsilon) -> None:
    x, y = cloud(20), cloud(15, seed=1) + 0.3
    ways = (cloud(20, 1, 4)[:, 0], cloud(15, 1, 5)[:, 0], cloud(15, 2, 6))
    D = Sinkhorn(epsilon, solver=TIGHT)
    for output in ("cost", "f", "plan"):
        check(lambda x, y, o=output: OUTPUTS[o](D.solve(x, y, differentiable=True), ways), (x, y), step=1e-6, rel=2e-4)


def test_forbidden_pairs_have_no_derivative() -> None:
    C, u = torch.rand(6, 5, generator=rng(0), dtype=torch.float64), cloud(6, 1, 1)[:, 0]
    barred = torch.rand(6, 5, generator=rng(1)) < 0.3
    ways = (cloud(6, 1, 4)[:, 0], cloud(5, 1, 5)[:, 0], cloud(5, 2, 6))
    D = Sinkhorn(0.2, solver=TIGHT)

    def function(C, u):
        found = D.solve_cost(C.masked_fill(barred, float("inf")), masses(u), differentiable=True)
        return OUTPUTS["all"](found, ways) + found.value

    check(function, (C, u))
    leaf = C.clone().requires_grad_()
    (slope,) = torch.autograd.grad(function(leaf, u), leaf)
    assert float(slope[barred].abs().max()) == 0


def test_one_on_one_by_hand() -> None:
    """One point a side: f = g = c / 2 whatever epsilon, the plan is 1."""
    x, y = cloud(1).requires_grad_(), cloud(1, seed=1)
    r = Sinkhorn(0.7, solver=TIGHT).solve(x, y, differentiable=True)
    for out, want in ((r.f, x.detach() - y), (r.cost, 2 * (x.detach() - y))):
        (slope,) = torch.autograd.grad(out.sum(), x, retain_graph=True)  # type: ignore[union-attr]
        torch.testing.assert_close(slope, want)
    (slope,) = torch.autograd.grad(r.plan().sum(), x)
    assert float(slope.abs().max()) < 1e-12


def test_epsilon() -> None:
    """df / depsilon through the system, against solves at other epsilons."""
    C = torch.rand(6, 5, generator=rng(0), dtype=torch.float64)
    a, b = masses(cloud(6, 1, 1)[:, 0]), masses(cloud(5, 1, 2)[:, 0])
    epsilon = torch.tensor([0.1], dtype=torch.float64, requires_grad=True)
    found = Sinkhorn(0.1, solver=TIGHT).solve_cost(C, a, b)
    optimum = ImplicitPlan.at(MatrixCosts(1 << 20), (C[None],), a[None], b[None], epsilon, found.f[None], found.g[None], 1 << 20)  # type: ignore[index]
    for k, out in enumerate((optimum.f[0, 2], optimum.g[0, 1], optimum.cost()[0])):
        (slope,) = torch.autograd.grad(out, epsilon, retain_graph=True)
        h = 1e-5
        more, less = (Sinkhorn(0.1 + s, solver=TIGHT).solve_cost(C, a, b) for s in (h, -h))
        pick = [lambda r: float(r.f[2]), lambda r: float(r.g[1]), lambda r: float(r.cost)][k]
        assert float(slope) == pytest.approx((pick(more) - pick(less)) / (2 * h), rel=1e-6)


def test_batches_are_their_members() -> None:
    x, y = cloud(3 * 8).reshape(3, 8, 2), cloud(7, seed=1)
    p = x.clone().requires_grad_()
    r = Sinkhorn(0.3, solver=TIGHT).solve(p, y, differentiable=True)
    (slope,) = torch.autograd.grad(r.cost.sum() + r.f.square().sum(), p)  # type: ignore[union-attr]
    for k in range(3):
        q = x[k].clone().requires_grad_()
        s = Sinkhorn(0.3, solver=TIGHT).solve(q, y, differentiable=True)
        torch.testing.assert_close(slope[k], torch.autograd.grad(s.cost + s.f.square().sum(), q)[0], atol=1e-9, rtol=1e-8)  # type: ignore[union-attr,operator]


def test_other_solvers_and_float32() -> None:
    x, y = cloud(12), cloud(10, seed=1)
    want: torch.Tensor | None = None
    for solver in (TIGHT, LogSinkhorn(tolerance=1e-12)):
        p = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(Sinkhorn(0.3, solver=solver).solve(p, y, differentiable=True).cost, p)  # type: ignore[arg-type]
        if want is not None:
            torch.testing.assert_close(slope, want, atol=1e-10, rtol=0)
        want = slope
    q = x.float().requires_grad_()
    r = Sinkhorn(0.3, solver=SemiDualNewton(tolerance=1e-7)).solve(q, y.float(), differentiable=True)
    (slope,) = torch.autograd.grad(r.cost, q)  # type: ignore[arg-type]
    assert slope.dtype == torch.float32
    assert r.cost.dtype == torch.float32  # type: ignore[union-attr]
    torch.testing.assert_close(slope.double(), want, atol=1e-5, rtol=1e-4)


def test_blocks_formed_again_in_the_backward_pass_change_nothing(monkeypatch) -> None:
    x, y = cloud(40), cloud(30, seed=1)
    found = []
    for small in (1 << 25, 0):
        monkeypatch.setattr(implicit, "_SMALL", small)
        for left, right in ((x, y), (y, x)):  # the sides are exchanged inside in one of the two
            p, q = left.clone().requires_grad_(), right.clone().requires_grad_()
            r = Sinkhorn(0.3, solver=SemiDualNewton(1e-12, memory=2e-4)).solve(p, q, differentiable=True)
            loss = r.cost + r.f.square().sum() + r.apply(q).square().sum() + r.plan().square().sum()  # type: ignore[union-attr,operator]
            found.append((r.cost.detach(), *torch.autograd.grad(loss, (p, q))))  # type: ignore[union-attr]
    for k in range(2):
        for whole, blocks in zip(found[k], found[2 + k], strict=True):
            torch.testing.assert_close(whole, blocks, atol=1e-11, rtol=1e-9)


def test_sparse_dense_and_streamed_products_agree(monkeypatch) -> None:
    n, m = 60, 50
    x, y = cloud(n), cloud(m, seed=1)
    a, b = (torch.full((1, k), 1 / k, dtype=torch.float64) for k in (n, m))
    found = Sinkhorn(0.005, solver=TIGHT).solve(x, y)
    systems = []
    for keep, share in ((1 << 30, 0.1), (1 << 30, 0.0), (0, 0.1)):
        monkeypatch.setattr(implicit_system, "_SPARSE", share)
        args = (PointCosts(SquaredEuclidean(), 1 << 14), (x[None], y[None]), a, b, found.f[None], found.g[None])  # type: ignore[index]
        systems.append(ImplicitSystem(*args, torch.tensor([0.005], dtype=torch.float64), keep))
    sparse, dense, streamed = systems
    assert sparse._sparse is not None
    assert dense._dense is not None
    assert streamed._dense is None
    assert streamed._sparse is None
    v, u = cloud(m, 1, 3).T, cloud(n, 1, 4).T
    for other in (sparse, streamed):
        torch.testing.assert_close(other.forth(v), dense.forth(v), atol=1e-14, rtol=1e-12)
        torch.testing.assert_close(other.back(u), dense.back(u), atol=1e-14, rtol=1e-12)
        torch.testing.assert_close(other.normal(v), dense.normal(v), atol=1e-14, rtol=1e-12)
    torch.testing.assert_close(dense.forth(torch.ones_like(v)), torch.ones_like(u))


def test_conjugate_gradients_solve_a_batch_with_scales_of_its_own() -> None:
    basis = torch.linalg.qr(cloud(6, 6)).Q
    A = torch.stack([basis @ torch.diag(torch.logspace(0, -k, 6, dtype=torch.float64)) @ basis.T for k in (1, 5)])
    right = torch.stack([cloud(6, 1, 1)[:, 0], 1e-9 * cloud(6, 1, 2)[:, 0]])
    x, relative = conjugate_gradients(
        lambda p: torch.matmul(A, p[..., None])[..., 0], right, torch.diagonal(A, dim1=-2, dim2=-1).contiguous()
    )
    assert relative < 1e-9
    torch.testing.assert_close(x, torch.linalg.solve(A, right[..., None])[..., 0], rtol=1e-6, atol=0)


class TestSecondDerivatives:
    @pytest.mark.parametrize(
        "cost",
        [
            SquaredEuclidean(),
            Euclidean(),
            Manhattan(),
            PowerCost(1.5),
            Cosine(),
            lambda u, v: (1 + (u - v).square().sum(-1)) ** 0.7,
        ],
        ids=["squared", "euclidean", "manhattan", "power", "cosine", "function"],
    )
    @pytest.mark.parametrize("kind", [Sinkhorn, SinkhornDivergence])
    def test_hessian_vector_products(self, kind, cost) -> None:
        x, y, u, v = cloud(5, 3), cloud(4, 3, 1) + 0.4, cloud(5, 1, 2)[:, 0], cloud(4, 1, 3)[:, 0]
        D = kind(0.6, cost, TIGHT)
        ways = [torch.randn(t.shape, generator=rng(9 + k), dtype=torch.float64) for k, t in enumerate((x, y, u, v))]

        def slope(x, y, u, v):
            leaves = [t if t.requires_grad else t.clone().requires_grad_() for t in (x, y, u, v)]
            with torch.enable_grad():
                value = D(leaves[0], leaves[1], masses(leaves[2]), masses(leaves[3]))
                found = torch.autograd.grad(value, leaves, create_graph=True)
                return sum((s * w).sum() for s, w in zip(found, ways, strict=True))

        check(slope, (x, y, u, v))

    def test_gradgradcheck_of_a_matrix(self) -> None:
        C, u = torch.rand(4, 3, generator=rng(0), dtype=torch.float64), cloud(4, 1, 2)[:, 0]
        D = Sinkhorn(0.5, solver=TIGHT)
        leaves = (C.requires_grad_(), u.requires_grad_())
        assert torch.autograd.gradcheck(lambda C, u: D.solve_cost(C, masses(u)).value, leaves)
        assert torch.autograd.gradgradcheck(lambda C, u: D.solve_cost(C, masses(u)).value, leaves, atol=1e-6)

    def test_streamed_is_kept(self) -> None:
        x, y = cloud(12), cloud(10, seed=1)
        found = []
        for solver in (TIGHT, STREAMED):
            p = x.clone().requires_grad_()
            (slope,) = torch.autograd.grad(Sinkhorn(0.2, solver=solver)(p, y), p, create_graph=True)
            found.append(torch.autograd.grad(slope.square().sum(), p)[0])
        torch.testing.assert_close(found[0], found[1], atol=1e-9, rtol=0)

    def test_the_hessian_of_translates(self) -> None:
        """S(x, x + t) = |t|^2: its second derivative in t is 2 I."""
        x, t = cloud(8), torch.tensor([0.4, -0.2], dtype=torch.float64)
        hessian = torch.autograd.functional.hessian(lambda t: SinkhornDivergence(0.3, solver=TIGHT)(x, x + t), t)
        torch.testing.assert_close(hessian, 2 * torch.eye(2, dtype=torch.float64), atol=1e-6, rtol=0)

    def test_what_is_not_there_says_so(self) -> None:
        x, y = cloud(5).requires_grad_(), cloud(4, seed=1)
        D = Sinkhorn(0.5, solver=TIGHT)
        (slope,) = torch.autograd.grad(D.solve(x, y, differentiable=True).cost, x, create_graph=True)  # type: ignore[arg-type]
        with pytest.raises(RuntimeError, match="second ones of the optimal value"):
            slope.sum().backward()
        (slope,) = torch.autograd.grad(D(x, y), x, create_graph=True)
        (second,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match=r"third ones are not|second ones of the optimal"):
            second.square().sum().backward()


def test_not_asked_for_is_detached() -> None:
    x, y = cloud(5).requires_grad_(), cloud(4, seed=1)
    r = Sinkhorn(0.5).solve(x, y)
    assert r.value.requires_grad  # type: ignore[union-attr]
    assert not r.cost.requires_grad  # type: ignore[union-attr]
    assert not r.plan().requires_grad


def test_an_ill_conditioned_system_warns() -> None:
    """Two far pairs whose only link is below rounding: the potentials' difference between them is not determined."""
    x = torch.tensor([[0.0], [1e3]], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([[0.1], [1e3 + 0.1]], dtype=torch.float64)
    r = Sinkhorn(0.5, solver=TIGHT).solve(x, y, differentiable=True)
    with pytest.warns(ConvergenceWarning, match="implicit derivative"):
        torch.autograd.grad(r.f[0] - r.f[1], x, retain_graph=True)  # type: ignore[index]
    (slope,) = torch.autograd.grad(r.cost, x)  # type: ignore[arg-type]
    torch.testing.assert_close(slope, (x - y).detach(), atol=1e-9, rtol=1e-9)


def test_the_default_epsilon_is_held_fixed() -> None:
    x, y = cloud(8).requires_grad_(), cloud(7, seed=1)
    r = Sinkhorn(RelativeEpsilon(0.1), solver=TIGHT).solve(x, y, differentiable=True)
    s = Sinkhorn(float(r.epsilon), solver=TIGHT).solve(x, y, differentiable=True)
    torch.testing.assert_close(torch.autograd.grad(r.cost, x), torch.autograd.grad(s.cost, x))  # type: ignore[arg-type]
    assert float(s.epsilon) == pytest.approx(float(r.epsilon))
