"""Fixed-support barycenters: closed forms, POT, linear programming, certificates, gradients, batches, odd and bad input."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import ot
import pytest
import torch

from discrepancy import ConvergenceWarning, OptimalTransport, SinkhornDivergence, fixed_support_barycenter
from discrepancy.costs import Manhattan
from discrepancy.transport import DebiasedBarycenter, EntropicBarycenter, ExactBarycenter, Grid, SemiDualNewton

LINE = np.linspace(-4, 4, 201)


def normal(mean: float, spread: float, t: np.ndarray = LINE) -> np.ndarray:
    p = np.exp(-np.square(t - mean) / (2 * spread**2))
    return p / p.sum()


def moments(a: np.ndarray, t: np.ndarray = LINE) -> tuple[float, float]:
    mean = float(a @ t)
    return mean, float(a @ np.square(t - mean))


def random_problem(n: int = 40, count: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(n), count), rng.random((n, 2)), rng.dirichlet(np.ones(count))


def test_gaussians_entropic_blurs_by_half_epsilon_and_debiased_does_not() -> None:
    measures, w, epsilon = np.stack([normal(-1, 0.3), normal(1.5, 0.3)]), [0.3, 0.7], 0.08
    for problem, variance in (
        (EntropicBarycenter(epsilon, tolerance=1e-10), 0.09 + epsilon / 2),
        (DebiasedBarycenter(epsilon, tolerance=1e-7), 0.09),
    ):
        found = fixed_support_barycenter(measures, LINE, w, problem=problem)
        assert found.outcome.ok
        assert moments(found.weights.numpy()) == pytest.approx((0.75, variance), abs=1e-5)
        np.testing.assert_allclose(found.weights.numpy(), normal(0.75, variance**0.5), atol=1e-5)


@pytest.mark.parametrize("size", [41, 161, 401])
def test_a_far_start_is_left(size: int) -> None:
    """With tails of e^-170 the first steps raise the error: extrapolation from there must not end in a circle."""
    t = np.linspace(-4, 4, size)
    found = fixed_support_barycenter(np.stack([normal(-1, 0.3, t), normal(1.5, 0.3, t)]), t, problem=DebiasedBarycenter(0.05))
    assert found.iterations < 100
    assert moments(found.weights.numpy(), t) == pytest.approx((0.25, 0.09), abs=1e-3)


def test_gaussians_of_different_spread_debiased() -> None:
    """S_eps barycenters of centred Gaussians are Gaussian; the fixed-point equation of Janati et al. (2020), theorem 3."""
    epsilon, spreads, w = 0.1, np.array([0.2, 0.6]), np.array([0.5, 0.5])
    found = fixed_support_barycenter(
        np.stack([normal(0, s) for s in spreads]), LINE, w, problem=DebiasedBarycenter(epsilon, tolerance=1e-7)
    )
    # With c = epsilon / 4: the slope of S_eps in the variance v vanishes where sum_k w_k sqrt(c^2 + v s_k^2) = sqrt(c^2 + v^2).
    c, variance = epsilon / 4, 0.1
    for _ in range(500):
        variance = np.sqrt(max((w @ np.sqrt(c**2 + variance * spreads**2)) ** 2 - c**2, 0.0))
    assert moments(found.weights.numpy()) == pytest.approx((0.0, variance), abs=2e-4)


def test_bregman_projections_of_pot() -> None:
    measures, points, w = random_problem()
    costs = ot.dist(points, points)
    epsilon = 0.05 * float(costs.mean())
    ours = fixed_support_barycenter(measures, points, w, problem=EntropicBarycenter(epsilon, tolerance=1e-11))
    # POT's plain method weighs all measures alike whatever it is told; the stabilised one does not.
    theirs = ot.bregman.barycenter_stabilized(measures.T, costs, epsilon, weights=w, stopThr=1e-13, numItermax=20_000)
    np.testing.assert_allclose(ours.weights.numpy(), theirs, atol=1e-8)
    plan = ours.plan(1).numpy()
    np.testing.assert_allclose(plan.sum(0), measures[1], atol=1e-12)
    np.testing.assert_allclose(plan.sum(1), ours.weights.numpy(), atol=1e-8)
    entropy = epsilon * (plan * np.log(plan / measures[1])).sum()
    assert float(ours.terms[1]) == pytest.approx((plan * costs).sum() + entropy, abs=1e-8)


def test_debiased_of_pot() -> None:
    measures = np.stack([normal(-1, 0.4), normal(1, 0.2)])
    costs = np.square(LINE[:, None] - LINE)
    ours = fixed_support_barycenter(measures, costs=costs, problem=DebiasedBarycenter(0.1, tolerance=1e-8))
    theirs = ot.bregman.barycenter_debiased(measures.T, costs, 0.1, stopThr=1e-12, numItermax=20_000)
    np.testing.assert_allclose(ours.weights.numpy(), theirs, atol=1e-4)


def test_debiased_terms_are_sinkhorn_divergences_and_no_other_measure_is_closer() -> None:
    measures, points, w = random_problem(25)
    epsilon = 0.05
    found = fixed_support_barycenter(measures, points, w, problem=DebiasedBarycenter(epsilon, tolerance=1e-7))
    D = SinkhornDivergence(epsilon, solver=SemiDualNewton(tolerance=1e-10))

    def objective(a: Any) -> float:
        return float(sum(s * float(D(points, points, a, b)) for s, b in zip(w, measures, strict=True)))

    for k in range(3):
        assert float(found.terms[k]) == pytest.approx(float(D(points, points, found.weights, measures[k])), abs=1e-6)
    assert float(found.value) == pytest.approx(objective(found.weights), abs=1e-6)
    assert -1e-6 < float(found.dual_gap) < 1e-4  # type: ignore[arg-type]
    rng = np.random.default_rng(1)
    for _ in range(5):
        other = 0.95 * found.weights.numpy() + 0.05 * rng.dirichlet(np.ones(25))
        assert objective(other) > float(found.value) - 1e-7


def test_exact_is_pots_programme_with_its_certificate() -> None:
    measures, points, w = random_problem(20)
    costs = ot.dist(points, points)
    found = fixed_support_barycenter(measures, points, w, problem=ExactBarycenter())
    _, log = ot.lp.barycenter(measures.T, costs, weights=w, log=True)
    assert float(found.value) == pytest.approx(log["fun"], rel=1e-7)
    assert abs(float(found.dual_gap)) < 1e-9  # type: ignore[arg-type]
    assert float(found.marginal_error) < 1e-9
    again = [float(OptimalTransport().solve_cost(costs, found.weights, b).value) for b in measures]
    np.testing.assert_allclose(found.terms.numpy(), again, atol=1e-9)
    assert int((found.weights > 1e-12).sum()) <= 3 * 20 - 3 + 1
    np.testing.assert_allclose(found.plan(2).sum(1).numpy(), found.weights.numpy(), atol=1e-12)


def test_exact_on_the_line_averages_quantiles() -> None:
    left, right = np.zeros(21), np.zeros(21)
    left[[0, 4, 6]], right[[10, 14, 20]] = 1 / 3, 1 / 3
    expected = np.zeros(21)
    expected[[5, 9, 13]] = 1 / 3
    found = fixed_support_barycenter(np.stack([left, right]), np.arange(21.0), problem=ExactBarycenter())
    np.testing.assert_allclose(found.weights.numpy(), expected, atol=1e-9)


@pytest.mark.parametrize(
    "problem", [EntropicBarycenter(0.01), DebiasedBarycenter(0.01), ExactBarycenter()], ids=lambda p: type(p).__name__
)
def test_one_measure_and_measures_without_weight(problem) -> None:  # type: ignore[no-untyped-def]
    measures, points, _ = random_problem(15)
    alone = fixed_support_barycenter(measures[:1], points, problem=problem)
    three = fixed_support_barycenter(measures, points, [1.0, 0.0, 0.0], problem=problem)
    np.testing.assert_allclose(alone.weights.numpy(), three.weights.numpy(), atol=2e-3)
    if not isinstance(problem, EntropicBarycenter):
        np.testing.assert_allclose(alone.weights.numpy(), measures[0], atol=2e-3)
        assert float(alone.value) == pytest.approx(0, abs=1e-5)
    assert three.terms.shape == (3,)
    assert float(three.terms[1]) > float(three.terms[0])


@pytest.mark.parametrize("cls", [EntropicBarycenter, DebiasedBarycenter])
def test_zeros_in_measures_and_duplicated_points(cls) -> None:  # type: ignore[no-untyped-def]
    measures, points, w = random_problem(20)
    measures[0, :10] = 0
    measures[1, 5:] = 0
    measures /= measures.sum(1, keepdims=True)
    problem = cls(0.01, tolerance=1e-7)
    found = fixed_support_barycenter(measures, points, w, problem=problem)
    assert bool(torch.isfinite(found.weights).all() & torch.isfinite(found.terms).all())
    tiny = np.maximum(measures, 1e-14)
    near = fixed_support_barycenter(tiny / tiny.sum(1, keepdims=True), points, w, problem=problem)
    np.testing.assert_allclose(found.weights.numpy(), near.weights.numpy(), atol=1e-5)
    np.testing.assert_allclose(found.terms.numpy(), near.terms.numpy(), atol=1e-5)
    twice = fixed_support_barycenter(np.hstack([measures, measures]) / 2, np.vstack([points, points]), w, problem=problem)
    folded = twice.weights[:20] + twice.weights[20:]
    np.testing.assert_allclose(folded.numpy(), found.weights.numpy(), atol=1e-5)


@pytest.mark.parametrize("shape", [(12, 9), (5, 4, 6)])
@pytest.mark.parametrize("cls", [EntropicBarycenter, DebiasedBarycenter])
def test_a_grid_is_its_list_of_points(cls, shape: tuple[int, ...]) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(3)
    images = rng.gamma(0.5, size=(2, 3, *shape))
    images[0, 0].flat[:5] = 0
    images /= images.sum(tuple(range(2, images.ndim)), keepdims=True)
    spacing = (0.1, 0.2, 0.15)[: len(shape)]
    axes = np.meshgrid(*[h * np.arange(n) for h, n in zip(spacing, shape, strict=True)], indexing="ij")
    points = np.stack([t.ravel() for t in axes], -1)
    problem = cls(0.005, tolerance=1e-7)
    on_grid = fixed_support_barycenter(images, Grid(spacing), [0.2, 0.5, 0.3], problem=problem)
    as_points = fixed_support_barycenter(images.reshape(2, 3, -1), points, [0.2, 0.5, 0.3], problem=problem)
    assert on_grid.weights.shape == (2, *shape)
    np.testing.assert_allclose(on_grid.weights.reshape(2, -1).numpy(), as_points.weights.numpy(), atol=1e-6)
    np.testing.assert_allclose(on_grid.terms.numpy(), as_points.terms.numpy(), atol=1e-6)
    share = fixed_support_barycenter(images, Grid(spacing), problem=cls(tolerance=1e-4))
    assert share.epsilon == pytest.approx(
        fixed_support_barycenter(images.reshape(2, 3, -1), points, problem=cls(tolerance=1e-4)).epsilon
    )
    with pytest.raises(TypeError, match="not formed"):
        on_grid.plan(0)


def test_images_of_pot() -> None:
    rng = np.random.default_rng(4)
    images = rng.gamma(1.0, size=(2, 16, 16))
    images /= images.sum((1, 2), keepdims=True)
    epsilon = 0.02
    ours = fixed_support_barycenter(images, Grid((1 / 15, 1 / 15)), problem=EntropicBarycenter(epsilon, tolerance=1e-9))
    theirs = ot.bregman.convolutional_barycenter2d(images, epsilon, stopThr=1e-12, numItermax=20_000)
    np.testing.assert_allclose(ours.weights.numpy(), theirs, atol=1e-7)


def test_epsilon_far_below_what_a_kernel_in_float64_holds() -> None:
    t = np.linspace(0, 1, 60)
    measures = np.stack([normal(0.2, 0.05, t), normal(0.8, 0.05, t)])
    found = fixed_support_barycenter(measures, t, problem=EntropicBarycenter(2e-4, tolerance=1e-6))
    assert found.outcome.ok
    assert moments(found.weights.numpy(), t) == pytest.approx((0.5, 0.05**2 + 1e-4), abs=2e-5)


@pytest.mark.parametrize(
    "problem", [EntropicBarycenter(0.1, tolerance=1e-11), DebiasedBarycenter(0.005, tolerance=1e-7)], ids=["entropic", "debiased"]
)
def test_gradients_of_the_value(problem) -> None:  # type: ignore[no-untyped-def]
    measures, points, w = (torch.from_numpy(v) for v in random_problem(12))

    def value(u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return fixed_support_barycenter(u, points, s, problem=problem).value

    b, s = measures.clone().requires_grad_(), w.clone().requires_grad_()
    value(b, s).backward()
    generator = torch.Generator().manual_seed(0)
    turn = torch.randn(b.shape, generator=generator, dtype=torch.float64) * measures
    turn -= measures * turn.sum(-1, keepdim=True)
    tilt = torch.randn(3, generator=generator, dtype=torch.float64)
    tilt -= tilt.mean()
    h = 1e-4
    with torch.no_grad():
        in_b = (value(measures + h * turn, w) - value(measures - h * turn, w)) / (2 * h)
        in_w = (value(measures, w + h * 0.1 * tilt) - value(measures, w - h * 0.1 * tilt)) / (0.2 * h)
    assert float((b.grad * turn).sum()) == pytest.approx(float(in_b), rel=1e-4)  # type: ignore[operator]
    assert float((s.grad * tilt).sum()) == pytest.approx(float(in_w), rel=1e-4)  # type: ignore[operator]


def test_gradient_of_the_exact_value_and_no_second_one() -> None:
    measures, points, w = (torch.from_numpy(v) for v in random_problem(8))
    s = w.clone().requires_grad_()
    found = fixed_support_barycenter(measures, points, s, problem=ExactBarycenter())
    (slope,) = torch.autograd.grad(found.value, s, create_graph=True)
    expected = found.terms - (w * found.terms).sum()
    np.testing.assert_allclose((slope - (w * slope).sum()).detach().numpy(), expected.numpy(), atol=1e-9)
    with pytest.raises(RuntimeError, match="first derivatives"):
        slope.sum().backward()


def test_a_batch_is_its_problems_and_precision_is_kept() -> None:
    pairs = [random_problem(18, 3, seed) for seed in range(4)]
    points = pairs[0][1]
    measures, shares = np.stack([p[0] for p in pairs]), np.stack([p[2] for p in pairs])
    for problem in (EntropicBarycenter(0.02), DebiasedBarycenter(0.005, tolerance=1e-6), ExactBarycenter()):
        whole = fixed_support_barycenter(measures, points, shares, problem=problem)
        assert whole.value.shape == (4,)
        for k in range(4):
            one = fixed_support_barycenter(measures[k], points, shares[k], problem=problem)
            np.testing.assert_allclose(whole.weights[k].numpy(), one.weights.numpy(), atol=1e-5)
            np.testing.assert_allclose(float(whole.value[k]), float(one.value), atol=1e-6)
    single = fixed_support_barycenter(measures.astype(np.float32), points.astype(np.float32))
    assert single.weights.dtype == single.value.dtype == torch.float32
    strided = np.repeat(measures[0], 2, 1)[:, ::2]
    np.testing.assert_array_equal(
        fixed_support_barycenter(strided, points).weights, fixed_support_barycenter(measures[0].copy(), points).weights
    )


def test_other_costs_and_rectangles() -> None:
    measures, points, w = random_problem(15)
    targets = np.random.default_rng(5).random((7, 2))
    costs = ot.dist(targets, points, metric="cityblock")
    exact = fixed_support_barycenter(measures, w=w, costs=costs, problem=ExactBarycenter())
    assert exact.weights.shape == (7,)
    values = [
        float(
            fixed_support_barycenter(measures, w=w, costs=costs, problem=EntropicBarycenter(e))
            .plan(0)
            .mul(torch.from_numpy(costs))
            .sum()
        )
        for e in (0.3, 0.1, 0.03)
    ]
    assert all(u > v - 1e-9 for u, v in pairwise(values))
    same = fixed_support_barycenter(measures, points, w, problem=EntropicBarycenter(0.1, Manhattan()))
    given = fixed_support_barycenter(
        measures, w=w, costs=ot.dist(points, points, metric="cityblock"), problem=EntropicBarycenter(0.1)
    )
    np.testing.assert_allclose(same.weights.numpy(), given.weights.numpy(), atol=1e-9)


def test_single_point_and_same_measures() -> None:
    found = fixed_support_barycenter(np.ones((3, 1)), np.zeros((1, 2)))
    assert float(found.weights) == 1.0
    assert float(found.value) == pytest.approx(0.0, abs=1e-12)
    measures, points, _ = random_problem(10, 1)
    same = fixed_support_barycenter(np.repeat(measures, 3, 0), points, problem=DebiasedBarycenter(0.005, tolerance=1e-7))
    np.testing.assert_allclose(same.weights.numpy(), measures[0], atol=1e-5)


def test_stopping_early_warns() -> None:
    measures, points, _ = random_problem()
    with pytest.warns(ConvergenceWarning, match="iteration limit"):
        found = fixed_support_barycenter(measures, points, problem=EntropicBarycenter(0.001, max_iterations=3))
    assert not found.outcome.ok
    assert float(found.weights.sum()) == pytest.approx(1.0)


def test_bad_input_is_named() -> None:
    measures, points, _ = random_problem(6)
    with pytest.raises(ValueError, match="either support"):
        fixed_support_barycenter(measures)
    with pytest.raises(ValueError, match="either support"):
        fixed_support_barycenter(measures, points, costs=np.zeros((6, 6)))
    with pytest.raises(ValueError, match="one point for each of the 6"):
        fixed_support_barycenter(measures, points[:5])
    with pytest.raises(ValueError, match="a column for each"):
        fixed_support_barycenter(measures, costs=np.zeros((6, 5)))
    with pytest.raises(ValueError, match="measures must sum to 1"):
        fixed_support_barycenter(2 * measures, points)
    with pytest.raises(ValueError, match="non-negative"):
        fixed_support_barycenter(measures - 0.1, points)
    with pytest.raises(ValueError, match="w must have one weight"):
        fixed_support_barycenter(measures, points, [0.5, 0.5])
    with pytest.raises(ValueError, match=r"\(\.\.\., K, m\)"):
        fixed_support_barycenter(measures[0], points)
    with pytest.raises(ValueError, match=r"\(\.\.\., K, \*shape\)"):
        fixed_support_barycenter(measures, Grid((1.0, 1.0)))
    with pytest.raises(ValueError, match="symmetric"):
        fixed_support_barycenter(measures, costs=np.triu(np.ones((6, 6))))
    with pytest.raises(ValueError, match="max_unknowns"):
        fixed_support_barycenter(measures, points, problem=ExactBarycenter(max_unknowns=10))
    with pytest.raises(TypeError, match="problem must be"):
        fixed_support_barycenter(measures, points, problem="debiased")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="epsilon"):
        EntropicBarycenter(0.0)
    with pytest.raises(ValueError, match="tolerance"):
        DebiasedBarycenter(tolerance=-1.0)
    with pytest.raises(ValueError, match="max_iterations"):
        DebiasedBarycenter(max_iterations=0)
    with pytest.raises(ValueError, match="GiB"):
        fixed_support_barycenter(torch.full((1, 20_000), 1 / 20_000), torch.zeros(20_000, 1))
    with pytest.raises(ValueError, match="k must number"):
        fixed_support_barycenter(measures, points, problem=ExactBarycenter()).plan(3)
    with pytest.raises(TypeError, match="sum over the 2 axes"):
        fixed_support_barycenter(
            np.ones((1, 2, 2)) / 4, Grid((1.0, 1.0)), problem=EntropicBarycenter(0.1, lambda u, v: (u - v).norm(dim=-1))
        )  # type: ignore[arg-type]
