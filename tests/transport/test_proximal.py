"""Inexact proximal steps against the exact programme, and Sinkhorn's loop unrolled against its limit and released arithmetic."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from discrepancy import ConvergenceWarning, OptimalTransport, Outcome, Sinkhorn
from discrepancy.costs import Cosine, Manhattan
from discrepancy.transport import InexactProximal, LogSinkhorn, UnrolledSinkhorn


def problem(n: int, m: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    C = torch.rand(n, m, generator=generator, dtype=torch.float64)
    a, b = (torch.rand(k, generator=generator, dtype=torch.float64) + 0.1 for k in (n, m))
    return C, a / a.sum(), b / b.sum()


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_the_certificate_holds_against_the_exact_solver(n: int, m: int, seed: int) -> None:
    C, a, b = problem(n, m, seed)
    exact = float(OptimalTransport().solve_cost(C, a, b).value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = InexactProximal(max_iterations=60).solve_cost(C, a, b)
    assert exact - 1e-12 <= float(found.value) <= exact + float(found.dual_gap) + 1e-12
    plan = found.plan()
    np.testing.assert_allclose(plan.sum(1), a, atol=1e-12)
    np.testing.assert_allclose(plan.sum(0), b, atol=1e-12)
    assert bool((plan >= 0).all())
    assert bool((found.f[:, None] + found.g <= C + 1e-12).all())
    assert float(found.value) == pytest.approx(float((plan * C).sum()), rel=1e-12)


def test_reaches_its_tolerance_whatever_the_scale() -> None:
    C, a, b = problem(40, 30, 0)
    for scale in (1e-6, 1.0, 1e6):
        found = InexactProximal(tolerance=1e-3).solve_cost(scale * C, a, b)
        assert found.outcome is Outcome.CONVERGED
        assert float(found.dual_gap) <= 1e-3 * scale * float(a @ C @ b)
        exact = float(OptimalTransport().solve_cost(C, a, b).value)
        assert float(found.value) == pytest.approx(scale * exact, rel=0.02)


def test_is_sharper_than_entropic_transport_at_the_same_step() -> None:
    C, a, b = problem(30, 30, 1)
    exact = float(OptimalTransport().solve_cost(C, a, b).value)
    proximal = float(InexactProximal(0.1).solve_cost(C, a, b).value)
    entropic = float(Sinkhorn(0.1).solve_cost(C, a, b).cost)
    assert proximal - exact < 0.1 * (entropic - exact)


def test_more_sweeps_reach_the_entropic_plan_of_the_first_step() -> None:
    # With exact inner solves the first proximal step around the product is Sinkhorn's own problem.
    C, a, b = problem(8, 9, 2)
    with pytest.warns(ConvergenceWarning):
        found = InexactProximal(0.2, max_iterations=1, sweeps=500).solve_cost(C, a, b)
    np.testing.assert_allclose(
        found.plan(), Sinkhorn(0.2, solver=LogSinkhorn(tolerance=1e-12)).solve_cost(C, a, b).plan(), atol=1e-9
    )


def test_stopping_early_warns_and_shows_the_violation() -> None:
    C, a, b = problem(30, 20, 3)
    with pytest.warns(ConvergenceWarning, match="InexactProximal"):
        found = InexactProximal(0.01, max_iterations=1).solve_cost(C, a, b)
    assert found.outcome is Outcome.ITERATION_LIMIT
    assert float(found.marginal_error) > 0.01


def test_gradients_are_plan_and_potentials() -> None:
    # A planted optimum: the identity, by a wide margin.
    C = torch.full((6, 6), 3.0, dtype=torch.float64) - 2.5 * torch.eye(6, dtype=torch.float64)
    C.requires_grad_()
    (slope,) = torch.autograd.grad(InexactProximal(tolerance=1e-7).solve_cost(C).value, C)
    np.testing.assert_allclose(slope, torch.eye(6) / 6, atol=1e-6)
    x = torch.randn(15, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    y = x + 0.01
    x.requires_grad_()
    (found,) = torch.autograd.grad(InexactProximal(tolerance=1e-4)(x, y), x)
    (exact,) = torch.autograd.grad(OptimalTransport()(x, y), x)
    np.testing.assert_allclose(found, exact, atol=1e-3)
    C, a, b = problem(7, 9, 5)
    a.requires_grad_()
    found, exact = (
        torch.autograd.grad(D.solve_cost(C, a, b).value, a)[0] for D in (InexactProximal(tolerance=1e-3), OptimalTransport())
    )
    np.testing.assert_allclose(found, exact, atol=0.03)


def test_batches_weights_of_zero_and_float32() -> None:
    C, a, b = problem(9, 7, 6)
    a, b = a.clone(), b.clone()
    a[2], b[3] = 0, 0
    a, b = a / a.sum(), b / b.sum()
    D = InexactProximal(tolerance=1e-3)
    single = D.solve_cost(C, a, b)
    kept = D.solve_cost(C[a > 0][:, b > 0], a[a > 0], b[b > 0])
    assert float(single.value) == pytest.approx(float(kept.value), rel=5e-3)
    assert torch.isfinite(single.f).all()
    batch = D.solve_cost(torch.stack([C, C.flip(0)]), torch.stack([a, a.flip(0)]), b)
    assert float(batch.value[0]) == pytest.approx(float(batch.value[1]), rel=1e-9)
    assert D.solve_cost(C.float()).value.dtype == torch.float32
    x = torch.randn(3, 8, 2, generator=torch.Generator().manual_seed(0))
    assert InexactProximal(cost=Cosine())(x, x + 1).shape == (3,)


def test_refusals() -> None:
    C, a, _ = problem(4, 4, 7)
    with pytest.raises(ValueError, match="tolerance"):
        InexactProximal(tolerance=0)
    with pytest.raises(ValueError, match="sweeps"):
        InexactProximal(sweeps=0)
    with pytest.raises(TypeError, match="epsilon"):
        InexactProximal("0.5")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="non-finite"):
        InexactProximal().solve_cost(C / torch.eye(4))
    with pytest.raises(ValueError, match="cost matrix of shape"):
        InexactProximal().solve_cost(a)
    with pytest.raises(ValueError, match="cost matrix of shape"):
        UnrolledSinkhorn().solve_cost(a)
    with pytest.raises(ValueError, match="iterations"):
        UnrolledSinkhorn(iterations=0)
    with pytest.raises(ValueError, match="epsilon"):
        UnrolledSinkhorn(0.0)
    with pytest.raises(ValueError, match="non-finite"):
        UnrolledSinkhorn().solve_cost(C / torch.eye(4))


@pytest.mark.parametrize("rounds", [1, 5, 20])
def test_unrolled_is_the_plain_loop(rounds: int) -> None:
    C, _, _ = problem(6, 6, 8)
    K = np.exp(-C.numpy() / 0.1)
    for _ in range(rounds):
        K = K / K.sum(1, keepdims=True)
        K = K / K.sum(0, keepdims=True)
    found = UnrolledSinkhorn(0.1, rounds).solve_cost(C)
    np.testing.assert_allclose(found.plan(), K / 6, rtol=1e-9)
    assert float(found.value) == pytest.approx((K * C.numpy()).sum() / 6, rel=1e-12)
    rows = np.abs(K.sum(1) / 6 - 1 / 6).sum()
    assert float(found.marginal_error) == pytest.approx(rows, rel=1e-6, abs=1e-12)


def test_unrolled_gradient_is_the_loops_and_tends_to_the_implicit_one() -> None:
    C, a, b = problem(5, 6, 9)
    C.requires_grad_()
    assert torch.autograd.gradcheck(lambda C: UnrolledSinkhorn(0.3, 4).solve_cost(C, a, b).value, (C,))
    many = UnrolledSinkhorn(0.3, 400).solve_cost(C, a, b)
    entropic = Sinkhorn(0.3, solver=LogSinkhorn(tolerance=1e-13)).solve_cost(C, a, b, differentiable=True)
    (unrolled,) = torch.autograd.grad(many.value, C)
    (implicit,) = torch.autograd.grad(torch.as_tensor(entropic.cost), C)
    np.testing.assert_allclose(unrolled, implicit, atol=1e-8)
    assert float(many.value.detach()) == pytest.approx(float(entropic.cost.detach()), rel=1e-9)
    assert float(many.marginal_error) < 1e-12


def test_unrolled_survives_small_epsilon_and_keeps_float32() -> None:
    C = Manhattan().matrix(torch.eye(5), torch.eye(5).flip(0))
    found = UnrolledSinkhorn(1e-3).solve_cost(C)
    assert found.value.dtype == torch.float32
    assert float(found.value) == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_allclose(found.apply(torch.eye(5)), found.plan(), atol=1e-6)
