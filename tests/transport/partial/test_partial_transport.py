"""Partial transport against linear programmes, POT, closed forms on the line, finite differences and limits."""

from __future__ import annotations

import math

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.special import xlogy

from discrepancy import NumericalError, OptimalTransport, PartialSinkhorn, PartialTransport, permutation_test
from discrepancy.costs import Euclidean, FunctionCost
from discrepancy.transport import MassShare


def programme(C: np.ndarray, a: np.ndarray, b: np.ndarray, mass: float) -> float:
    """The linear programme over all pairs; +inf becomes a bound of zero."""
    n, m = C.shape
    rows, columns = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
    bounds = [(0, None if math.isfinite(c) else 0) for c in C.ravel()]
    found = linprog(
        np.where(np.isfinite(C), C, 0).ravel(),
        A_ub=np.r_[rows, columns],
        b_ub=np.r_[a, b],
        A_eq=np.ones((1, n * m)),
        b_eq=[mass],
        bounds=bounds,
    )
    return found.fun if found.success else math.inf


def measures(seed: int, n: int = 12, m: int = 9) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 2)), rng.normal(size=(m, 2)) + 0.7, rng.random(n), rng.random(m) * 1.3


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 1.0])
def test_against_the_linear_programme_and_pot(share: float) -> None:
    x, y, a, b = measures(0)
    mass = share * min(a.sum(), b.sum())
    C = ot.dist(x, y)
    found = PartialTransport(mass).solve(x, y, a, b)
    assert float(found.value) == pytest.approx(programme(C, a, b, mass), rel=1e-9)
    assert float(found.value) == pytest.approx((ot.partial.partial_wasserstein(a, b, C, m=mass) * C).sum(), rel=1e-9)
    P = found.plan().to_dense().numpy()
    assert (P.sum(1) <= a + 1e-12).all()
    assert (P.sum(0) <= b + 1e-12).all()
    assert P.sum() == pytest.approx(mass, rel=1e-12)
    assert float(found.mass) == pytest.approx(mass)
    assert (P * C).sum() == pytest.approx(float(found.value), rel=1e-12)
    # The potentials prove it: feasible, at most zero, of the same value.
    f, g, price = found.f.numpy(), found.g.numpy(), float(found.price)  # type: ignore[union-attr]
    assert (f[:, None] + g + price <= C + 1e-12).all()
    assert max(f.max(), g.max()) <= 1e-12
    assert a @ f + b @ g + mass * price == pytest.approx(float(found.value), rel=1e-9)
    assert float(found.dual_gap) <= 1e-12
    assert float(found.marginal_error) <= 1e-12
    v = torch.randn(9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found.apply(v), torch.as_tensor(P) @ v)
    assert float(PartialTransport(MassShare(share))(x, y, a, b)) == pytest.approx(float(found.value), rel=1e-9)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 7), m=st.integers(1, 7), share=st.floats(0.01, 1.0), holes=st.booleans())
def test_any_problem_is_the_linear_programme(seed: int, n: int, m: int, share: float, holes: bool) -> None:
    rng = np.random.default_rng(seed)
    C = rng.normal(size=(n, m)).round(1)  # ties and negative costs
    a, b = rng.random(n) * (rng.random(n) < 0.8), rng.random(m) * (rng.random(m) < 0.8)
    a[0], b[0] = 0.5, 0.7
    if holes:
        C[rng.random((n, m)) < 0.3] = math.inf
    mass = share * min(a.sum(), b.sum())
    want = programme(C, a, b, mass)
    if math.isinf(want):
        with pytest.raises(NumericalError):
            PartialTransport(mass).solve_cost(C, a, b)
    else:
        assert float(PartialTransport(mass).solve_cost(C, a, b).value) == pytest.approx(want, abs=1e-9)


def test_closed_forms() -> None:
    # Two points each on the line, the near pair first: the far one costs only what of it must be carried.
    x, y = [[0.0], [10.0]], [[1.0], [20.0]]
    for mass, value, price in ((0.3, 0.3, 1.0), (0.5, 0.5, 1.0), (0.8, 0.5 + 0.3 * 100, 100.0), (1.0, 50.5, 100.0)):
        found = PartialTransport(mass).solve(torch.tensor(x).double(), torch.tensor(y).double())
        assert float(found.value) == pytest.approx(value)
        if mass not in (0.5, 1.0):
            assert float(found.price) == pytest.approx(price)
    # An outlier is left where it is; the rest moves by the shift.
    generator = torch.Generator().manual_seed(1)
    cloud = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    cloud = cloud / cloud.abs().max() * 0.1 + torch.arange(40)[:, None]
    moved = cloud + 0.25
    outliers = torch.full((10, 3), 1e4, dtype=torch.float64)
    found = PartialTransport(0.8).solve(torch.cat([cloud, outliers]), torch.cat([moved, -outliers]))
    assert float(found.value) == pytest.approx(0.8 * 3 * 0.25**2)
    torch.testing.assert_close(found.map()(cloud), moved)
    # n = 1, and all the mass there is.
    assert float(PartialTransport(0.25)([[0.0]], [[3.0]])) == pytest.approx(0.25 * 9)
    x, y, a, b = measures(1)
    a, b = a / a.sum(), b / b.sum()
    assert float(PartialTransport(1.0)(x, y, a, b)) == pytest.approx(float(OptimalTransport()(x, y, a, b)), rel=1e-12)


def test_the_cost_is_convex_in_the_mass_and_the_price_is_its_slope() -> None:
    x, y, a, b = measures(2)
    masses = np.linspace(0.05, 0.99, 24) * min(a.sum(), b.sum())
    found = [PartialTransport(float(s), Euclidean()).solve(x, y, a, b) for s in masses]
    values, prices = (np.array([float(getattr(r, name)) for r in found]) for name in ("value", "price"))
    slopes = np.diff(values) / np.diff(masses)
    assert (np.diff(prices) >= -1e-12).all()
    assert (slopes <= prices[1:] + 1e-12).all()
    assert (slopes >= prices[:-1] - 1e-12).all()


@pytest.mark.parametrize("D", [PartialTransport(0.4), PartialTransport(MassShare(0.7), Euclidean()), PartialSinkhorn(0.4, 0.3)])
def test_gradients(D) -> None:  # type: ignore[no-untyped-def]
    if isinstance(D, PartialSinkhorn):
        D = PartialSinkhorn(D.mass, D.epsilon, tolerance=1e-12)
    x, y, a, b = (torch.as_tensor(t) for t in measures(3, 6, 5))
    # The masses themselves move, not the shares alone.
    inputs = tuple(t.clone().requires_grad_() for t in (x, y, a, b))
    assert torch.autograd.gradcheck(lambda x, y, a, b: D(x, y, a, b), inputs, atol=1e-6, rtol=1e-4)
    C = torch.as_tensor(ot.dist(x.numpy(), y.numpy())).requires_grad_()
    result = D.solve_cost(C, a, b)
    result.value.backward()
    torch.testing.assert_close(C.grad, result.plan().to_dense() if result.plan().is_sparse else result.plan())
    with pytest.raises(RuntimeError, match=r"first derivatives|Sinkhorn"):
        torch.autograd.gradgradcheck(lambda x: D(x, y, a, b), inputs[:1])


@pytest.mark.parametrize("epsilon", [1.0, 0.1, 0.01])
def test_entropic_plan(epsilon: float) -> None:
    x, y, a, b = measures(4)
    C = ot.dist(x, y)
    for share in (0.1, 0.6, 0.95, 1.0):
        mass = share * min(a.sum(), b.sum())
        found = PartialSinkhorn(mass, epsilon, tolerance=1e-9).solve(x, y, a, b)
        P = found.plan().numpy()
        assert P.sum() == pytest.approx(mass, rel=1e-8)
        assert (P.sum(1) <= a + 1e-8).all()
        assert (P.sum(0) <= b + 1e-8).all()
        assert float(found.dual_gap) >= -1e-9
        assert float(found.dual_gap) <= 1e-5 * abs(float(found.value))
        entropy = (xlogy(P, P / np.outer(a, b)) - P + np.outer(a, b)).sum()
        assert float(found.value) == pytest.approx((P * C).sum() + epsilon * entropy, rel=1e-7)
        assert float(found.cost) == pytest.approx((P * C).sum(), rel=1e-9)
        assert float(found.cost) >= float(PartialTransport(mass)(x, y, a, b)) - 1e-7


def test_entropic_plan_is_that_of_pot_for_equal_weights() -> None:
    x, y, _, _ = measures(5)
    C, a, b = ot.dist(x, y), np.full(12, 1 / 12), np.full(9, 1 / 9)
    for mass in (0.3, 0.8):
        want = ot.partial.entropic_partial_wasserstein(a, b, C, reg=0.5, m=mass, numItermax=20_000, stopThr=1e-14)
        np.testing.assert_allclose(PartialSinkhorn(mass, 0.5, tolerance=1e-10).solve(x, y).plan(), want, atol=1e-7)


def test_small_epsilon_gives_the_exact_plan() -> None:
    x, y, a, b = measures(6)
    exact = PartialTransport(MassShare(0.8)).solve(x, y, a, b)
    entropic = PartialSinkhorn(MassShare(0.8), 1e-3).solve(x, y, a, b)
    assert float(entropic.cost) == pytest.approx(float(exact.value), rel=1e-3)
    np.testing.assert_allclose(entropic.plan(), exact.plan().to_dense(), atol=5e-3)


def test_forbidden_pairs_and_zero_weights() -> None:
    x, y, a, b = measures(7)
    a[3], b[2] = 0.0, 0.0
    C = ot.dist(x, y)
    C[:, 0] = math.inf
    C[1] = math.inf
    mass = 0.5 * min(a.sum(), b.sum())
    exact = PartialTransport(mass).solve_cost(C, a, b)
    assert float(exact.value) == pytest.approx(programme(C, a, b, mass), rel=1e-9)
    entropic = PartialSinkhorn(mass, 0.05, tolerance=1e-9).solve_cost(C, a, b)
    assert bool((entropic.plan()[:, 0] == 0).all())
    assert bool((entropic.plan()[3] == 0).all())
    assert math.isfinite(float(entropic.value))
    with pytest.raises(NumericalError):
        PartialTransport(mass).solve_cost(np.full((12, 9), math.inf), a, b)


def test_a_test_that_ignores_outliers() -> None:
    generator = torch.Generator().manual_seed(2)
    x, y = torch.randn(40, 2, generator=generator), torch.randn(40, 2, generator=generator) + 1
    x[0], y[0] = 1e3, -1e3
    assert permutation_test(x, y, PartialTransport(), permutations=99, generator=generator).p_value <= 0.02


BAD = {
    "more than there is": (lambda: PartialTransport(0.9)([[0.0]], [[1.0]], [0.8], [1.0]), "at most the smaller total mass, 0.8"),
    "more, entropic": (lambda: PartialSinkhorn(0.9)([[0.0]], [[1.0]], [0.8], [1.0]), "at most the smaller total mass, 0.8"),
    "zero": (lambda: PartialTransport(0.0), "mass must be positive"),
    "negative": (lambda: PartialSinkhorn(-1.0), "mass must be positive"),
    "share above one": (lambda: MassShare(1.1), "share must lie above 0"),
    "share NaN": (lambda: MassShare(math.nan), "share must lie above 0"),
    "epsilon": (lambda: PartialSinkhorn(epsilon=0.0), "epsilon must be positive"),
    "no mass": (lambda: PartialTransport()([[0.0]], [[1.0]], [0.0], [1.0]), "a must have a positive sum"),
    "NaN cost": (lambda: PartialTransport().solve_cost([[math.nan]]), "NaN"),
    "too large": (lambda: PartialTransport()(np.zeros((12_000, 2)), np.zeros((12_000, 2))), "1.07 GiB of the 1 allowed"),
    "too large, entropic": (lambda: PartialSinkhorn()(np.zeros((6000, 2)), np.zeros((6000, 2))), "1.61 GiB of the 1 allowed"),
    "batch": (lambda: PartialSinkhorn().solve(np.zeros((2, 3, 1)), np.zeros((2, 3, 1))), "loop over it"),
    "share of an infinite mean": (lambda: PartialSinkhorn().solve_cost([[1.0, math.inf]]), "give epsilon as a number"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str) -> None:
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_wrong_types() -> None:
    for mass in ("half", True, None):
        with pytest.raises(TypeError, match="MassShare"):
            PartialTransport(mass)  # type: ignore[arg-type]
    assert not PartialTransport(cost=FunctionCost(lambda u, v: (v - u).sum(-1))).claims.symmetric
