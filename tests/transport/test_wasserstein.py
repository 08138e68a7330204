"""W_p in more than one dimension, p = inf included, against assignment, enumeration and finite differences."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment, linprog

from discrepancy import NumericalError, Wasserstein, permutation_test
from discrepancy.costs import PowerCost
from discrepancy.testing import problems
from discrepancy.transport import NetworkSimplex


def cloud(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def masses(n: int, seed: int) -> torch.Tensor:
    w = 0.05 + torch.rand(n, generator=torch.Generator().manual_seed(100 + seed), dtype=torch.float64)
    return w / w.sum()


@pytest.mark.parametrize("p", [1, 1.5, 2, 4, 40])
@pytest.mark.parametrize("d", [2, 7])
def test_assignment_is_scipys(p, d) -> None:
    x, y = cloud(25, d, 1), cloud(25, d, 2) + 0.3
    C = np.linalg.norm(x.numpy()[:, None] - y.numpy(), axis=-1) ** p
    want = C[linear_sum_assignment(C)].mean() ** (1 / p)
    assert float(Wasserstein(p)(x, y)) == pytest.approx(want, rel=1e-9)
    result = Wasserstein(p).solve(x, y)
    assert float(result.value) == pytest.approx(want, rel=1e-9)
    assert float(result.cost) == pytest.approx(want**p, rel=1e-9)
    assert abs(float(result.dual_gap)) <= 1e-12 * C.max()
    assert float(Wasserstein(p).solve_cost(torch.from_numpy(C)).value) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_problems_with_known_answers(dtype) -> None:
    for problem in problems.sample_problems(dtype=dtype):
        for p in (1, 1.7, 2, math.inf):
            try:
                want = problem.answer("wasserstein", p=p)
            except (ValueError, ZeroDivisionError):
                continue
            got = Wasserstein(p)(problem.x, problem.y, problem.a, problem.b)
            # The root of a sum of rounding errors: W_2 of one cloud in two orders is 1e-8, not 1e-16.
            slack = 1e-6 if dtype == torch.float64 else 3e-3
            torch.testing.assert_close(got.double(), torch.full_like(got.double(), want), atol=slack, rtol=1e-6)


@pytest.mark.parametrize(("p", "scale"), [(2, 1e-120), (2, 1e120), (50, 1e-30), (50, 1e30), (1, 1e-200)])
def test_any_scale(p, scale) -> None:
    x, y = cloud(8, 3, 3), cloud(6, 3, 4)
    assert float(Wasserstein(p)(scale * x, scale * y)) == pytest.approx(scale * float(Wasserstein(p)(x, y)), rel=1e-9)
    if p == 50:
        with pytest.raises(NumericalError, match="leaves the range"):
            Wasserstein(p).solve(scale * x, scale * y)


@pytest.mark.parametrize("p", [1, 2, 2.5])
def test_gradients(p) -> None:
    x, y, a, b = cloud(6, 2, 5), cloud(5, 2, 6) + 0.4, masses(6, 5), masses(5, 6)
    leaves = [t.clone().requires_grad_() for t in (x, y, a, b)]
    gx, gy, ga, gb = torch.autograd.grad(Wasserstein(p)(*leaves), leaves)
    h = 1e-6
    D = Wasserstein(p)
    for i in np.ndindex(6, 2):
        step = torch.zeros_like(x)
        step[i] = h
        assert float(gx[i]) == pytest.approx(float(D(x + step, y, a, b) - D(x - step, y, a, b)) / (2 * h), abs=1e-7)
    for i in np.ndindex(5, 2):
        step = torch.zeros_like(y)
        step[i] = h
        assert float(gy[i]) == pytest.approx(float(D(x, y + step, a, b) - D(x, y - step, a, b)) / (2 * h), abs=1e-7)
    step = torch.tensor([h, -h, 0, 0, 0, 0], dtype=torch.float64)
    assert float(ga[0] - ga[1]) == pytest.approx(float(D(x, y, a + step, b) - D(x, y, a - step, b)) / (2 * h), abs=1e-7)
    assert float(gb[0] - gb[1]) == pytest.approx(float(D(x, y, a, b + step[:5]) - D(x, y, a, b - step[:5])) / (2 * h), abs=1e-7)


def test_the_gradient_of_a_distance_zero_is_zero() -> None:
    x = cloud(5, 2, 7).requires_grad_()
    for p in (1, 2, math.inf):
        (gradient,) = torch.autograd.grad(Wasserstein(p)(x, x.detach()), x)
        assert torch.equal(gradient, torch.zeros_like(x))


@pytest.mark.parametrize("seed", range(4))
def test_the_bottleneck_distance_by_enumeration(seed) -> None:
    x, y = cloud(6, 2, 10 + seed), cloud(6, 2, 20 + seed)
    D = torch.cdist(x, y).numpy()
    want = min(max(D[i, j] for i, j in enumerate(order)) for order in itertools.permutations(range(6)))
    result = Wasserstein(math.inf).solve(x, y)
    assert float(Wasserstein(math.inf)(x, y)) == pytest.approx(want, rel=1e-14)
    assert float(result.value) == pytest.approx(want, rel=1e-14)
    plan = result.plan().to_dense().numpy()
    assert D[plan > 0].max() == pytest.approx(want, rel=1e-14)
    np.testing.assert_allclose([plan.sum(0), plan.sum(1)], 1 / 6, rtol=1e-13)
    assert result.f is None
    assert float(result.marginal_error) < 1e-14


@pytest.mark.parametrize("seed", range(3))
def test_the_weighted_bottleneck_is_the_least_feasible_threshold(seed) -> None:
    """HiGHS: the pairs within the distance carry the weights, those below it do not."""
    x, y, a, b = cloud(7, 2, 30 + seed), cloud(9, 2, 40 + seed), masses(7, seed), masses(9, 50 + seed)
    D = torch.cdist(x, y).numpy()
    A = np.vstack([np.kron(np.eye(7), np.ones((1, 9))), np.kron(np.ones((1, 7)), np.eye(9))])

    def feasible(t: float) -> bool:
        bounds = [(0, None if d <= t else 0) for d in D.ravel()]
        return linprog(np.zeros(63), A_eq=A, b_eq=np.concatenate([a, b]), bounds=bounds, method="highs").status == 0

    value = float(Wasserstein(math.inf)(x, y, a, b))
    assert feasible(value * (1 + 1e-12))
    assert not feasible(value * (1 - 1e-9))
    assert value in D
    assert float(Wasserstein(math.inf).solve_cost(torch.from_numpy(D), a, b).value) == value
    # A hundred-thousandth of the mass is mass.
    ends = torch.tensor([[0.0, 0.0], [30.0, 0.0]], dtype=torch.float64)
    tilted = torch.tensor([0.5 + 1e-5, 0.5 - 1e-5], dtype=torch.float64)
    assert float(Wasserstein(math.inf)(ends, ends, tilted)) == pytest.approx(30.0)
    # Weights that agree up to their rounding must not send that rounding far away.
    thirds = torch.tensor([0.1, 0.2, 0.7], dtype=torch.float64)
    z = torch.tensor([[0.0, 0.0], [0.1, 0.0], [9.0, 0.0]], dtype=torch.float64)
    joined = torch.tensor([0.1 + 0.2, 0.7], dtype=torch.float64)
    near = Wasserstein(math.inf)(z, z[1:], thirds, joined)
    assert float(near) == pytest.approx(0.1)
    assert float(Wasserstein(math.inf)(z[:, :1], z[1:, :1], thirds, joined)) == pytest.approx(0.1)


def test_the_bottleneck_is_the_limit_and_moves_with_one_pair() -> None:
    x, y = cloud(20, 3, 60), cloud(20, 3, 61)
    value = float(Wasserstein(math.inf)(x, y))
    powers = [float(Wasserstein(p)(x, y)) for p in (1, 2, 8, 64)]
    assert powers == sorted(powers)
    assert powers[-1] <= value * (1 + 1e-12)
    assert value <= powers[-1] * 20 ** (1 / 64) * (1 + 1e-12)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(Wasserstein(math.inf)(leaf, y), leaf)
    lengths = gradient.norm(dim=1)
    assert sorted(lengths.tolist())[-2:] == [0.0, pytest.approx(1.0)]
    h = 1e-6
    finite = (Wasserstein(math.inf)(x + h * gradient, y) - Wasserstein(math.inf)(x - h * gradient, y)) / (2 * h)
    assert float(finite) == pytest.approx(1.0, abs=1e-6)


def test_the_bottleneck_on_the_line_and_its_plan() -> None:
    x, y, a, b = cloud(30, 1, 62), cloud(20, 1, 63), masses(30, 62), masses(20, 63)
    result = Wasserstein(math.inf).solve(x, y, a, b)
    assert float(result.value) == pytest.approx(float(Wasserstein(math.inf)(x, y, a, b)), rel=1e-14)
    wide = Wasserstein(math.inf)(torch.cat([x, x * 0], 1), torch.cat([y, y * 0], 1), a, b)
    assert float(result.value) == pytest.approx(float(wide), rel=1e-14)


def test_pooled_rows_and_the_permutation_test() -> None:
    z = cloud(16, 2, 64)
    A, B = torch.stack([masses(16, k) for k in range(3)]), torch.stack([masses(16, 10 + k) for k in range(3)])
    for p in (1, 2, 3, math.inf):
        want = torch.stack([Wasserstein(p)(z, z, a, b) for a, b in zip(A, B, strict=True)])
        if math.isfinite(p):
            torch.testing.assert_close(Wasserstein(p).pooled(z)(A, B), want, atol=1e-12, rtol=1e-10)
    g = torch.Generator().manual_seed(0)
    x, y = cloud(25, 2, 201), cloud(20, 2, 301)
    assert permutation_test(x, y + 2.0, Wasserstein(2), permutations=99, generator=g).p_value == pytest.approx(0.01)
    assert permutation_test(x, y, Wasserstein(1), permutations=99, generator=g).p_value > 0.05


def test_refusals() -> None:
    x = torch.ones(3, 2)
    for p in (0.5, "2", math.nan, True):
        with pytest.raises(ValueError, match="p must be"):
            Wasserstein(p)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="solver must be"):
        Wasserstein(2, solver="simplex")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="raise NetworkSimplex"):
        Wasserstein(math.inf, NetworkSimplex(memory=1e-9))(x, x)
    with pytest.raises(ValueError, match="not negative"):
        Wasserstein(2).solve_cost([[-1.0]])
    with pytest.raises(ValueError, match="no root of a transport cost"):
        _ = Wasserstein(math.inf).transport
    with pytest.raises(NumericalError, match="no other"):
        Wasserstein(math.inf).solve_cost([[math.inf, math.inf], [0.0, 0.0]])
    assert Wasserstein(3).transport.cost == PowerCost(3.0)
