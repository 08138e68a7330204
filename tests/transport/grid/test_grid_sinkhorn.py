"""Transport between images against the dense problem on the same points, a linear program's limit, and its own certificate."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from discrepancy import Outcome
from discrepancy.costs import Euclidean, Manhattan, PowerCost, SquaredEuclidean
from discrepancy.transport import Grid, GridSinkhorn, GridSinkhornDivergence, RelativeEpsilon, SemiDualNewton, Sinkhorn
from discrepancy.transport.entropic.grid.passes import GridPasses

TIGHT = 1e-12


def image(shape: tuple[int, ...], seed: int, empty: float = 0.2) -> torch.Tensor:
    """Random masses, some of them zero."""
    w = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) ** 3
    w = torch.where(w < empty * w.max(), torch.zeros_like(w), w)
    return w / w.sum()


def points(grid: Grid, shape: tuple[int, ...]) -> torch.Tensor:
    axes = np.meshgrid(*grid.coordinates(shape), indexing="ij")
    return torch.from_numpy(np.stack(axes, -1).reshape(-1, len(shape)))


@pytest.mark.parametrize("cost", [SquaredEuclidean(), Manhattan()], ids=repr)
@pytest.mark.parametrize(
    ("shape", "other"), [((28, 28), (28, 28)), ((30,), (30,)), ((6, 5, 7), (6, 5, 7)), ((11, 17), (13, 8))], ids=str
)
def test_agrees_with_the_dense_problem(cost, shape, other) -> None:
    grid = Grid((0.1, 0.07, 0.2)[: len(shape)])
    target = None if shape == other else Grid((0.15, 0.05), (0.2, -0.1))
    a, b = (image(s, k).requires_grad_() for k, s in enumerate((shape, other)))
    x, y = points(grid, shape), points(target or grid, other)
    found = GridSinkhorn(grid, target, RelativeEpsilon(0.02), cost, tolerance=TIGHT).solve(a, b)
    solver = SemiDualNewton(tolerance=TIGHT)
    dense = Sinkhorn(RelativeEpsilon(0.02), cost, solver=solver).solve(x, y, a.flatten(), b.flatten())
    close = {"rtol": 0, "atol": 1e-10}
    torch.testing.assert_close(found.value, dense.value, **close)
    torch.testing.assert_close(found.cost, dense.cost, **close)
    torch.testing.assert_close(found.f.flatten(), dense.f.detach(), **close)
    torch.testing.assert_close(found.g.flatten(), dense.g.detach(), **close)
    slopes = [torch.autograd.grad(r.value, (a, b)) for r in (found, dense)]
    for left, right in zip(*slopes, strict=True):
        torch.testing.assert_close(left, right, **close)
    v = torch.rand(y.shape[0], 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    torch.testing.assert_close(found.apply(v), dense.apply(v), **close)
    if a.numel() < 300:
        torch.testing.assert_close(found.plan(), dense.plan(), **close)
    assert found.outcome is Outcome.CONVERGED
    assert float(found.marginal_error) < 2e-12
    assert 0 <= float(found.dual_gap) < 1e-11


def test_the_passes_are_sums_over_the_matrix() -> None:
    """At exponents that are no optimum, with empty pixels on both sides."""
    shape, other, rng = (5, 7), (6, 4), np.random.default_rng(0)
    grid, target = Grid((0.3, 0.5)), Grid((0.4, 0.6), (0.1, 0.2))
    a, b = image(shape, 0).numpy(), image(other, 1).numpy()
    C = SquaredEuclidean().matrix(points(grid, shape), points(target, other)).numpy()
    p = GridPasses(a, b, grid.coordinates(shape), target.coordinates(other), SquaredEuclidean())
    scale, v, heavy, full = 9.0, rng.standard_normal(b.size), b.ravel() > 0, a.ravel() > 0
    terms = np.where(heavy, np.exp2(v - scale * C), 0)
    logs = np.log2(terms.sum(1))
    Q = terms / terms.sum(1, keepdims=True)
    found = p.evaluate(v, scale)
    tight = {"rtol": 1e-12, "atol": 1e-14}
    np.testing.assert_allclose(found.logs, logs, **tight)
    np.testing.assert_allclose(found.sums, a.ravel() @ Q, **tight)
    np.testing.assert_allclose(found.squares, a.ravel() @ Q**2, **tight)
    z = rng.standard_normal(b.size) * heavy
    image_of_z = p.curvature(found, v, scale, 1e-9, 0).product(z)
    np.testing.assert_allclose(image_of_z, Q.T @ (a.ravel() * (Q @ z)), **tight)
    u = rng.standard_normal(a.size)
    down = p.soft_minima(u, scale, transposed=True)
    np.testing.assert_allclose(down, np.log2(np.where(full[:, None], np.exp2(u[:, None] - scale * C), 0).sum(0)), **tight)
    u = np.log2(np.where(full, a.ravel(), 1)) - logs + 0.1 * u
    plan = np.where(full[:, None], np.exp2(u[:, None]) * terms, 0)
    sums, rows = p.marginals(u, v, scale), plan.sum(1)
    shrink = np.where(rows > a.ravel(), a.ravel() / np.where(rows > 0, rows, 1), 1)
    np.testing.assert_allclose(sums.rows, rows, **tight)
    np.testing.assert_allclose(sums.columns, plan.sum(0), **tight)
    np.testing.assert_allclose(sums.scaled_columns, shrink @ plan, **tight)
    assert sums.cost == pytest.approx((plan * C).sum(), rel=1e-12)
    w = rng.standard_normal((a.size, 2))
    np.testing.assert_allclose(p.row_products(v, u, scale, w, transposed=True), plan.T @ w, **tight)
    assert p.mean_cost(a.ravel(), b.ravel()) == pytest.approx(a.ravel() @ C @ b.ravel(), rel=1e-13)


def test_gradients_of_the_divergence_are_finite_differences() -> None:
    """A move of mass along a direction that sums to zero."""
    grid, shape = Grid((0.2, 0.2)), (8, 9)
    a, b = ((image(shape, k) + 0.01) / (1 + 0.01 * 72) for k in (0, 1))
    D = GridSinkhornDivergence(grid, epsilon=0.1, tolerance=1e-13)
    move = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    move = (move - move.mean()) * 1e-3
    p = a.clone().requires_grad_()
    slope = torch.autograd.grad(D(p, b), p)[0]
    h = 1e-3
    difference = (D(a + h * move, b) - D(a - h * move, b)) / (2 * h)
    assert float((slope * move).sum()) == pytest.approx(float(difference), rel=1e-5)


def test_the_divergence_agrees_with_its_definition() -> None:
    grid, shape = Grid((0.2, 0.3)), (9, 10)
    a, b = image(shape, 3), image(shape, 4)
    W = GridSinkhorn(grid, epsilon=0.05, tolerance=TIGHT)
    D = GridSinkhornDivergence(grid, epsilon=0.05, tolerance=TIGHT)
    assert float(D(a, b)) == pytest.approx(float(W(a, b) - W(a, a) / 2 - W(b, b) / 2), abs=1e-11)
    assert float(D(a, b)) > 0
    assert float(D(a, a)) == 0.0


def test_a_shift_costs_its_square() -> None:
    """Mass moved by whole pixels: the transport cost is the squared distance, which the value reaches as epsilon falls."""
    a, b = torch.zeros(16, 16, dtype=torch.float64), torch.zeros(16, 16, dtype=torch.float64)
    a[2:6, 3:7], b[7:11, 5:9] = 1 / 16, 1 / 16
    moved = (5 * 0.5) ** 2 + (2 * 0.25) ** 2
    found = GridSinkhorn(Grid((0.5, 0.25)), epsilon=1e-3).solve(a, b)
    assert float(found.cost) == pytest.approx(moved, rel=1e-6)
    # KL(P | a x b) of a matching of 16 points is log 16.
    assert float(found.value) == pytest.approx(moved + 1e-3 * math.log(16), rel=1e-6)


def test_batches_broadcast_and_dtypes() -> None:
    grid = Grid((1.0, 1.0))
    a = torch.stack([image((7, 6), k) for k in range(3)])
    b = image((7, 6), 9).requires_grad_()
    D = GridSinkhorn(grid, epsilon=2.0, tolerance=TIGHT)
    value = D(a, b)
    assert value.shape == (3,)
    alone = torch.stack([D(w, b) for w in a])
    torch.testing.assert_close(value, alone, rtol=1e-12, atol=0)
    summed, parts = torch.autograd.grad(value.sum(), b)[0], torch.autograd.grad(alone.sum(), b)[0]
    torch.testing.assert_close(summed, parts, rtol=0, atol=1e-10)
    result = D.solve(a, b)
    assert result.f.shape == (3, 7, 6)
    single = GridSinkhorn(grid, epsilon=2.0)(a.float(), b.detach().float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), value.detach(), rtol=1e-5, atol=0)
    np.testing.assert_allclose(D(a.numpy(), b.detach().numpy()).numpy(), value.detach().numpy(), rtol=1e-12)


def test_large_images_converge_at_small_epsilon_in_little_memory() -> None:
    """128 x 128 pixels, whose plan would take 2 GB, at a thousandth of the mean cost."""
    i = torch.linspace(0, 1, 128, dtype=torch.float64)
    y, x = torch.meshgrid(i, i, indexing="ij")
    a = (-((x - 0.3) ** 2 + (y - 0.3) ** 2) / 0.02).exp() + 0.5 * (-((x - 0.7) ** 2 + (y - 0.2) ** 2) / 0.005).exp()
    b = (-((x - 0.6) ** 2 + (y - 0.7) ** 2) / 0.0128).exp() + 1e-3
    found = GridSinkhorn(Grid((1 / 128, 1 / 128)), epsilon=RelativeEpsilon(1e-3)).solve(a / a.sum(), b / b.sum())
    assert found.outcome is Outcome.CONVERGED
    assert float(found.marginal_error) < 1e-6
    assert 0 <= float(found.dual_gap) < 1e-5 * float(found.value)


def test_wrong_input_is_refused() -> None:
    grid = Grid((1.0, 1.0))
    a = image((4, 4), 0)
    with pytest.raises(TypeError, match="sum over the 2 axes"):
        GridSinkhorn(grid, cost=Euclidean())
    with pytest.raises(ValueError, match="positive and finite"):
        Grid((1.0, 0.0))
    with pytest.raises(ValueError, match="origin must have 2"):
        Grid((1.0, 1.0), (0.0,))
    with pytest.raises(ValueError, match="give `target`"):
        GridSinkhorn(grid)(a, image((4, 5), 1))
    with pytest.raises(ValueError, match="sum to 1"):
        GridSinkhorn(grid)(a, 2 * a)
    with pytest.raises(ValueError, match="2 grid axes"):
        GridSinkhorn(grid)(a[0], a)
    with pytest.raises(ValueError, match="on one grid"):
        GridSinkhornDivergence(grid, Grid((2.0, 2.0)))
    with pytest.raises(ValueError, match="batch shape"):
        GridSinkhorn(grid)(a.expand(2, 4, 4), a.expand(3, 4, 4))
    with pytest.raises(TypeError, match="must be a Grid"):
        GridSinkhorn((1.0, 1.0))  # type: ignore[arg-type]
    assert GridSinkhorn(Grid((1.0,)), cost=Euclidean()).cost == Euclidean()
    assert GridSinkhorn(grid, cost=PowerCost(2)).cost == PowerCost(2)
