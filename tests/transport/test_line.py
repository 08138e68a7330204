"""Transport on the line against SciPy, POT, a linear program and finite differences."""

from __future__ import annotations

import math

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.stats import wasserstein_distance

from discrepancy.transport import Wasserstein
from discrepancy.transport.line import line_costs, sorted_costs
from discrepancy.transport.pooled_line import PooledLines


def sample(n: int, seed: int, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def masses(n: int, seed: int) -> torch.Tensor:
    w = 0.1 + torch.rand(n, generator=torch.Generator().manual_seed(100 + seed), dtype=torch.float64)
    return w / w.sum()


def by_linear_program(x, y, a, b, p) -> float:
    """The transport problem as a linear program."""
    cost = np.abs(np.subtract.outer(x, y)) ** p
    n, m = cost.shape
    rows = np.kron(np.eye(n), np.ones((1, m)))
    columns = np.kron(np.ones((1, n)), np.eye(m))
    found = linprog(cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.concatenate([a, b]), method="highs")
    return float(found.fun)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_w1_is_scipys(dtype) -> None:
    x, y, a, b = sample(40, 0, dtype), sample(31, 1, dtype), masses(40, 0), masses(31, 1)
    for weights in ((None, None), (a, b), (a, None)):
        want = wasserstein_distance(x.double(), y.double(), *(None if w is None else w.numpy() for w in weights))
        got = Wasserstein()(x, y, *(None if w is None else w.to(dtype) for w in weights))
        assert got.dtype == dtype
        assert float(got) == pytest.approx(want, rel=1e-12 if dtype == torch.float64 else 2e-6)


@pytest.mark.parametrize("p", [1, 1.5, 2, 3.7])
def test_wp_is_pots_and_the_linear_programs(p) -> None:
    x, y, a, b = sample(9, 2), sample(7, 3), masses(9, 2), masses(7, 3)
    cost = float(Wasserstein(p)(x, y, a, b)) ** p
    assert cost == pytest.approx(float(ot.wasserstein_1d(x.numpy(), y.numpy(), a.numpy(), b.numpy(), p=p)), rel=1e-12)
    assert cost == pytest.approx(by_linear_program(x.numpy(), y.numpy(), a.numpy(), b.numpy(), p), rel=1e-9)


def test_equal_sizes_are_sorted_pairs() -> None:
    x, y = sample(1001, 4), sample(1001, 5)
    gaps = (x.sort().values - y.sort().values).abs()
    assert float(Wasserstein(3)(x, y)) == pytest.approx(float(gaps.pow(3).mean() ** (1 / 3)), rel=1e-13)
    assert float(Wasserstein(math.inf)(x, y)) == float(gaps.max())


def test_infinite_order_is_the_limit() -> None:
    x, y, a, b = sample(9, 2), sample(7, 3), masses(9, 2), masses(7, 3)
    assert float(Wasserstein(math.inf)(x, y, a, b)) == pytest.approx(float(Wasserstein(2000)(x, y, a, b)), rel=1e-2)
    point = x.clone().requires_grad_()
    Wasserstein(math.inf)(point, y, a, b).backward()
    assert point.grad is not None
    assert sorted(point.grad.abs().tolist())[-2:] == [0.0, 1.0]


def test_translation_and_scale() -> None:
    x = sample(50, 6)
    for p in (1, 2, math.inf):
        assert float(Wasserstein(p)(x, x + 2.5)) == pytest.approx(2.5, rel=1e-14)
        assert float(Wasserstein(p)(-3 * x, -3 * sample(20, 7))) == pytest.approx(
            3 * float(Wasserstein(p)(x, sample(20, 7))), rel=1e-13
        )


def test_uniform_laws() -> None:
    """W_p between uniform laws on [0, 1] and [0, 2] is (1 / (p + 1))^(1/p), reached by their midpoint quantiles."""
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    for p in (1, 2, 4):
        assert float(Wasserstein(p)(u, 2 * u)) == pytest.approx((1 / (p + 1)) ** (1 / p), rel=1e-7)


@pytest.mark.parametrize("p", [1, 2, 2.5])
@pytest.mark.parametrize("sizes", [(6, 6), (6, 4), (5, 7)])
def test_gradients_against_finite_differences(p, sizes) -> None:
    n, m = sizes
    x, y = sample(n, 8), sample(m, 9)
    for a, b in ((None, None), (masses(n, 8), masses(m, 9))):
        leaves = [t.clone().requires_grad_() for t in (x, y)]
        gradients = torch.autograd.grad(Wasserstein(p)(*leaves, a, b), leaves)
        for k, gradient in enumerate(gradients):
            for i in range(len(gradient)):
                step = torch.zeros_like(gradient)
                step[i] = 1e-6
                at = [[x, y], [x, y]]
                at[0][k], at[1][k] = (x, y)[k] + step, (x, y)[k] - step
                finite = (Wasserstein(p)(*at[0], a, b) - Wasserstein(p)(*at[1], a, b)) / 2e-6
                assert float(gradient[i]) == pytest.approx(float(finite), abs=1e-7)


@pytest.mark.parametrize("p", [1, 2, 2.5])
@pytest.mark.parametrize("tied", [False, True])
def test_weight_gradients_are_potentials(p, tied) -> None:
    """Central differences along the simplex; with equal weights levels coincide and the midpoint of the subdifferential is
    right."""
    n, m = 6, 4
    x, y = sample(n, 10), sample(m, 11)
    a = torch.full((n,), 1 / n, dtype=torch.float64) if tied else masses(n, 10)
    b = torch.full((m,), 1 / m, dtype=torch.float64) if tied else masses(m, 11)
    ga, gb = torch.autograd.grad(
        Wasserstein(p)(x, y, *(leaves := (a.clone().requires_grad_(), b.clone().requires_grad_()))) ** p, leaves
    )
    h = 1e-7
    for i in range(n):
        step = torch.zeros(n, dtype=torch.float64)
        step[i], step[(i + 1) % n] = h, -h
        finite = (Wasserstein(p)(x, y, a + step, b) ** p - Wasserstein(p)(x, y, a - step, b) ** p) / (2 * h)
        assert float(ga[i] - ga[(i + 1) % n]) == pytest.approx(float(finite), abs=1e-6)
    step = torch.zeros(m, dtype=torch.float64)
    step[0], step[2] = h, -h
    finite = (Wasserstein(p)(x, y, a, b + step) ** p - Wasserstein(p)(x, y, a, b - step) ** p) / (2 * h)
    assert float(gb[0] - gb[2]) == pytest.approx(float(finite), abs=1e-6)


@pytest.mark.parametrize("p", [1, 2, 3.0, math.inf])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loop_and_the_tensor_form_agree(p, weighted) -> None:
    """Two derivations: a merge of levels, and a search for each segment."""
    u, v = sample(60, 12).reshape(3, 20), sample(36, 13).reshape(3, 12)
    v[0, 3] = u[0, 5]  # a tie in value
    u[1, 2] = u[1, 7]
    a = torch.stack([masses(20, k) for k in range(3)]) if weighted else None
    b = torch.stack([masses(12, k) for k in range(3)]) if weighted else None
    loop, dense = line_costs(u, v, a, b, p, points_u=True, points_v=True, weights=True), sorted_costs(u, v, a, b, p, True, True)
    for name in ("cost", "grad_u", "grad_v"):
        torch.testing.assert_close(getattr(loop, name), getattr(dense, name), atol=1e-13, rtol=1e-12)
    for name in ("grad_a", "grad_b"):
        left, right = getattr(loop, name), getattr(dense, name)
        torch.testing.assert_close(left - left.mean(-1, True), right - right.mean(-1, True), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("p", [1, 2, 3.0, math.inf])
@pytest.mark.parametrize("sizes", [(20, 20), (20, 12)])
def test_one_sides_gradient_is_that_of_both(p, sizes) -> None:
    u, v = sample(3 * sizes[0], 12).reshape(3, -1), sample(3 * sizes[1], 13).reshape(3, -1)
    both = line_costs(u, v, None, None, p, points_u=True, points_v=True)
    left, right = line_costs(u, v, None, None, p, points_u=True), line_costs(u, v, None, None, p, points_v=True)
    assert left.grad_v is None
    assert right.grad_u is None
    for alone, name in ((left, "grad_u"), (right, "grad_v")):
        torch.testing.assert_close(getattr(alone, name), getattr(both, name), atol=0, rtol=0)
        torch.testing.assert_close(alone.cost, both.cost, atol=0, rtol=0)


def test_the_gradient_of_a_long_row_follows_its_points() -> None:
    """Long float64 rows are ordered by another sort: W_2^2 between u and u + 1 in any order has slope -2/n everywhere."""
    u = sample((1 << 18) + 3, 21)[None]
    found = line_costs(u, u.flip(-1) + 1, None, None, 2, points_u=True, points_v=True)
    torch.testing.assert_close(found.grad_u, torch.full_like(u, -2 / u.shape[-1]), atol=1e-14, rtol=0)
    torch.testing.assert_close(found.grad_v, torch.full_like(u, 2 / u.shape[-1]), atol=1e-14, rtol=0)
    shifted = line_costs(u, u.exp(), None, None, 2, points_u=True)
    torch.testing.assert_close(shifted.grad_u, 2 * (u - u.exp()) / u.shape[-1])


def test_zero_weights_have_feasible_potentials() -> None:
    """f_i + g_j <= |x_i - y_j|^p everywhere, with equality of the values: the potentials certify the optimum."""
    x, y = sample(8, 14)[None], sample(6, 15)[None]
    a, b = masses(8, 14)[None].clone(), masses(6, 15)[None].clone()
    a[0, [0, 3]] = 0
    b[0, 5] = 0
    a, b = a / a.sum(), b / b.sum()
    for p in (1, 2):
        found = line_costs(x, y, a, b, p, weights=True)
        assert found.grad_a is not None
        assert found.grad_b is not None
        slack = (x[0, :, None] - y[0]).abs() ** p - found.grad_a[0, :, None] - found.grad_b[0]
        assert float(slack.min()) > -1e-12
        assert float((a * found.grad_a).sum() + (b * found.grad_b).sum()) == pytest.approx(float(found.cost), rel=1e-12)


def test_pooled_is_direct_for_any_order() -> None:
    z = sample(30, 16)
    generator = torch.Generator().manual_seed(0)
    A, B = (
        torch.rand(5, 30, generator=generator, dtype=torch.float64),
        torch.rand(5, 30, generator=generator, dtype=torch.float64),
    )
    A[:, ::3] = 0
    A, B = A / A.sum(1, keepdim=True), B / B.sum(1, keepdim=True)
    for p in (1, 2, 1.5, math.inf):
        want = torch.stack([Wasserstein(p)(z, z, a, b) for a, b in zip(A, B, strict=True)])
        torch.testing.assert_close(Wasserstein(p).pooled(z)(A, B), want, atol=1e-12, rtol=1e-11)


@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_pooled_tensor_form_agrees_with_the_loop(p) -> None:
    """What devices without a loop run, here on the same tensors."""
    lines = torch.stack([sample(30, 17), sample(30, 18)])
    A, B = torch.stack([masses(30, k) for k in range(3)]), torch.stack([masses(30, 5 + k) for k in range(3)])
    loop = PooledLines(lines, p)
    dense = PooledLines(lines, p)
    dense.values, dense.order = torch.sort(lines, dim=-1)
    torch.testing.assert_close(dense(A, B), loop(A, B), atol=1e-12, rtol=1e-11)


def test_refusals() -> None:
    for p in (0.5, "2", math.nan, True):
        with pytest.raises(ValueError, match="p must be"):
            Wasserstein(p)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="weight rows"):
        Wasserstein().pooled(torch.ones(4))(torch.ones(2, 3), torch.ones(2, 3))


finite = st.floats(-1e3, 1e3, allow_nan=False, width=32)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(finite, min_size=1, max_size=8), st.lists(finite, min_size=1, max_size=8), st.lists(finite, min_size=1, max_size=8)
)
def test_metric_axioms(x, y, z) -> None:
    x, y, z = (torch.tensor(t, dtype=torch.float64) for t in (x, y, z))
    for p in (1, 2):
        D = Wasserstein(p)
        assert torch.equal(D(x, y), D(y, x))
        assert float(D(x, z)) <= float(D(x, y) + D(y, z)) * (1 + 1e-9) + 1e-9
        assert float(D(x, x.flip(0))) == 0
    assert float(Wasserstein(1)(x, y)) <= float(Wasserstein(2)(x, y)) * (1 + 1e-12) + 1e-12
