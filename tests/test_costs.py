"""Ground costs against SciPy, closed forms, and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.spatial.distance import cdist

from discrepancy.costs import Cosine, Euclidean, FunctionCost, Manhattan, PowerCost, Sphere, SquaredEuclidean, as_cost


def cloud(n: int, d: int, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


NAMED = [
    (SquaredEuclidean(), "sqeuclidean", {}),
    (Euclidean(), "euclidean", {}),
    (Manhattan(), "cityblock", {}),
    (Cosine(), "cosine", {}),
]
ALL = [SquaredEuclidean(), Euclidean(), Manhattan(), PowerCost(1.5), PowerCost(3), Cosine(), Sphere()]


def on_domain(cost, x: torch.Tensor) -> torch.Tensor:
    return x / x.norm(dim=-1, keepdim=True) if isinstance(cost, Sphere) else x


@pytest.mark.parametrize(("cost", "metric", "options"), NAMED, ids=lambda v: str(v))
@pytest.mark.parametrize("d", [2, 9])
def test_matrix_is_scipys(cost, metric, options, d) -> None:
    x, y = cloud(7, d), cloud(5, d, 1)
    torch.testing.assert_close(
        cost.matrix(x, y), torch.from_numpy(cdist(x.numpy(), y.numpy(), metric, **options)), atol=1e-13, rtol=0
    )


def test_power_cost_is_the_power_of_the_distance() -> None:
    x, y = cloud(7, 3), cloud(5, 3, 1)
    torch.testing.assert_close(PowerCost(1.5).matrix(x, y), torch.cdist(x, y) ** 1.5, atol=1e-12, rtol=0)
    torch.testing.assert_close(PowerCost(1).matrix(x, y), Euclidean().matrix(x, y))


@pytest.mark.parametrize("cost", ALL, ids=repr)
def test_pairs_are_the_diagonal_and_batches_the_loop(cost) -> None:
    x, y = on_domain(cost, cloud(24, 6).reshape(4, 6, 6)), on_domain(cost, cloud(24, 6, 1).reshape(4, 6, 6))
    matrix = cost.matrix(x, y)
    torch.testing.assert_close(cost.pairs(x, y), matrix.diagonal(dim1=-2, dim2=-1), atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(matrix[2], cost.matrix(x[2], y[2]), atol=1e-12, rtol=1e-12)


# Named by class: a function's repr holds its address, and parallel workers must agree on the names.
@pytest.mark.parametrize(
    "cost",
    [*ALL, as_cost(lambda x, y: (x - y).square().sum(-1) + x[..., 0] - y[..., 1])],
    ids=lambda cost: repr(cost) if "0x" not in repr(cost) else type(cost).__name__,
)
@pytest.mark.parametrize("d", [3, 6])
def test_contract_is_the_gradient_of_the_plans_cost(cost, d) -> None:
    x, y = on_domain(cost, cloud(4, d)), on_domain(cost, cloud(5, d, 1))
    plan = cloud(4, 5, 2).abs()
    gx, gy = cost.contract(x, y, plan)
    for got, at, total in (
        (gx, x, lambda p: (plan * cost.matrix(p, y)).sum()),
        (gy, y, lambda p: (plan * cost.matrix(x, p)).sum()),
    ):
        direction = cloud(*at.shape, seed=7)
        h = 1e-5
        finite = (total(at + h * direction) - total(at - h * direction)) / (2 * h)
        assert float((got * direction).sum()) == pytest.approx(float(finite), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("cost", [Euclidean(), Manhattan(), PowerCost(0.5), PowerCost(1.5), Sphere()], ids=repr)
def test_slope_at_coincidence_is_zero(cost) -> None:
    x = on_domain(cost, cloud(3, 3))
    for value in (lambda p: cost.pairs(p, x.clone()).sum(), lambda p: cost.matrix(p, x.clone()).diagonal().sum()):
        point = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(value(point), point)
        assert torch.equal(slope, torch.zeros_like(slope))


def test_sphere_is_accurate_near_coincidence_and_antipodes() -> None:
    for angle in (1e-9, 1e-4, 1.0, math.pi - 1e-9, math.pi):
        x, y = (
            torch.tensor([[1.0, 0.0]], dtype=torch.float64),
            torch.tensor([[math.cos(angle), math.sin(angle)]], dtype=torch.float64),
        )
        assert float(Sphere().pairs(x, y)) == pytest.approx(angle, rel=1e-7, abs=0)
    point = torch.tensor([[math.cos(1e-5), math.sin(1e-5)]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(Sphere().pairs(point, torch.tensor([[1.0, 0.0]], dtype=torch.float64)).sum(), point)
    assert float(slope.norm()) == pytest.approx(1, rel=1e-4)


def test_domains_are_checked() -> None:
    with pytest.raises(ValueError, match=r"norm 1.*divide"):
        Sphere().check(torch.ones(2, 3), "x")
    with pytest.raises(ValueError, match="1 zero row"):
        Cosine().check(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), "x")
    for p in (0, -1, math.inf):
        with pytest.raises(ValueError, match="p must be positive"):
            PowerCost(p)


def test_far_from_the_origin_nothing_cancels() -> None:
    x, y = cloud(6, 16, dtype=torch.float32), cloud(5, 16, 1, dtype=torch.float32)
    near = SquaredEuclidean().matrix(x.double(), y.double())
    shift = 1024.0  # exactly representable together with the rounded coordinates
    xs, ys = x + shift, y + shift
    truth = SquaredEuclidean().matrix(xs.double() - shift, ys.double() - shift)
    assert float((SquaredEuclidean().matrix(xs, ys) - truth).abs().max()) < 1e-4 * float(near.max())


def test_a_function_is_a_cost() -> None:
    x, y = cloud(3, 2), cloud(4, 2, 1)
    cost = as_cost(lambda u, v: (u - v).abs().sum(-1))
    assert isinstance(cost, FunctionCost)
    assert not cost.symmetric
    torch.testing.assert_close(cost.matrix(x, y), Manhattan().matrix(x, y))
    torch.testing.assert_close(cost.pairs(x, x + 1), Manhattan().pairs(x, x + 1))
    with pytest.raises(ValueError, match="reduce the last axis"):
        as_cost(lambda u, v: u - v).matrix(x, y)
    for wrong in ("euclidean", SquaredEuclidean, 3):
        with pytest.raises(TypeError, match="cost must be"):
            as_cost(wrong)  # type: ignore[arg-type]
