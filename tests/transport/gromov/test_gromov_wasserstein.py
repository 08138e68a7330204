"""Gromov-Wasserstein against POT from the same start, an enumeration of permutations, isometries and finite differences."""

from __future__ import annotations

import itertools

import numpy as np
import ot
import pytest
import torch

from discrepancy import GromovWasserstein
from discrepancy.costs import Euclidean, FunctionCost, SquaredEuclidean

F64 = torch.float64


def _clouds(n: int, m: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 2)), rng.normal(size=(m, 3)) * 0.8, rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))


def _objective(Cx: np.ndarray, Cy: np.ndarray, P: np.ndarray) -> float:
    """By the definition, four indices."""
    return float(np.einsum("ikjl,ij,kl->", (Cx[:, :, None, None] - Cy[None, None]) ** 2, P, P))


@pytest.mark.parametrize("cost", [Euclidean(), SquaredEuclidean()])
def test_value_is_the_objective_of_the_plan_and_no_worse_than_pot(cost) -> None:  # type: ignore[no-untyped-def]
    x, y, a, b = _clouds(20, 25, 0)
    Cx, Cy = (cost.matrix(torch.as_tensor(t), torch.as_tensor(t)).numpy() for t in (x, y))
    found = GromovWasserstein(cost).solve(x, y, a, b)
    P = found.plan().numpy()
    assert float(found.value) == pytest.approx(_objective(Cx, Cy, P), rel=1e-10)
    np.testing.assert_allclose(P.sum(1), a, atol=1e-13)
    np.testing.assert_allclose(P.sum(0), b, atol=1e-13)
    assert float(found.value) <= float(ot.gromov.gromov_wasserstein2(Cx, Cy, a, b)) * (1 + 1e-9)
    by_matrix = GromovWasserstein().solve_cost(Cx, Cy, a, b)
    assert float(by_matrix.value) == pytest.approx(float(found.value), rel=1e-9)


def test_factored_and_dense_products_agree() -> None:
    x, y, a, b = _clouds(60, 50, 1)
    plain = FunctionCost(lambda u, v: (u - v).square().sum(-1), symmetric=True)
    factored, dense = (float(GromovWasserstein(c)(x, y, a, b)) for c in (SquaredEuclidean(), plain))
    assert factored == pytest.approx(dense, rel=1e-9)


def test_against_all_permutations() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(6, 2)), rng.normal(size=(6, 2))
    Cx, Cy = ot.dist(x, x), ot.dist(y, y)
    best = min(np.square(Cx - Cy[np.ix_(p, p)]).mean() for p in map(list, itertools.permutations(range(6))))
    found = GromovWasserstein(SquaredEuclidean(), starts=30)(x, y, generator=torch.Generator().manual_seed(0))
    assert float(found) == pytest.approx(
        best, rel=1e-9
    )  # squared distances: the objective is concave, an optimum is a permutation


def test_isometric_spaces_are_at_distance_zero() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(40, 2)) * [1.0, 3.0]
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    order = rng.permutation(40)
    y = (np.c_[x, np.zeros(40)] @ rotation + 7)[order]
    found = GromovWasserstein(starts=5).solve(x, y, generator=torch.Generator().manual_seed(1))
    assert float(found.value) < 1e-12
    assert (found.plan().argmax(0).numpy() == order).all()


def test_entropic_problem_against_pot() -> None:
    x, y, a, b = _clouds(15, 18, 4)
    Cx, Cy = ot.dist(x, x), ot.dist(y, y)
    epsilon = 2.0  # POT's inner Sinkhorn does not converge at smaller ones
    found = GromovWasserstein(epsilon=epsilon).solve_cost(Cx, Cy, a, b)
    plan = ot.gromov.entropic_gromov_wasserstein(Cx, Cy, a, b, epsilon=epsilon, tol=1e-12, max_iter=5000)
    np.testing.assert_allclose(found.plan().numpy(), plan, atol=1e-6)
    expected = _objective(Cx, Cy, plan) + epsilon * float(np.sum(plan * np.log(plan / np.outer(a, b))))
    assert float(found.value) == pytest.approx(expected, rel=1e-6)
    assert float(found.cost) == pytest.approx(_objective(Cx, Cy, plan), rel=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_fused_problem_against_pot(share: float) -> None:
    x, y, a, b = _clouds(20, 25, 5)
    M = ot.dist(x, y[:, :2])
    Cx, Cy = ot.dist(x, x), ot.dist(y, y)
    found = GromovWasserstein().solve_cost(Cx, Cy, a, b, between=M, structure=share)
    expected = float(ot.gromov.fused_gromov_wasserstein2(M, Cx, Cy, a, b, alpha=share))
    assert float(found.value) <= expected * (1 + 1e-9)
    if share == 0:
        assert float(found.value) == pytest.approx(ot.emd2(a, b, M), rel=1e-10)


@pytest.mark.parametrize("epsilon", [None, 1.0])
def test_gradients(epsilon: float | None) -> None:
    x, y, a, b = (torch.as_tensor(t) for t in _clouds(5, 6, 6))
    inputs = (x.requires_grad_(), y.requires_grad_(), a.log().requires_grad_(), b.log().requires_grad_())

    def objective(x, y, u, v):  # type: ignore[no-untyped-def]
        return GromovWasserstein(SquaredEuclidean(), epsilon=epsilon)(x, y, u.softmax(-1), v.softmax(-1))

    assert torch.autograd.gradcheck(objective, inputs, atol=1e-5)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="Cy must be symmetric"):
        GromovWasserstein().solve_cost(np.zeros((2, 2)), np.array([[0.0, 1.0], [2.0, 0.0]]))
    with pytest.raises(ValueError, match="Cx must be a square"):
        GromovWasserstein().solve_cost(np.zeros((2, 3)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="symmetric"):
        GromovWasserstein(lambda u, v: (u - 2 * v).square().sum(-1))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="between must have shape"):
        GromovWasserstein().solve_cost(np.zeros((2, 2)), np.zeros((3, 3)), between=np.zeros((3, 2)))
