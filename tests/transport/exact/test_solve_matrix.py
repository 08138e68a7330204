"""Exact transport on a cost matrix against SciPy and POT; certificates checked from the matrix alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment, linprog

from discrepancy._results import Outcome
from discrepancy.transport.exact.dense import solve_matrix


def check_certificate(C, a, b, s, *, tolerance=1e-12):
    """Marginals, feasibility for every allowed pair, complementary slackness, the two values: from C, a and b alone."""
    C = np.asarray(C, np.float64)
    n, m = C.shape
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    a, b = a / a.sum(), b / b.sum()
    assert (s.mass > 0).all()
    assert len(s.mass) <= n + m - 1
    assert len(set(zip(s.rows.tolist(), s.columns.tolist()))) == len(s.mass)
    np.testing.assert_allclose(np.bincount(s.rows, s.mass, n), a, rtol=1e-14, atol=1e-17)
    np.testing.assert_allclose(np.bincount(s.columns, s.mass, m), b, rtol=1e-8, atol=1e-16 * (n + m))
    assert np.isfinite(s.f).all()
    assert np.isfinite(s.g).all()
    slack = C - s.f[:, None] - s.g[None, :]
    size = np.abs(s.f)[:, None] + np.abs(s.g)[None, :] + np.where(np.isfinite(C), np.abs(C), 0)
    assert (slack >= -4e-16 * size)[np.isfinite(C)].all()
    chosen = slack[s.rows, s.columns]
    # A potential is a sum of costs along the tree: its rounding is that of the largest.
    assert (chosen <= tolerance * size[s.rows, s.columns] + 4e-15 * (np.abs(s.f).max() + np.abs(s.g).max())).all()
    scale = float((s.mass * np.abs(C[s.rows, s.columns])).sum() + (a * np.abs(s.f)).sum() + (b * np.abs(s.g)).sum())
    assert s.primal == pytest.approx(float((s.mass * C[s.rows, s.columns]).sum()), abs=1e-14 * scale)
    assert s.dual == pytest.approx(float(a @ s.f + b @ s.g), abs=1e-14 * scale)
    assert s.gap <= tolerance * scale
    assert s.outcome is Outcome.CONVERGED


def lp_value(C, a, b):
    n, m = C.shape
    allowed = np.isfinite(C).ravel()
    constraints = np.vstack([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])[:, allowed]
    scale = np.abs(C[np.isfinite(C)]).max() or 1.0
    result = linprog(C.ravel()[allowed] / scale, A_eq=constraints, b_eq=np.concatenate([a, b]), method="highs")
    assert result.status == 0
    return result.fun * scale


def random_problem(rng, n, m, kind):
    a, b = rng.random(n) + 0.01, rng.random(m) + 0.01
    if kind in ("ties", "collinear"):
        a, b = np.ones(n), np.ones(m)
    C = rng.standard_normal((n, m))
    if kind in ("integers", "ties"):
        C = rng.integers(-2, 3, (n, m)).astype(float)
    if kind == "collinear":
        C = np.abs(rng.integers(0, 5, n)[:, None] - rng.integers(0, 5, m)[None]).astype(float)
    if kind == "zero weights":
        a[rng.random(n) < 0.4] = 0
        b[rng.random(m) < 0.4] = 0
        a[0] = b[0] = 1.0
    if kind == "duplicates":
        C = C[rng.integers(0, max(1, n // 3), n)]
    if kind == "equal":
        C = np.full((n, m), rng.standard_normal())
    return C, a / a.sum(), b / b.sum()


KINDS = ["normal", "integers", "ties", "collinear", "zero weights", "duplicates", "equal"]


@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.sampled_from(KINDS),
    st.integers(0, 2**31),
    st.sampled_from([0, -12, 12, -150, 150]),
)
@settings(deadline=None, max_examples=120)
def test_small_problems_against_a_linear_program(n, m, kind, seed, decades):
    C, a, b = random_problem(np.random.default_rng(seed), n, m, kind)
    s = solve_matrix(C * 10.0**decades, a, b)
    check_certificate(C * 10.0**decades, a, b, s)
    assert s.primal / 10.0**decades == pytest.approx(lp_value(C, a, b), abs=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "m"), [(150, 90), (61, 240)])
def test_medium_problems_against_pot(n, m, kind):
    ot = pytest.importorskip("ot")
    C, a, b = random_problem(np.random.default_rng(n), n, m, kind)
    s = solve_matrix(C, a, b)
    check_certificate(C, a, b, s)
    assert s.primal == pytest.approx(ot.emd2(a, b, C, numItermax=10**7), abs=1e-12)


@pytest.mark.parametrize(("n", "d"), [(120, 2), (300, 2), (300, 32)])
def test_assignment_against_scipy(n, d):
    rng = np.random.default_rng(n + d)
    x, y = rng.random((n, d)), rng.random((n, d)) + 0.3
    C = ((x[:, None] - y[None]) ** 2).sum(-1)
    w = np.full(n, 1 / n)
    s = solve_matrix(C, w, w)
    check_certificate(C, w, w, s)
    assert len(s.mass) == n
    assert s.primal == pytest.approx(C[linear_sum_assignment(C)].mean(), rel=1e-13)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1)])
def test_one_row_or_column_has_one_plan(shape):
    C = np.random.default_rng(0).standard_normal(shape)
    a, b = np.full(shape[0], 1 / shape[0]), np.full(shape[1], 1 / shape[1])
    s = solve_matrix(C, a, b)
    check_certificate(C, a, b, s)
    assert s.primal == pytest.approx(a @ C @ b, abs=1e-15)


@pytest.mark.parametrize("side", [12, 30])
def test_a_lattice_of_ties_ends_and_finds_its_shift(side):
    i, j = np.divmod(np.arange(side * side), side)
    x = np.stack([i, j], 1)
    C = ((x[:, None] - (x + np.array([1, 0]))[None]) ** 2).sum(-1).astype(float)
    w = np.full(len(x), 1 / len(x))
    s = solve_matrix(C, w, w)
    check_certificate(C, w, w, s)
    assert s.primal == pytest.approx(1.0, abs=1e-15)  # a translation by a unit vector is optimal
    shuffled = np.random.default_rng(0).permutation(len(x))
    assert solve_matrix(C[shuffled], w, w).primal == pytest.approx(1.0, abs=1e-15)


@pytest.mark.parametrize("metric", [1, 2])
def test_sorting_on_a_line_with_repeats(metric):
    rng = np.random.default_rng(metric)
    x, y = np.sort(rng.integers(0, 60, 400)), np.sort(rng.integers(0, 60, 400))
    C = np.abs(x[:, None] - y[None]).astype(float) ** metric
    w = np.full(400, 1 / 400)
    s = solve_matrix(C[rng.permutation(400)], w, w)
    assert s.primal == pytest.approx((np.abs(x - y).astype(float) ** metric).mean(), abs=1e-12)


def test_weights_over_nine_decades_and_one_huge_weight():
    ot = pytest.importorskip("ot")
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((200, 3)), rng.standard_normal((150, 3))
    C = ((x[:, None] - y[None]) ** 2).sum(-1)
    a, b = rng.permutation(np.logspace(-9, 0, 200)), np.concatenate([[1e6], rng.random(149)])
    a, b = a / a.sum(), b / b.sum()
    s = solve_matrix(C, a, b)
    check_certificate(C, a, b, s)
    assert s.primal == pytest.approx(ot.emd2(a, b, C, numItermax=10**7), rel=1e-9)


@pytest.mark.parametrize("scale", [1e-12, 1e-7, 1e12])
def test_the_scale_of_the_costs_changes_nothing(scale):
    rng = np.random.default_rng(7)
    x, y = rng.random((180, 2)), rng.random((200, 2))
    C = ((x[:, None] - y[None]) ** 2).sum(-1)
    a, b = np.full(180, 1 / 180), np.full(200, 1 / 200)
    scale = 2.0 ** round(np.log2(scale))
    one, other = solve_matrix(C, a, b), solve_matrix(C * scale, a, b)
    assert other.primal == one.primal * scale
    assert other.pivots == one.pivots


def test_costs_of_both_1e12_and_1e_12_in_one_matrix():
    rng = np.random.default_rng(3)
    n = 40
    C = np.full((2 * n, 2 * n), 1e12)
    small = rng.random((n, n)) * 1e-12
    C[:n, :n] = small
    C[n:, n:] = rng.random((n, n))
    w = np.full(2 * n, 1 / (2 * n))
    s = solve_matrix(C, w, w)
    within = s.rows < n
    assert (s.columns[within] < n).all()
    # The part of tiny costs is optimal by itself, to its own precision.
    exact = small[linear_sum_assignment(small)].sum()
    assert C[s.rows[within], s.columns[within]].sum() == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("weighted", [True, False])
def test_costs_over_twenty_six_decades(weighted):
    rng = np.random.default_rng(0)
    C = np.exp(60 * rng.random((300, 300 + 60 * weighted)) - 30)
    a, b = (rng.random(300), rng.random(360)) if weighted else (np.ones(300), np.ones(300))
    a, b = a / a.sum(), b / b.sum()
    s = solve_matrix(C, a, b)
    check_certificate(C, a, b, s)
    # Only the smallest costs are used, and the value is right to their precision, not to that of the largest.
    assert s.primal < 1e-10
    assert abs(s.gap) < 1e-12 * s.primal
    if not weighted:
        assert s.primal == pytest.approx(C[linear_sum_assignment(C)].mean(), rel=1e-12)


@pytest.mark.parametrize("layout", ["float32", "fortran", "integers", "strided", "memory-mapped"])
def test_every_layout_gives_the_same_answer(layout, tmp_path):
    rng = np.random.default_rng(11)
    C = rng.integers(0, 1000, (120, 170)).astype(float)
    a, b = rng.random(120), rng.random(170)
    a, b = a / a.sum(), b / b.sum()
    if layout == "float32":
        given_costs = C.astype(np.float32)
    elif layout == "fortran":
        given_costs = np.asfortranarray(C)
    elif layout == "integers":
        given_costs = C.astype(np.int64)
    elif layout == "strided":
        given_costs = np.repeat(C, 2, 1)[:, ::2]
    else:
        given_costs = np.memmap(tmp_path / "C", np.float64, "w+", shape=C.shape)
        given_costs[:] = C
    expected = solve_matrix(C, a, b)
    s = solve_matrix(given_costs, a, b)
    check_certificate(C, a, b, s)
    assert s.primal == expected.primal


def test_a_limit_on_pivots_is_told_and_the_gap_is_honest():
    rng = np.random.default_rng(1)
    C = rng.random((200, 220))
    a, b = rng.random(200), rng.random(220)
    a, b = a / a.sum(), b / b.sum()
    best = solve_matrix(C, a, b)
    s = solve_matrix(C, a, b, max_pivots=20)
    assert s.outcome is Outcome.ITERATION_LIMIT
    assert s.pivots == 20
    assert s.dual <= best.primal + 1e-14
    assert s.primal >= best.primal
    assert s.gap >= s.primal - best.primal > 0
    assert (C - s.f[:, None] - s.g).min() > -1e-14
    np.testing.assert_allclose(np.bincount(s.rows, s.mass, 200), a, rtol=1e-14)


def test_shapes_that_do_not_fit_are_refused():
    w = np.full(2, 0.5)
    with pytest.raises(ValueError, match=r"shape \(2, 2\)"):
        solve_matrix(np.zeros((2, 3)), w, w)
    with pytest.raises(ValueError, match="max_pivots"):
        solve_matrix(np.zeros((2, 2)), w, w, max_pivots=-1)
    s = solve_matrix(np.zeros((2, 2)), w, w)
    with pytest.raises(ValueError, match="2 x 2"):
        solve_matrix(np.zeros((3, 2)), np.full(3, 1 / 3), w, start=s.basis)
