"""The multi-scale solver against POT, SciPy's linear programmes and assignment, and its own certificates on the full matrix."""

import numpy as np
import ot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from point_certificates import check, cloud, matrix, weights
from scipy.optimize import linear_sum_assignment, linprog

from discrepancy._results import Outcome
from discrepancy.costs import SquaredEuclidean
from discrepancy.transport.exact.multiscale import solve_points

SQUARED = SquaredEuclidean()


def optimum(C, a, b) -> float:
    return float(ot.emd2(a, b, C / C.max(), numItermax=10**7)) * C.max()


@pytest.mark.parametrize("kind", ["normal", "clusters", "cauchy", "lattice", "line", "onehot"])
@pytest.mark.parametrize("d", [2, 3, 7])
def test_optimum_on_clouds_of_many_shapes(kind, d):
    rng = np.random.default_rng(3)
    x, y = cloud(kind, 260, d, rng), cloud(kind, 310, d, rng)
    a, b = weights(rng, 260), weights(rng, 310)
    s = solve_points(x, y, a, b, SQUARED)
    C = matrix(x, y, SQUARED)
    check(s, C, a, b)
    # POT itself stops within about 1e-9 on heavy tails.
    assert s.primal == pytest.approx(optimum(C, a, b), rel=1e-8 if kind == "cauchy" else 1e-10)


@pytest.mark.parametrize(("n", "m", "d"), [(700, 900, 2), (900, 700, 3), (500, 500, 32), (40, 1500, 2), (1500, 40, 6)])
def test_several_levels(n, m, d):
    rng = np.random.default_rng(n + d)
    x, y = cloud("normal", n, d, rng), cloud("normal", m, d, rng) + 0.5
    a, b = weights(rng, n), weights(rng, m)
    s = solve_points(x, y, a, b, SQUARED)
    C = matrix(x, y, SQUARED)
    check(s, C, a, b)
    assert s.primal == pytest.approx(optimum(C, a, b), rel=1e-11)
    assert s.rungs == ("multi-scale network simplex",)


def test_equal_weights_are_an_assignment():
    rng = np.random.default_rng(0)
    for d in (2, 16):
        x, y = rng.random((400, d)), rng.random((400, d))
        a = np.full(400, 1 / 400)
        s = solve_points(x, y, a, a, SQUARED)
        C = matrix(x, y, SQUARED)
        assert sorted(s.rows) == sorted(s.columns) == list(range(400))
        assert s.primal == pytest.approx(C[linear_sum_assignment(C)].mean(), rel=1e-13)
        check(s, C, a, a)


def test_equal_weights_of_different_numbers_use_exact_integers():
    rng = np.random.default_rng(1)
    x, y = rng.random((400, 2)), rng.random((600, 2))
    a, b = np.full(400, 1 / 400), np.full(600, 1 / 600)
    s = solve_points(x, y, a, b, SQUARED)
    np.testing.assert_allclose(s.mass * 1200, np.rint(s.mass * 1200), atol=1e-12)
    C = matrix(x, y, SQUARED)
    check(s, C, a, b)
    assert s.primal == pytest.approx(optimum(C, a, b), rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 14),
    st.integers(1, 14),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_linear_programme_on_small_degenerate_problems(n, m, d, side, seed, equal):
    # Points of a tiny lattice: ties, duplicates and collinear points everywhere; some weights are zero.
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, side, (n, d)).astype(float), rng.integers(0, side, (m, d)).astype(float)
    a = np.ones(n) if equal else rng.integers(0, 4, n).astype(float)
    b = np.ones(m) if equal else rng.integers(0, 4, m).astype(float)
    a[0] += a.sum() == 0
    b[0] += b.sum() == 0
    a, b = a / a.sum(), b / b.sum()
    s = solve_points(x, y, a, b, SQUARED)
    C = matrix(x, y, SQUARED)
    check(s, C, a, b)
    rows = np.kron(np.eye(n), np.ones(m))
    columns = np.kron(np.ones(n), np.eye(m))
    best = linprog(C.ravel(), A_eq=np.r_[rows, columns][:-1], b_eq=np.r_[a, b][:-1], method="highs").fun
    assert s.primal == pytest.approx(best, abs=1e-9)


def test_translation_adds_its_square():
    # W2^2(x, x + t) = |t|^2, by the identity plan: a truth that needs no solver.
    rng = np.random.default_rng(2)
    x = rng.standard_normal((900, 3))
    a = weights(rng, 900)
    shift = np.array([3.0, -1.0, 0.5])
    s = solve_points(x, x + shift, a, a, SQUARED)
    assert s.primal == pytest.approx(shift @ shift, rel=1e-12)
    assert s.dual == pytest.approx(shift @ shift, rel=1e-11)


def test_gradient_of_a_convex_function_is_the_optimal_map():
    # T = grad of |x|^2/2 + log(1 + e^(w.x)) is optimal from x to T(x): Brenier.
    rng = np.random.default_rng(4)
    x = rng.standard_normal((800, 5))
    w = rng.standard_normal(5)
    y = x + w / (1 + np.exp(-x @ w))[:, None]
    a = weights(rng, 800)
    order = rng.permutation(800)
    s = solve_points(x, y[order], a, a[order], SQUARED)
    assert s.primal == pytest.approx(float(a @ ((x - y) ** 2).sum(1)), rel=1e-12)
    assert (order[s.columns] == s.rows).all()


def test_unpruned_pass_confirms_the_gap():
    rng = np.random.default_rng(5)
    x, y = rng.random((500, 2)), rng.random((600, 2))
    a, b = weights(rng, 500), weights(rng, 600)
    quick, sure = (solve_points(x, y, a, b, SQUARED, rigorous=r) for r in (False, True))
    check(sure, matrix(x, y, SQUARED), a, b)
    assert abs(sure.gap) <= 1e-13 * sure.primal
    assert sure.primal == quick.primal
    np.testing.assert_allclose(sure.f, quick.f, atol=1e-15)


def test_equal_samples_in_another_order_need_no_solve():
    rng = np.random.default_rng(6)
    x, a = rng.integers(0, 9, (700, 3)).astype(float), weights(rng, 700)
    order = rng.permutation(700)
    s = solve_points(x, x[order], a, a[order], SQUARED)
    assert s.primal == s.dual == 0.0
    assert s.pivots == 0
    assert s.outcome is Outcome.CLOSED_FORM
    check(s, matrix(x, x[order], SQUARED), a, a[order])


def test_sizes_of_a_start_must_agree():
    rng = np.random.default_rng(7)
    x, a = rng.random((30, 2)), weights(rng, 30)
    basis = solve_points(x, x + 1, a, a, SQUARED).basis
    with pytest.raises(ValueError, match="30 x 29 points, got 30 x 30"):
        solve_points(x, x[:29], a, a[:29] / a[:29].sum(), SQUARED, start=basis)
