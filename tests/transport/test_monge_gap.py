"""The Monge gap: its convention, planted maps, envelope gradients, and every bad input of the card."""

from __future__ import annotations

import math

import pytest
import torch

from discrepancy import NumericalError
from discrepancy.costs import Euclidean, PowerCost, Sphere
from discrepancy.transport import MongeGap, RelativeEpsilon, SemiDualNewton, Sinkhorn, SinkhornDivergence

TIGHT = SemiDualNewton(tolerance=1e-11)


def cloud(n: int, d: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(degrees: float) -> torch.Tensor:
    t = math.radians(degrees)
    return torch.tensor([[math.cos(t), -math.sin(t)], [math.sin(t), math.cos(t)]], dtype=torch.float64)


def test_definition_with_the_entropy_convention() -> None:
    """E c - min_P (<P, C> - eps H(P)), from the plan itself."""
    x, y = cloud(12), cloud(12, seed=1)
    plan = Sinkhorn(0.4, solver=TIGHT).solve(x, y).plan()
    entropy = -(plan * plan.log()).sum()
    want = (x - y).square().sum(1).mean() - ((plan * torch.cdist(x, y).square()).sum() - 0.4 * entropy)
    assert float(MongeGap(epsilon=0.4, solver=TIGHT)(x, y)) == pytest.approx(float(want), rel=1e-9)


@pytest.mark.parametrize("cost", [PowerCost(2), Euclidean(), PowerCost(1.5)], ids=repr)
@pytest.mark.parametrize("epsilon", [0.01, 0.3, 5.0])
def test_non_negative_and_within_its_bias(cost, epsilon) -> None:
    """0 <= gap, and gap - (gap without regularisation) <= 2 eps log n; the assignment is exact."""
    from scipy.optimize import linear_sum_assignment

    x, y = cloud(15), cloud(15, seed=1)
    C = cost.matrix(x, y)
    rows, columns = linear_sum_assignment(C.numpy())
    exact = float(cost.pairs(x, y).mean() - C[rows, columns].mean())
    gap = float(MongeGap(cost, epsilon)(x, y))
    assert gap >= 0
    assert exact - 1e-9 <= gap <= exact + 2 * epsilon * math.log(15) + 1e-9


def test_an_optimal_map_has_only_the_bias_and_kl_would_be_negative() -> None:
    x = cloud(40)
    y = 2 * x + 1  # the gradient of a convex function
    for epsilon in (0.01, 0.2):
        gap = float(MongeGap(epsilon=epsilon)(x, y))
        assert 0 <= gap <= 2 * epsilon * math.log(40)
        kl = float((x - y).square().sum(1).mean() - Sinkhorn(epsilon)(x, y))
        assert kl < 0


def test_rotations_of_a_gaussian_have_gap_four_one_minus_cosine() -> None:
    x = cloud(400, seed=3)
    gaps = [float(MongeGap(epsilon=0.05, debias=True)(x, x @ rotation(t).T)) for t in (0, 30, 60, 90, 120)]
    for t, gap in zip((0, 30, 60, 90, 120), gaps, strict=True):
        assert gap == pytest.approx(4 * (1 - math.cos(math.radians(t))), abs=0.5)
    assert gaps[0] == 0
    assert gaps == sorted(gaps)


def test_debiased_is_the_cost_minus_the_divergence() -> None:
    x, y = cloud(12), cloud(12, seed=1)
    want = (x - y).square().sum(1).mean() - SinkhornDivergence(0.3)(x, y)
    assert float(MongeGap(epsilon=0.3, debias=True)(x, y)) == pytest.approx(float(want), rel=1e-9)


@pytest.mark.parametrize("debias", [False, True])
@pytest.mark.parametrize("cost", [PowerCost(2), Euclidean(), Sphere()], ids=repr)
def test_gradients_against_finite_differences(cost, debias) -> None:
    x, y, u = cloud(7, 3), cloud(7, 3, 1), cloud(7, 1, 2)[:, 0]

    def value(x, y, u):
        if isinstance(cost, Sphere):
            x, y = x / x.norm(dim=1, keepdim=True), y / y.norm(dim=1, keepdim=True)
        return MongeGap(cost, 0.4, debias, TIGHT)(x, y, u.softmax(0))

    leaves = [t.clone().requires_grad_() for t in (x, y, u)]
    for k, gradient in enumerate(torch.autograd.grad(value(*leaves), leaves)):
        direction = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(k), dtype=torch.float64)
        at = [[x, y, u], [x, y, u]]
        at[0][k], at[1][k] = at[0][k] + 1e-5 * direction, at[1][k] - 1e-5 * direction
        finite = float(value(*at[0]) - value(*at[1])) / 2e-5
        assert float((gradient * direction).sum()) == pytest.approx(finite, rel=1e-6, abs=1e-7)


def test_map_form_and_batches() -> None:
    x = cloud(20).reshape(2, 10, 2)
    turned = MongeGap()(lambda z: z @ rotation(70).T, x)
    assert turned.shape == (2,)
    assert float(turned[1]) == pytest.approx(float(MongeGap()(x[1], x[1] @ rotation(70).T)), rel=1e-9)
    linear = torch.nn.Linear(2, 2, dtype=torch.float64)
    MongeGap()(linear, x[0]).backward()
    assert linear.weight.grad is not None
    assert float(linear.weight.grad.abs().max()) > 0


def test_result_has_both_terms() -> None:
    x, y = cloud(12), cloud(12, seed=1)
    r = MongeGap(epsilon=RelativeEpsilon(0.1)).solve(x, y)
    assert float(r.value) == pytest.approx(float(r.moved) - float(r.optimum), rel=1e-12)
    assert float(r.epsilon) == pytest.approx(0.1 * float(torch.cdist(x, y).square().mean()), rel=1e-9)
    assert r.outcome.ok


def test_bad_input() -> None:
    x = cloud(5)
    with pytest.raises(ValueError, match="paired row by row"):
        MongeGap()(x, cloud(6))
    with pytest.raises(ValueError, match="2 features and target has 3"):
        MongeGap()(x, cloud(5, 3))
    with pytest.raises(ValueError, match=r"3 features|target has 3"):
        MongeGap()(torch.nn.Linear(2, 3, dtype=torch.float64), x)
    for epsilon in (0, -0.1):
        with pytest.raises(ValueError, match="epsilon must be positive"):
            MongeGap(epsilon=epsilon)
    with pytest.raises(ValueError, match="target must have rows of norm 1"):
        MongeGap(Sphere())(x / x.norm(dim=1, keepdim=True), x)
    with pytest.raises(NumericalError, match=r"10 non-finite value\(s\) of 10"):
        MongeGap()(lambda z: z * math.nan, x)
    with pytest.raises(TypeError, match="must return a tensor"):
        MongeGap()(lambda z: None, x)
    with pytest.raises(ValueError, match="non-finite"):
        MongeGap()(x, x * math.inf)
