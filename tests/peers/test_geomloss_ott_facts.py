"""The content of GeomLoss's and OTT's tests: values and gradients with known answers, symmetry, scaling, restarts, batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from geomloss import SamplesLoss

from discrepancy import MMD, EnergyDistance, Sinkhorn, SinkhornDivergence
from discrepancy.costs import Euclidean
from discrepancy.kernels import Gaussian
from discrepancy.transport import SemiDualNewton

_TIGHT = SemiDualNewton(1e-11)


def _clouds(n=60, m=70, d=2, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(n, d, generator=generator, dtype=dtype), torch.randn(m, d, generator=generator, dtype=dtype)
    a, b = torch.rand(n, generator=generator, dtype=dtype), torch.rand(m, generator=generator, dtype=dtype)
    return x, y + 0.5, a / a.sum(), b / b.sum()


@pytest.mark.parametrize("epsilon", [0.01, 0.3, 10.0])
@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.7, -1.2), (30.0, 0.0)], ids=str)
def test_a_translated_cloud_is_at_the_squared_length_at_every_epsilon(epsilon, shift):
    """The expansion of |x - y - v|^2 has the plan only in the means: S_eps(x, x + v) = |v|^2, with gradient -2 v / n a point."""
    x = _clouds()[0].requires_grad_()
    v = torch.tensor(shift, dtype=torch.float64)
    value = SinkhornDivergence(epsilon, solver=_TIGHT)(x, x.detach() + v)
    assert float(value.detach()) == pytest.approx(float(v @ v), rel=1e-8, abs=1e-9)
    (slope,) = torch.autograd.grad(value, x)
    torch.testing.assert_close(slope, (-2 * v / len(x)).expand_as(x), atol=1e-7, rtol=0)


@pytest.mark.parametrize(
    "loss", [SinkhornDivergence(0.2), SinkhornDivergence(), EnergyDistance()], ids=lambda d: type(d).__name__
)
def test_symmetric_zero_at_equality_and_positive(loss):
    x, y, a, b = _clouds()
    assert torch.equal(loss(x, y, a, b), loss(y, x, b, a))
    assert float(loss(x, x, a, a)) == 0.0
    assert float(loss(x, y, a, b)) > 0


@pytest.mark.parametrize("p", [1, 2])
def test_geomloss_converges_to_our_value(p):
    """Its annealing leaves an error that shrinks as its steps do: a finer one is nearer to ours, by the conventions' factors."""
    x, y, a, b = _clouds(40, 50)
    blur = 0.5
    if p == 2:  # its cost is |x - y|^2 / 2, its epsilon blur^2
        ours, factor = SinkhornDivergence(2 * blur**2, solver=_TIGHT), 2
    else:
        ours, factor = SinkhornDivergence(blur, cost=Euclidean(), solver=_TIGHT), 1
    want = float(ours(x, y, a, b))
    gaps = []
    for scaling in (0.5, 0.9, 0.99):
        loss = SamplesLoss("sinkhorn", p=p, blur=blur, scaling=scaling, backend="tensorized")
        gaps.append(abs(factor * float(loss(a, x, b, y)) - want))
    assert gaps[2] < 1e-3 * want
    assert gaps[2] < gaps[1] < gaps[0]


def test_kernel_losses_carry_known_factors():
    x, y, a, b = _clouds()
    found = SamplesLoss("energy", backend="tensorized")(a, x, b, y)
    assert float(EnergyDistance()(x, y, a, b)) == pytest.approx(2 * float(found), rel=1e-5)
    found = SamplesLoss("gaussian", blur=0.7, backend="tensorized")(a, x, b, y)
    assert float(MMD(Gaussian(0.7), biased=True)(x, y, a, b)) == pytest.approx(2 * float(found), rel=1e-5)


def test_batches_equal_single_calls():
    xs, ys, _, _ = zip(*(_clouds(20, 25, 3, seed) for seed in range(4)))
    loss = SinkhornDivergence(0.3, solver=_TIGHT)
    together = loss(torch.stack(xs), torch.stack(ys))
    torch.testing.assert_close(together, torch.stack([loss(x, y) for x, y in zip(xs, ys)]), atol=1e-9, rtol=0)


def test_scaling_points_scales_the_value_by_the_square():
    x, y, a, b = _clouds()
    for scale in (1e-3, 10.0, 1e4):
        found = SinkhornDivergence(0.2 * scale**2, solver=_TIGHT)(scale * x, scale * y, a, b)
        assert float(found) == pytest.approx(scale**2 * float(SinkhornDivergence(0.2, solver=_TIGHT)(x, y, a, b)), rel=1e-7)


def test_restart_at_the_solution_takes_next_to_nothing():
    x, y, a, b = _clouds()
    loss = Sinkhorn(0.05)
    first = loss.solve(x, y, a, b)
    again = loss.solve(x, y, a, b, start=first)
    assert again.iterations < first.iterations / 2
    assert float(again.value) == pytest.approx(float(first.value), rel=1e-9)


def test_a_large_epsilon_gives_the_product_and_a_small_one_the_assignment():
    x, y, a, b = _clouds()
    cost = ((x[:, None] - y) ** 2).sum(-1)
    product = float(a @ cost @ b)
    assert float(Sinkhorn(1e5).solve(x, y, a, b).cost) == pytest.approx(product, rel=1e-3)
    from discrepancy import OptimalTransport

    exact = float(OptimalTransport()(x, y, a, b))
    small = Sinkhorn(1e-4).solve(x, y, a, b)
    assert exact * (1 - 1e-6) <= float(small.cost) <= exact + 1e-4 * math.log(70)


@pytest.mark.slow
def test_gaussian_clouds_approach_the_closed_form():
    """Janati et al. (2020), KL to the product, s = epsilon / 2, D = (4 S^1/2 T S^1/2 + s^2)^1/2: the value is
    |m1 - m2|^2 + tr S + tr T - tr D + d s (1 - log(2 s)) + s log det(D + s)."""
    rng = np.random.default_rng(0)
    d, n, epsilon = 2, 3000, 1.0
    left, right = np.diag([1.0, 0.5]), np.array([[0.8, 0.3], [0.3, 1.2]])
    x = rng.standard_normal((n, d)) @ np.linalg.cholesky(left).T
    y = rng.standard_normal((n, d)) @ np.linalg.cholesky(right).T + np.array([1.0, 0.0])
    root = np.sqrt(left)
    square = epsilon / 2
    values, vectors = np.linalg.eigh(4 * root @ right @ root + square**2 * np.eye(d))
    D = vectors @ np.diag(np.sqrt(values)) @ vectors.T
    bures = np.trace(left) + np.trace(right) - np.trace(D) + d * square * (1 - math.log(2 * square))
    want = 1.0 + bures + square * math.log(np.linalg.det(D + square * np.eye(d)))
    assert float(Sinkhorn(epsilon)(x, y)) == pytest.approx(want, rel=0.05)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_gradient_flow_of_the_divergence_reaches_the_target(d):
    """The loss test of both suites: descent along the gradient carries a cloud onto its target."""
    x, y, _, _ = _clouds(30, 30, d)
    loss = SinkhornDivergence(0.05)
    at = x.clone()
    for _ in range(30):
        at = at.detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss(at, y), at)
        at = at - 0.5 * len(at) * 0.5 * slope
    assert float(loss(at.detach(), y)) < 0.02 * float(loss(x, y))
