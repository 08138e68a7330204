"""Sinkhorn-Newton-sparse and plain log-domain Sinkhorn against POT, against residuals computed here, and on hard inputs."""

from __future__ import annotations

import math

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from discrepancy import ConvergenceWarning, Outcome
from discrepancy.transport import LogSinkhorn, RelativeEpsilon, SemiDualNewton, Sinkhorn, SinkhornDivergence, SinkhornNewtonSparse
from discrepancy.transport.entropic.problem import MatrixProblem, StreamedProblem
from discrepancy.transport.entropic.sparse_newton import Member
from discrepancy.transport.entropic.sparse_system import SparseSystem

SPARSE = SinkhornNewtonSparse(tolerance=1e-11)


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def masses(n: int, seed: int) -> torch.Tensor:
    w = 0.1 + torch.rand(n, generator=rng(seed), dtype=torch.float64)
    return w / w.sum()


@pytest.fixture
def problem():
    C = torch.rand(40, 30, generator=rng(0), dtype=torch.float64)
    return C, masses(40, 1), masses(30, 2)


def residual(C, a, b, f, g, epsilon) -> float:
    """The L1 error of both marginals of the plan of (f, g), in NumPy."""
    C, a, b, f, g = (t.numpy() for t in (C, a, b, f, g))
    with np.errstate(divide="ignore"):
        exponent = (f[:, None] + g - C) / epsilon + np.log(a)[:, None] + np.log(b)
    return float(np.abs(np.exp(logsumexp(exponent, 1)) - a).sum() + np.abs(np.exp(logsumexp(exponent, 0)) - b).sum())


@pytest.mark.parametrize("solver", [SPARSE, LogSinkhorn(tolerance=1e-11, max_iterations=100_000)], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("epsilon", [0.1, 0.01, 0.004])
def test_the_plan_is_pots_and_the_error_is_true(problem, solver, epsilon) -> None:
    C, a, b = problem
    result = Sinkhorn(epsilon, solver=solver).solve_cost(C, a, b)
    assert result.outcome is Outcome.CONVERGED
    assert residual(C, a, b, result.f, result.g, epsilon) < 2e-11
    if epsilon >= 0.01:
        plan = ot.bregman.sinkhorn_log(a.numpy(), b.numpy(), C.numpy(), epsilon, stopThr=1e-12, numItermax=200_000)
        torch.testing.assert_close(result.plan(), torch.from_numpy(plan), atol=1e-10, rtol=0)
    assert float(a @ result.f) == pytest.approx(float(b @ result.g), abs=1e-12)  # type: ignore[operator]


@pytest.mark.parametrize("epsilon", [1e-2, 1e-3, 1e-4, 1e-5])
def test_far_fewer_iterations_than_sweeps_at_every_epsilon(problem, epsilon) -> None:
    C, a, b = problem
    result = Sinkhorn(epsilon, solver=SinkhornNewtonSparse(1e-11, max_newton=300)).solve_cost(C, a, b)
    assert result.outcome is Outcome.CONVERGED
    assert residual(C, a, b, result.f, result.g, epsilon) < 2e-11
    assert result.iterations < 1000
    exact = ot.emd2(a.numpy(), b.numpy(), C.numpy())
    assert exact - 1e-12 <= float(result.value) <= exact + epsilon * math.log(30)


def test_counts_are_what_was_done(problem) -> None:
    C, a, b = problem
    e = torch.tensor([0.01], dtype=torch.float64)
    one = MatrixProblem(C[None], a[None], b[None], torch.float64)
    found = SPARSE.solve(one, e)
    assert found.sweeps == 20
    assert found.newton > 0
    assert found.iterations == found.sweeps + found.newton
    assert found.entries == 15 * 30
    assert found.density == pytest.approx(450 / 1200)
    assert found.rungs == ("log-domain sweeps: 20", f"sparse Newton: {found.newton}, 450 entries kept (37.5 %)")
    easy = SPARSE.solve(one, 10 * e.new_ones(1))
    assert easy.newton == 0
    assert easy.sweeps == LogSinkhorn(tolerance=1e-11).solve(one, 10 * e.new_ones(1)).iterations


def test_dense_hessian_and_sparse_hessian_agree(problem) -> None:
    """With all entries kept the first step is Newton's own: the linear system solved in NumPy gives the same direction."""
    C, a, b = problem
    results = [Sinkhorn(0.005, solver=SinkhornNewtonSparse(1e-11, density=d)).solve_cost(C, a, b) for d in (1.0, 0.2, None)]
    for r in results[1:]:
        torch.testing.assert_close(r.f, results[0].f, atol=1e-11, rtol=0)
    P = torch.rand(6, 4, generator=rng(3), dtype=torch.float64)
    rows, columns = (t.flatten() for t in torch.meshgrid(torch.arange(6), torch.arange(4), indexing="ij"))
    u, v = torch.randn(6, generator=rng(4), dtype=torch.float64), torch.randn(4, generator=rng(5), dtype=torch.float64)
    v = v + (u.sum() - v.sum()) / 4
    system = SparseSystem(rows, columns, P.flatten(), P.sum(1), P.sum(0))
    full = torch.cat([torch.cat([P.sum(1).diag(), P], 1), torch.cat([P.T, P.sum(0).diag()], 1)])
    want = torch.linalg.lstsq(full, torch.cat([u, v])[:, None], driver="gelsd").solution[:, 0]
    for solve in (system._compiled, system._torch):
        df, dg, done = solve(u, v, 1e-13, 100)
        assert 0 < done <= 100
        torch.testing.assert_close(df[:, None] + dg, want[:6, None] + want[6:], atol=1e-10, rtol=0)


def test_truncated_system_keeps_full_sums(problem) -> None:
    """The diagonal holds the sums of the whole plan, so the matrix is positive semidefinite whatever was dropped."""
    C, a, b = problem
    one = MatrixProblem(C[None], a[None], b[None], torch.float64)
    from discrepancy.transport.entropic.sparse_newton import SparseNewton, StepOptions

    steps = SparseNewton(one, torch.tensor([0.05], dtype=torch.float64), 1e-9, 100, StepOptions(5, 1e-8, 100, 5))
    at = steps.evaluate(torch.zeros_like(a), torch.zeros_like(b))
    plan = a[:, None] * b * torch.exp(-C / 0.05)
    system = steps.sparsified(at)
    torch.testing.assert_close(system.row_sums, plan.sum(1))
    torch.testing.assert_close(system.column_sums, plan.sum(0))
    assert len(system.entries) == 100
    torch.testing.assert_close(system.entries.sort().values, plan.flatten().topk(100).values.flip(0))
    torch.testing.assert_close(system.entries, plan[system.rows, system.columns])


def test_ties_of_an_l1_cost_at_small_epsilon() -> None:
    """No sparse plan, and a far start: Newton falls back on larger epsilons instead of running off."""
    s = torch.linspace(0, 1, 8, dtype=torch.float64)
    grid = torch.cartesian_prod(s, s)
    C = torch.cdist(grid, grid, p=1)
    for epsilon in (1 / 200, 1 / 1200, 1 / 20_000):
        r = Sinkhorn(epsilon, solver=SPARSE).solve_cost(C, masses(64, 1), masses(64, 2))
        assert r.outcome is Outcome.CONVERGED
        assert residual(C, masses(64, 1), masses(64, 2), r.f, r.g, epsilon) < 3e-11
    assert any("twice the epsilon" in rung for rung in r.rungs)


@pytest.mark.parametrize("solver", [SPARSE, LogSinkhorn(1e-11, 100_000)], ids=lambda s: type(s).__name__)
def test_zero_weights_are_left_out_and_completed(problem, solver) -> None:
    C, a, b = problem
    a, b = a.clone(), b.clone()
    a[[0, 7]], b[3] = 0, 0
    a, b = a / a.sum(), b / b.sum()
    r = Sinkhorn(0.01, solver=solver).solve_cost(C, a, b)
    part = Sinkhorn(0.01, solver=solver).solve_cost(C[a > 0][:, b > 0], a[a > 0], b[b > 0])
    assert float(r.value) == pytest.approx(float(part.value), rel=1e-10)
    torch.testing.assert_close(r.plan()[a > 0][:, b > 0], part.plan(), atol=1e-10, rtol=0)
    f = -0.01 * torch.logsumexp((r.g - C) / 0.01 + b.log(), 1)
    g = -0.01 * torch.logsumexp((r.f[:, None] - C) / 0.01 + a.log()[:, None], 0)  # type: ignore[index]
    torch.testing.assert_close(f, r.f, atol=1e-10, rtol=0)
    torch.testing.assert_close(g, r.g, atol=1e-10, rtol=0)


@pytest.mark.parametrize("solver", [SPARSE, LogSinkhorn(1e-11, 100_000)], ids=lambda s: type(s).__name__)
def test_forbidden_pairs(problem, solver) -> None:
    """An infinite cost leaves an entry of exactly zero; a point without weight may have no allowed pair at all."""
    C, a, b = problem
    a = a.clone()
    a[4] = 0
    a = a / a.sum()
    C = torch.where(torch.rand(C.shape, generator=rng(5)) < 0.3, math.inf, C)
    C[4] = math.inf
    r = Sinkhorn(0.02, solver=solver).solve_cost(C, a, b)
    plan = r.plan()
    assert float(plan[C.isinf()].abs().max()) == 0
    part = Sinkhorn(0.02, solver=SemiDualNewton(1e-11)).solve_cost(torch.where(C.isinf(), 100.0, C)[a > 0], a[a > 0], b)
    assert float(r.value) == pytest.approx(float(part.value), rel=1e-10)
    torch.testing.assert_close(plan[a > 0], part.plan(), atol=1e-10, rtol=0)
    assert bool(torch.isfinite(r.g).all())  # type: ignore[arg-type]


@pytest.mark.filterwarnings("default::discrepancy.ConvergenceWarning")
def test_plain_sweeps_stay_finite_where_they_cannot_converge(problem) -> None:
    """Column sums underflow at first; the logarithm is taken from the soft-minimum then."""
    C, a, b = problem
    for epsilon in (1e-4, 1e-9, 1e-15):
        with pytest.warns(ConvergenceWarning):
            r = Sinkhorn(epsilon, solver=LogSinkhorn(1e-9, max_iterations=50)).solve_cost(C, a, b)
        assert r.iterations == 50
        assert r.rungs == ("log-domain sweeps: 50",)
        assert bool(torch.isfinite(torch.cat([r.f, r.g, r.value[None], r.cost[None]])).all())  # type: ignore[list-item]
        assert float(r.marginal_error) > 1e-9
        exact = ot.emd2(a.numpy(), b.numpy(), C.numpy())
        assert float(r.value) <= exact + epsilon * math.log(30) + 1e-12


def test_batches_blocks_and_starts(problem) -> None:
    C, a, b = problem
    batch = Sinkhorn(0.01, solver=SPARSE).solve_cost(torch.stack([C, C.flip(0), 40 * C]), a, b)
    for k, single in enumerate((C, C.flip(0), 40 * C)):
        want = Sinkhorn(0.01, solver=SPARSE).solve_cost(single, a, b)
        torch.testing.assert_close(batch.f[k], want.f, atol=1e-10, rtol=0)  # type: ignore[index]
    x, y = (torch.randn(n, 2, generator=rng(n), dtype=torch.float64) for n in (40, 30))
    kept = Sinkhorn(0.05, solver=SPARSE).solve(x, y, a, b)
    streamed = Sinkhorn(0.05, solver=SinkhornNewtonSparse(1e-11, memory=30 * 8 * 4 * 3 / 2**30)).solve(x, y, a, b)
    torch.testing.assert_close(kept.f, streamed.f, atol=1e-10, rtol=0)
    again = Sinkhorn(0.05, solver=SPARSE).solve(x + 1e-5, y, a, b, start=kept)
    assert again.iterations < kept.iterations


def test_the_selection_is_the_same_block_by_block() -> None:
    x, y = (torch.randn(n, 2, generator=rng(n), dtype=torch.float64) for n in (50, 40))
    w, v = masses(50, 0)[None], masses(40, 1)[None]
    from discrepancy.costs import SquaredEuclidean
    from discrepancy.transport.entropic.sparse_newton import SparseNewton, StepOptions

    blocks = StreamedProblem(x[None], y[None], w, v, SquaredEuclidean(), 40 * 8 * 4 * 7, torch.float64)
    whole = MatrixProblem(SquaredEuclidean().matrix(x, y)[None], w, v, torch.float64)
    found = []
    for one in (blocks, whole, Member(whole, 0)):
        steps = SparseNewton(one, torch.tensor([0.3], dtype=torch.float64), 1e-9, 123, StepOptions(5, 1e-8, 100, 5))
        found.append(steps.sparsified(steps.evaluate(x[:, 0] / 9, y[:, 0] / 7)))
    for other in found[1:]:
        assert torch.equal(found[0].rows, other.rows)
        assert torch.equal(found[0].columns, other.columns)
        torch.testing.assert_close(found[0].entries, other.entries)


def test_the_divergence_takes_it() -> None:
    x, y = (torch.randn(n, 2, generator=rng(n), dtype=torch.float64) for n in (20, 25))
    want = SinkhornDivergence(0.1, solver=SemiDualNewton(tolerance=1e-11))(x, y)
    assert float(SinkhornDivergence(0.1, solver=SPARSE)(x, y)) == pytest.approx(float(want), rel=1e-9)
    assert float(SinkhornDivergence(0.1, solver=SPARSE)(x, x)) == 0


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1e-12, 1.0, 1e12]), st.sampled_from([0.3, 0.01, 1e-3]), st.booleans())
def test_random_problems_of_any_scale(seed, scale, share, ties) -> None:
    n, m = 3 + seed % 9, 2 + seed % 7
    C = torch.rand(n, m, generator=rng(seed), dtype=torch.float64)
    C = scale * ((4 * C).floor() if ties else C)
    a, b = masses(n, seed + 1), masses(m, seed + 2)
    r = Sinkhorn(RelativeEpsilon(share), solver=SinkhornNewtonSparse(tolerance=1e-9, max_newton=500)).solve_cost(C, a, b)
    assert r.outcome is Outcome.CONVERGED
    assert residual(C, a, b, r.f, r.g, float(r.epsilon)) < 2e-9
    assert -1e-12 * scale <= float(r.dual_gap) <= 1e-6 * scale


@pytest.mark.parametrize("solver", [SinkhornNewtonSparse(), LogSinkhorn()], ids=lambda s: type(s).__name__)
def test_bad_input(problem, solver) -> None:
    C, a, b = problem
    D = Sinkhorn(1e-2, solver=solver)
    with pytest.raises(ValueError, match=r"a must sum to 1 .* got 2"):
        D.solve_cost(C, 2 * a, b)
    with pytest.raises(ValueError, match="NaN"):
        D.solve_cost(torch.where(C.max() == C, math.nan, C), a, b)
    with pytest.raises(ValueError, match="epsilon"):
        Sinkhorn(0.0, solver=solver)
    with pytest.raises(ValueError, match="epsilon"):
        Sinkhorn(-1.0, solver=solver)


@pytest.mark.filterwarnings("default::discrepancy.ConvergenceWarning")
def test_not_converged_is_said_and_never_nan(problem) -> None:
    C, a, b = problem
    for epsilon, solver in ((1e-3, SinkhornNewtonSparse(1e-11, max_newton=1)), (1e-3, LogSinkhorn(1e-11, max_iterations=5))):
        with pytest.warns(ConvergenceWarning, match="iteration limit"):
            r = Sinkhorn(epsilon, solver=solver).solve_cost(C, a, b)
        assert r.outcome is Outcome.ITERATION_LIMIT
        assert float(r.marginal_error) > 1e-11
        assert bool(torch.isfinite(r.f).all() & torch.isfinite(r.g).all())  # type: ignore[arg-type]
        assert float(r.dual_gap) > 0


def test_float32_with_a_small_epsilon_warns(problem) -> None:
    C, a, b = problem
    with pytest.warns(UserWarning, match="below 1e-3 of the largest cost"):
        Sinkhorn(5e-4, solver=SinkhornNewtonSparse()).solve_cost(C.float(), a.float(), b.float())
    r = Sinkhorn(5e-2, solver=SinkhornNewtonSparse()).solve_cost(C.float(), a.float(), b.float())
    assert r.f is not None
    assert r.f.dtype == torch.float32
    assert float(r.value) == pytest.approx(float(Sinkhorn(5e-2).solve_cost(C, a, b).value), rel=1e-5)


def test_options_are_checked() -> None:
    for options, match in (
        ({"tolerance": -1.0}, "tolerance"),
        ({"warm_sweeps": 0}, "warm_sweeps"),
        ({"max_newton": 1.5}, "max_newton"),
        ({"density": 0.0}, "density"),
        ({"density": 1.1}, "density"),
        ({"conjugate_tolerance": 1.0}, "conjugate_tolerance"),
        ({"conjugate_limit": 0}, "conjugate_limit"),
        ({"memory": 0.0}, "memory"),
    ):
        with pytest.raises(ValueError, match=match):
            SinkhornNewtonSparse(**options)
