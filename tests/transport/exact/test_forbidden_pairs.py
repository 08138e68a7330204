"""Infinite costs: exact at every scale of the others, and a sentence where they leave no plan."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from test_solve_matrix import check_certificate, lp_value

from discrepancy._results import NumericalError
from discrepancy.transport.exact.dense import solve_matrix


def sparse_problem(rng, n, m, share):
    """Costs with a share forbidden and weights that some allowed plan serves."""
    C = rng.standard_normal((n, m))
    plan = np.zeros((n, m))
    plan[rng.integers(0, n, n + m), rng.integers(0, m, n + m)] = rng.random(n + m) + 0.1
    C[(rng.random((n, m)) < share) & (plan == 0)] = np.inf
    plan /= plan.sum()
    return C, plan.sum(1), plan.sum(0)


@given(st.integers(1, 10), st.integers(1, 10), st.floats(0.1, 1.0), st.integers(0, 2**31), st.sampled_from([0, -12, 12]))
@settings(deadline=None, max_examples=80)
def test_small_problems_against_a_linear_program(n, m, share, seed, decades):
    C, a, b = sparse_problem(np.random.default_rng(seed), n, m, share)
    s = solve_matrix(C * 10.0**decades, a, b)
    check_certificate(C * 10.0**decades, a, b, s)
    assert s.primal / 10.0**decades == pytest.approx(lp_value(C, a, b), abs=1e-10)


@pytest.mark.parametrize(("n", "share"), [(120, 0.5), (300, 0.9), (300, 0.99)])
def test_sparse_assignments_against_scipy(n, share):
    rng = np.random.default_rng(n)
    C = rng.random((n, n))
    C[rng.random((n, n)) < share] = np.inf
    C[np.arange(n), rng.permutation(n)] = rng.random(n)
    w = np.full(n, 1 / n)
    s = solve_matrix(C, w, w)
    check_certificate(C, w, w, s)
    assert s.primal == pytest.approx(C[linear_sum_assignment(C)].mean(), rel=1e-12)


def test_blocks_that_do_not_touch():
    rng = np.random.default_rng(0)
    C = np.full((90, 90), np.inf)
    value = 0.0
    for k in range(3):
        block = rng.random((30, 30)) * 10.0 ** (6 * k - 6)
        C[30 * k : 30 * k + 30, 30 * k : 30 * k + 30] = block
        value += block[linear_sum_assignment(block)].sum() / 90
    w = np.full(90, 1 / 90)
    order = rng.permutation(90)
    s = solve_matrix(C[:, order], w, w)
    check_certificate(C[:, order], w, w, s)
    assert s.primal == pytest.approx(value, rel=1e-13)


def test_blocks_whose_weights_agree_to_rounding_only():
    rng = np.random.default_rng(1)
    a = rng.random(300)
    a /= a.sum()
    cell = rng.integers(0, 20, 300)
    share = rng.dirichlet(np.ones(5), 20)  # each block's mass is split over five columns of its own
    b = (np.bincount(cell, a, 20)[:, None] * share).ravel()
    C = np.where(cell[:, None] == np.arange(100) // 5, rng.random((300, 100)), np.inf)
    s = solve_matrix(C, a, b / b.sum())
    check_certificate(C, a, b, s)


def test_the_only_plan_is_found_through_a_chain_of_forced_moves():
    n = 200
    C = np.full((n, n), np.inf)
    C[np.arange(n), np.arange(n)] = 5.0
    C[np.arange(1, n), np.arange(n - 1)] = 1.0  # cheaper, but row 0 then has nowhere to go
    w = np.full(n, 1 / n)
    s = solve_matrix(C, w, w)
    check_certificate(C, w, w, s)
    assert s.primal == pytest.approx(5.0)


def test_rows_and_columns_that_cannot_be_served_are_named():
    C = np.zeros((4, 4))
    C[1:3, 1:] = np.inf  # rows 1 and 2 may only go to column 0
    w = np.full(4, 0.25)
    with pytest.raises(NumericalError, match=r"rows 1, 2 of weight 0.5 can only go to column 0 of weight 0.25"):
        solve_matrix(C, w, w)
    C[1] = np.inf
    with pytest.raises(NumericalError, match=r"can go nowhere|can only go"):
        solve_matrix(C, w, w)


def test_a_forbidden_row_without_weight_does_no_harm():
    rng = np.random.default_rng(2)
    C = rng.random((80, 70))
    C[5], C[:, 9] = np.inf, np.inf
    a, b = rng.random(80), rng.random(70)
    a[5] = b[9] = 0
    a, b = a / a.sum(), b / b.sum()
    s = solve_matrix(C, a, b)
    check_certificate(C, a, b, s)
    inner = solve_matrix(np.delete(np.delete(C, 5, 0), 9, 1), np.delete(a, 5), np.delete(b, 9))
    assert s.primal == pytest.approx(inner.primal, rel=1e-14)


@given(st.integers(2, 7), st.integers(2, 7), st.integers(0, 2**31))
@settings(deadline=None, max_examples=60)
def test_infeasible_exactly_when_the_linear_program_is(n, m, seed):
    from scipy.optimize import linprog

    rng = np.random.default_rng(seed)
    C = np.where(rng.random((n, m)) < 0.6, np.inf, 1.0)
    a, b = rng.integers(1, 4, n).astype(float), rng.integers(1, 4, m).astype(float)
    a, b = a / a.sum(), b / b.sum()
    allowed = np.isfinite(C).ravel()
    constraints = np.vstack([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    bounds = [(0, None if ok else 0) for ok in allowed]
    feasible = linprog(np.zeros(n * m), A_eq=constraints, b_eq=np.concatenate([a, b]), bounds=bounds, method="highs").status == 0
    if feasible:
        check_certificate(C, a, b, solve_matrix(C, a, b))
    else:
        with pytest.raises(NumericalError, match="forbidden"):
            solve_matrix(C, a, b)
