"""Divergences with a Lipschitz critic: against an independent convex solver, limits, certificates, groups and refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from discrepancy import KL, Alpha, ChiSquared, JensenShannon, ReverseKL, SquaredHellinger, TotalVariation, Wasserstein
from discrepancy._results import ConvergenceWarning
from discrepancy.costs import Euclidean, Manhattan, SquaredEuclidean
from discrepancy.divergences import variational_bound
from discrepancy.estimation.lipschitz_divergence import LipschitzDivergence
from discrepancy.groups import Cyclic, CyclicShift
from discrepancy.transport import InvariantCost


def points(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_sequential_quadratic_programming(f, C, a, b):
    """min over plans of <pi, C> + D_f(column sums || b), by SciPy's general solver."""
    n, m = C.shape

    def loss(flat):
        plan = flat.reshape(n, m)
        ratio = torch.from_numpy(np.maximum(plan.sum(0) / b, 0.0))
        slope = f.derivative(ratio.clamp_min(1e-9)).numpy()
        return float((plan * C).sum() + (b * f.generator(ratio).numpy()).sum()), (C + slope).ravel()

    rows = np.kron(np.eye(n), np.ones(m))
    start = np.outer(a, b).ravel()
    found = minimize(
        loss,
        start,
        jac=True,
        bounds=[(0, 1)] * (n * m),
        constraints={"type": "eq", "fun": lambda v: rows @ v - a, "jac": lambda v: rows},
        options={"maxiter": 500, "ftol": 1e-12},
        method="SLSQP",
    )
    return found.fun


@pytest.mark.parametrize("f", [KL(), ChiSquared(), JensenShannon(), Alpha(1.5), SquaredHellinger()], ids=repr)
def test_it_agrees_with_a_general_convex_solver(f):
    x, y = points(5, 2), points(4, 2, 1) + 0.5
    a, b = torch.tensor([0.1, 0.3, 0.2, 0.3, 0.1]), torch.tensor([0.4, 0.1, 0.25, 0.25])
    for constant in (0.3, 2.0):
        D = LipschitzDivergence(f, constant, tolerance=1e-6)
        found = D.solve(x, y, a.double() / a.double().sum(), b.double() / b.double().sum())
        truth = by_sequential_quadratic_programming(
            f, constant * Euclidean().matrix(x, y).numpy(), a.double().numpy(), b.double().numpy()
        )
        assert float(found.value) == pytest.approx(truth, rel=2e-5)
        assert float(found.value) <= truth * (1 + 1e-9) + 1e-9
        assert found.dual_gap <= 2e-6 * truth
        assert found.transported + found.reweighted == pytest.approx(float(found.value) + found.dual_gap)


@pytest.mark.parametrize("f", [KL(), ReverseKL(), ChiSquared()], ids=repr)
def test_the_critic_is_lipschitz_and_attains_the_value_as_a_variational_bound(f):
    x, y = points(20, 2), points(15, 2, 1) + 1
    D = LipschitzDivergence(f, 0.7)
    found = D.solve(x, y)
    at_x, at_y = found.critic(x), found.critic(y)
    assert float(variational_bound(f, at_x, at_y)) == pytest.approx(float(found.value), rel=1e-6)
    z = points(40, 2, 3) * 2
    slopes = (found.critic(z)[:, None] - found.critic(z)).abs() / torch.cdist(z, z).fill_diagonal_(1.0)
    assert float(slopes.max()) <= 0.7 * (1 + 1e-9)
    assert float(D.witness(x, y)(z)[0]) == float(found.critic(z)[0])
    assert float(found.masses.sum()) == pytest.approx(1.0)


def test_limits_are_transport_and_the_divergence():
    x, y = points(15, 2), points(15, 2, 1) + 1
    small = LipschitzDivergence(KL(), 1e-3, tolerance=1e-4)(x, y)
    assert float(small) == pytest.approx(1e-3 * float(Wasserstein(1)(x, y)), rel=2e-3)
    # Shared support: a steep critic sees the ratio of the weights.
    a, b = (torch.softmax(points(15, 1, s)[:, 0], 0) for s in (2, 3))
    steep = LipschitzDivergence(KL(), 1e3, tolerance=1e-4)(x, x, a, b)
    assert float(steep) == pytest.approx(float((a * (a / b).log()).sum()), rel=1e-3)
    for f in (KL(), JensenShannon()):
        values = [float(LipschitzDivergence(f, constant)(x, y)) for constant in (0.1, 0.3, 1.0, 3.0)]
        assert values == sorted(values)
        bounds = [constant * float(Wasserstein(1)(x, y)) for constant in (0.1, 0.3, 1.0, 3.0)]
        assert all(v <= w * (1 + 1e-9) for v, w in zip(values, bounds, strict=True))


def test_equality_is_zero_and_directions_differ():
    x, y = points(10, 2), points(10, 2, 1)
    assert float(LipschitzDivergence()(x, x)) == 0.0
    assert float(LipschitzDivergence()(x, x.flip(0))) < 1e-12
    assert float(LipschitzDivergence(ChiSquared(), 3.0)(x, y)) != pytest.approx(
        float(LipschitzDivergence(ChiSquared(), 3.0)(y, x)), rel=1e-3
    )
    assert float(LipschitzDivergence()(torch.ones(3, 2), torch.ones(4, 2))) == 0.0


def test_an_invariant_cost_gives_the_value_of_augmented_samples():
    group, x, y = Cyclic(4), points(8, 2), points(7, 2, 1) + 0.5
    invariant = LipschitzDivergence(Alpha(2), cost=InvariantCost(group), tolerance=1e-5)(x, y)
    full = LipschitzDivergence(Alpha(2), tolerance=1e-5)(group.augmented(x), group.augmented(y))
    assert float(invariant) == pytest.approx(float(full), rel=1e-4)


def test_the_symmetry_shrinks_the_error():
    ratios = []
    for seed in range(4):
        x, y = torch.rand(2, 100, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        plain = LipschitzDivergence(Alpha(2), tolerance=1e-2)(x, y)
        ratios.append(float(LipschitzDivergence(Alpha(2), cost=InvariantCost(CyclicShift(3)), tolerance=1e-2)(x, y) / plain))
    assert np.mean(ratios) == pytest.approx(3 ** (-1 / 3), abs=0.1)


def test_gradients_in_points_and_weights():
    x, y = points(6, 2).requires_grad_(), (points(5, 2, 1) + 0.5).requires_grad_()
    u, v = points(6, 1, 2)[:, 0].requires_grad_(), points(5, 1, 3)[:, 0].requires_grad_()
    D = LipschitzDivergence(ChiSquared(), 0.8, tolerance=1e-8, max_iterations=2000)

    def value(x, y, u, v):
        return D(x, y, torch.softmax(u, 0), torch.softmax(v, 0))

    found = torch.autograd.grad(value(x, y, u, v), (x, y, u, v))
    step = 1e-3
    for k, given in enumerate((x, y, u, v)):
        direction = points(given.numel(), 1, 9 + k).reshape(given.shape)
        ends = []
        for sign in (1, -1):
            moved = [t.detach() for t in (x, y, u, v)]
            moved[k] = moved[k] + sign * step * direction
            ends.append(float(value(*moved)))
        slope = (ends[0] - ends[1]) / (2 * step)
        assert float((found[k] * direction).sum()) == pytest.approx(slope, rel=2e-3, abs=1e-5)


def test_weightless_points_take_no_part_and_batches_are_rows():
    x, y = points(6, 2), points(5, 2, 1)
    a = torch.tensor([0.2, 0.2, 0.2, 0.2, 0.2, 0.0], dtype=torch.float64)
    b = torch.tensor([0.25, 0.25, 0.0, 0.25, 0.25], dtype=torch.float64)
    D = LipschitzDivergence()
    kept = [0, 1, 3, 4]
    assert float(D(x, y, a, b)) == pytest.approx(float(D(x[:5], y[kept])), rel=2e-3)
    critic = D.solve(x, y, a, b).critic
    assert torch.isfinite(critic(y)).all()
    both = D(torch.stack([x, x + 1]), torch.stack([y, y]))
    assert torch.allclose(both, torch.stack([D(x, y), D(x + 1, y)]))
    assert D(x.float(), y.float()).dtype == torch.float32


def test_an_early_end_says_so():
    with pytest.warns(ConvergenceWarning, match="iteration limit"):
        found = LipschitzDivergence(max_iterations=1, tolerance=1e-6).solve(points(20, 2), points(20, 2, 1))
    assert found.dual_gap > 0
    assert not found.outcome.ok
    assert "critic" not in found.to_dict()


def test_bad_arguments():
    x = points(5, 2)
    with pytest.raises(TypeError, match="twice differentiable"):
        LipschitzDivergence(TotalVariation())
    with pytest.raises(TypeError, match="FDivergence"):
        LipschitzDivergence("kl")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be a metric"):
        LipschitzDivergence(cost=SquaredEuclidean())
    with pytest.raises(ValueError, match="constant must be positive"):
        LipschitzDivergence(constant=0.0)
    with pytest.raises(ValueError, match="memory is"):
        LipschitzDivergence(memory=1e-7)(x, x + 1)
    with pytest.raises(ValueError, match="single samples"):
        LipschitzDivergence().solve(x[None], x[None])
    assert float(LipschitzDivergence(cost=Manhattan())(x, x + 1)) > 0
