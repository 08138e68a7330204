"""Gromov-Wasserstein's invariances and limits, odd inputs, and facts that POT's own tests rely on."""

from __future__ import annotations

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from discrepancy import GromovWasserstein, OptimalTransport
from discrepancy.costs import Euclidean, SquaredEuclidean


def _cloud(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)) * np.linspace(1, 2, d)


def _objective(Cx: np.ndarray, Cy: np.ndarray, P: np.ndarray) -> float:
    """By the definition, four indices."""
    return float(np.einsum("ikjl,ij,kl->", (Cx[:, :, None, None] - Cy[None, None]) ** 2, P, P))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 12), m=st.integers(1, 12), squared=st.booleans())
def test_isometries_and_orders_leave_the_value(seed: int, n: int, m: int, squared: bool) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, 3)), rng.normal(size=(m, 2))
    a, b = rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))
    D = GromovWasserstein(SquaredEuclidean() if squared else Euclidean())
    value = float(D(x, y, a, b))
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    scale = max(value, 1e-3)
    assert float(D(x @ rotation + 5, y, a, b)) == pytest.approx(value, abs=1e-7 * scale)
    assert float(D(np.c_[x, np.zeros(n)], y * [1, -1], a, b)) == pytest.approx(value, abs=1e-7 * scale)
    p, q = rng.permutation(n), rng.permutation(m)
    assert float(D(x[p], y[q], a[p], b[q])) == pytest.approx(value, abs=1e-7 * scale)
    assert value >= 0
    # Scaling both spaces by t multiplies squared differences of c by t^2, or t^4 where c is a square.
    assert float(D(2 * x, 2 * y, a, b)) == pytest.approx((16 if squared else 4) * value, abs=1e-6 * scale)


@pytest.mark.parametrize("seed", range(4))
def test_points_of_weight_zero_are_absent(seed: int) -> None:
    x, y = _cloud(9, 2, seed), _cloud(7, 3, seed + 10)
    rng = np.random.default_rng(seed)
    a, b = rng.dirichlet(np.ones(9)), rng.dirichlet(np.ones(7))
    far_x, far_y = np.insert(x, [0, 4], 50.0, axis=0), np.r_[y, [[99.0, 0, 0]]]
    result = GromovWasserstein().solve(far_x, far_y, np.insert(a, [0, 4], 0.0), np.r_[b, 0.0])
    assert float(result.value) == pytest.approx(float(GromovWasserstein()(x, y, a, b)), rel=1e-9)
    P = result.plan()
    assert float(P[[0, 5]].abs().sum()) == 0.0
    assert float(P[:, -1].abs().sum()) == 0.0
    entropic = GromovWasserstein(epsilon=0.5)
    want = entropic(x, y, a, b)
    assert float(entropic(far_x, far_y, np.insert(a, [0, 4], 0.0), np.r_[b, 0.0])) == pytest.approx(float(want), rel=1e-6)


def test_copies_are_weights() -> None:
    x, y = _cloud(6, 2, 0), _cloud(5, 2, 1)
    counts = np.array([1, 3, 1, 2, 1, 2])
    copied = GromovWasserstein(SquaredEuclidean(), starts=10)
    one = copied(np.repeat(x, counts, 0), y, generator=torch.Generator().manual_seed(0))
    two = copied(x, y, counts / 10, generator=torch.Generator().manual_seed(0))
    assert float(one) == pytest.approx(float(two), rel=1e-6)


@pytest.mark.parametrize("epsilon", [None, 0.5])
def test_single_points(epsilon: float | None) -> None:
    D, y = GromovWasserstein(epsilon=epsilon), _cloud(6, 2, 2)
    assert float(D([[1.0, 2.0]], [[3.0]])) == 0.0
    # One point against many: the only plan is the product, and the value the mean squared distance within y.
    want = float(torch.cdist(torch.as_tensor(y), torch.as_tensor(y)).square().mean())
    assert float(D(np.zeros((1, 3)), y)) == pytest.approx(want, rel=1e-9)
    assert float(D(y, np.zeros((1, 3)))) == pytest.approx(want, rel=1e-9)


def test_precision_and_layout() -> None:
    x, y = _cloud(14, 2, 3), _cloud(11, 3, 4)
    wide = GromovWasserstein().solve(x, y)
    single = GromovWasserstein().solve(x.astype(np.float32), y.astype(np.float32))
    assert single.value.dtype == single.plan().dtype == single.f.dtype == torch.float32  # type: ignore[union-attr]
    assert float(single.value) == pytest.approx(float(wide.value), rel=1e-4)
    padded = np.zeros((28, 4))
    padded[::2, ::2] = x
    assert float(GromovWasserstein()(padded[::2, ::2], np.asfortranarray(y))) == pytest.approx(float(wide.value), rel=1e-12)
    Cx, Cy = ot.dist(x, x), ot.dist(y, y)
    plain = GromovWasserstein().solve_cost(Cx, Cy)
    turned = GromovWasserstein().solve_cost(np.asfortranarray(Cx), torch.as_tensor(Cy).mT)
    assert float(turned.value) == pytest.approx(float(plain.value), rel=1e-12)


def test_fused_limits() -> None:
    x, y = _cloud(12, 2, 5), _cloud(10, 2, 6)
    rng = np.random.default_rng(7)
    a, b = rng.dirichlet(np.ones(12)), rng.dirichlet(np.ones(10))
    Cx, Cy, M = ot.dist(x, x), ot.dist(y, y), ot.dist(x, y)
    D = GromovWasserstein()
    linear = D.solve_cost(Cx, Cy, a, b, between=M, structure=0.0)
    exact = OptimalTransport().solve_cost(M, a, b)
    assert float(linear.value) == pytest.approx(float(exact.value), rel=1e-10)
    torch.testing.assert_close(linear.plan(), exact.plan().to_dense(), atol=1e-12, rtol=0)
    inner = D.solve_cost(Cx, Cy, a, b, between=M, structure=1.0)
    assert float(inner.value) == pytest.approx(float(D.solve_cost(Cx, Cy, a, b).value), rel=1e-9)
    # In between, the value is the stated sum at the plan, and near the ends it is near the ends' values.
    for share in (1e-6, 0.4, 1 - 1e-9):
        found = D.solve_cost(Cx, Cy, a, b, between=M, structure=share)
        P = found.plan().numpy()
        assert float(found.value) == pytest.approx(share * _objective(Cx, Cy, P) + (1 - share) * (P * M).sum(), rel=1e-9)
    near = D.solve_cost(Cx, Cy, a, b, between=M, structure=1e-6)
    assert float(near.value) == pytest.approx(float(exact.value), rel=1e-3)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("epsilon", [None, 1.5])
def test_gradients_in_matrices_and_weights(epsilon: float | None, fused: bool) -> None:
    x, y = torch.as_tensor(_cloud(5, 2, 8)), torch.as_tensor(_cloud(4, 3, 9))
    rng = np.random.default_rng(8)
    a, b = (torch.as_tensor(rng.dirichlet(np.ones(k))).log().requires_grad_() for k in (5, 4))
    roots = [SquaredEuclidean().matrix(t, t).requires_grad_() for t in (x, y)]
    M = torch.as_tensor(rng.random((5, 4))).requires_grad_()

    def objective(Cx, Cy, M, u, v):  # type: ignore[no-untyped-def]
        D = GromovWasserstein(epsilon=epsilon, tolerance=1e-12)
        between = M if fused else None
        inner = ((Cx + Cx.mT) / 2, (Cy + Cy.mT) / 2)
        return D.solve_cost(*inner, u.softmax(-1), v.softmax(-1), between=between, structure=0.6).value

    inputs = (*roots, M, a, b) if fused else (*roots, M.detach(), a, b)
    assert torch.autograd.gradcheck(objective, inputs, atol=1e-5, rtol=1e-3)


def test_entropic_value_falls_to_the_plain_one_and_its_plan_is_a_coupling() -> None:
    x, y = _cloud(10, 2, 10), _cloud(9, 2, 11)
    plain = float(GromovWasserstein(SquaredEuclidean(), starts=10)(x, y, generator=torch.Generator().manual_seed(0)))
    values = []
    for epsilon in (20.0, 5.0, 1.0, 0.2):
        found = GromovWasserstein(SquaredEuclidean(), epsilon=epsilon).solve(x, y)
        P = found.plan().numpy()
        np.testing.assert_allclose(P.sum(1), 0.1, atol=1e-7)
        np.testing.assert_allclose(P.sum(0), 1 / 9, atol=1e-7)
        assert float(found.cost) >= plain * (1 - 1e-9)
        values.append(float(found.value))
    assert values == sorted(values, reverse=True)


# What follows are facts that POT's test suite checks of its own solvers.


def test_a_flipped_copy_is_matched_point_by_point() -> None:
    rng = np.random.default_rng(42)
    n = 20
    x = rng.normal(size=(n, 2)) @ np.array([[1, 0.3], [0.3, 0.8]])
    y = x[::-1].copy()
    p = np.full(n, 1 / n)
    Cx, Cy = ot.dist(x, x), ot.dist(y, y)
    Cx, Cy = Cx / Cx.max(), Cy / Cy.max()
    found = GromovWasserstein(starts=20).solve_cost(Cx, Cy, p, p, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(found.plan(), np.flipud(np.eye(n)) / n, atol=1e-9)
    assert float(found.value) == pytest.approx(0.0, abs=1e-12)


def test_fused_with_features_matches_point_by_point() -> None:
    rng = np.random.default_rng(42)
    n = 20
    x = rng.normal(size=(n, 2))
    features = rng.normal(size=(n, 2))
    Cx, Cy, M = ot.dist(x, x), ot.dist(x[::-1], x[::-1]), ot.dist(features, features[::-1])
    found = GromovWasserstein().solve_cost(Cx / Cx.max(), Cy / Cy.max(), between=M / M.max(), structure=0.5)
    np.testing.assert_allclose(found.plan(), np.flipud(np.eye(n)) / n, atol=1e-9)
    assert float(found.value) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("n", [5, 20])
def test_no_worse_than_pot_on_its_own_problem(n: int) -> None:
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(n, 2)), rng.normal(size=(n + 5, 1)) * 3
    p, q = np.full(n, 1 / n), np.full(n + 5, 1 / (n + 5))
    Cx, Cy = ot.dist(x, x), ot.dist(y, y)
    start = rng.random((n, n + 5))
    start = ot.emd(p, q, start)  # POT begins anywhere; ours from the product, then from random plans
    want = min(float(ot.gromov.gromov_wasserstein2(Cx, Cy, p, q, G0=G)) for G in (None, start))
    found = GromovWasserstein(starts=10).solve_cost(Cx, Cy, p, q, generator=torch.Generator().manual_seed(0))
    assert float(found.value) <= want * (1 + 1e-9)


def test_symmetric_in_its_two_spaces() -> None:
    x, y = _cloud(9, 2, 12), _cloud(12, 3, 13)
    rng = np.random.default_rng(14)
    a, b = rng.dirichlet(np.ones(9)), rng.dirichlet(np.ones(12))
    forth, back = GromovWasserstein().solve(x, y, a, b), GromovWasserstein().solve(y, x, b, a)
    assert float(forth.value) == pytest.approx(float(back.value), rel=1e-9)
    torch.testing.assert_close(forth.plan(), back.plan().mT, atol=1e-9, rtol=0)
