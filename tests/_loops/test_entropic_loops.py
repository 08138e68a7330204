"""Compiled passes over entropic plans against the same sums written in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp

from discrepancy._loops.entropic.certificate import plan_sums, product_cost, scaled_row_sums
from discrepancy._loops.entropic.columns import column_soft_minimum
from discrepancy._loops.entropic.conjugate_gradients import newton_direction
from discrepancy._loops.entropic.dense import column_levels, evaluate_dense, normal_product_dense, square_sums_dense
from discrepancy._loops.entropic.distances import complete_squares, squared_distances
from discrepancy._loops.entropic.plan import plan_rows
from discrepancy._loops.entropic.sparse import evaluate_sparse, keep_entries, normal_product_sparse, square_sums_sparse
from discrepancy._loops.entropic.symmetric import evaluate_symmetric, product_symmetric
from discrepancy._loops.entropic.systems import Dense, Sparse

N, M, SCALE = 37, 45, 3.0


@pytest.fixture
def plan():
    """Costs with forbidden pairs, potentials, weights, and the row-normalised plan by logarithms."""
    random = np.random.default_rng(0)
    cost, h, a = random.random((N, M)), random.standard_normal(M), random.random(N) + 0.1
    cost[3, 5] = cost[7, :40] = np.inf
    a /= a.sum()
    exponents = (h - SCALE * cost) * np.log(2)
    levels = logsumexp(exponents, axis=1) / np.log(2)
    return cost, h, a, levels, a[:, None] * np.exp(exponents - levels[:, None] * np.log(2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_dense_pass(plan, dtype) -> None:
    cost, h, a, levels, want = plan
    found, columns, rows = np.empty((N, M), dtype), np.empty(M), np.empty(N)
    value = evaluate_dense(cost, found, SCALE, h, a, columns, rows)
    np.testing.assert_allclose(found, want, rtol=20 * np.finfo(dtype).eps)
    np.testing.assert_allclose(columns, want.sum(0), rtol=1e-13)
    np.testing.assert_allclose(rows, levels, rtol=1e-13, atol=1e-13)
    assert value == pytest.approx(-a @ levels, rel=1e-13)
    assert found[3, 5] == 0
    assert (found[7, :40] == 0).all()
    v = np.random.default_rng(1).standard_normal(M).astype(dtype)
    inverse_a, out = (1 / a).astype(dtype), np.empty(M, dtype)
    tolerance = 1e-12 if dtype == np.float64 else 2e-5
    normal_product_dense(found, inverse_a, v, out)
    np.testing.assert_allclose(out, want.T @ ((want @ v) / a), atol=tolerance)
    square_sums_dense(found, inverse_a, out)
    np.testing.assert_allclose(out, (want**2 / a[:, None]).sum(0), rtol=tolerance)


def test_one_column_by_logarithms(plan) -> None:
    cost, _, a, _, _ = plan
    u = np.log2(a) - 2000.0
    want = logsumexp((u - 5000 * cost[:, 4]) * np.log(2)) / np.log(2)
    assert column_levels(cost, 5000.0, u, 4) == pytest.approx(want, rel=1e-13)


def test_kept_entries_are_those_above_the_threshold_and_evaluate_to_the_same(plan) -> None:
    cost, h, a, levels, want = plan
    dense = want.astype(np.float32)
    pointers, index, kept = np.empty(N + 1, np.int64), np.empty(N * M + M, np.uint32), np.empty(N * M + M)
    threshold = float(np.quantile(want[want > 0], 0.3))
    count = keep_entries(dense, cost, threshold, pointers, index, kept)
    i, j = np.nonzero(dense > threshold)
    assert count == i.size
    np.testing.assert_array_equal(pointers, np.searchsorted(i, np.arange(N + 1)))
    np.testing.assert_array_equal(index[:count], j)
    np.testing.assert_array_equal(kept[:count], cost[i, j])
    assert keep_entries(dense, cost, threshold, pointers, index[: count // 2], kept) == -1
    dense[:, 11] = 0
    assert keep_entries(dense, cost, threshold, pointers, index, kept) == -2
    count = keep_entries(want.astype(np.float32), cost, 0.0, pointers, index, kept)
    values, columns, rows = np.empty(count), np.empty(M), np.empty(N)
    value = evaluate_sparse(pointers, index[:count], kept[:count], values, SCALE, h, a, columns, rows)
    np.testing.assert_allclose(values, want[want > 0], rtol=1e-13)
    np.testing.assert_allclose(columns, want.sum(0), rtol=1e-13)
    np.testing.assert_allclose(rows, levels, atol=1e-13)
    assert value == pytest.approx(-a @ levels, rel=1e-13)
    v, out = np.random.default_rng(1).standard_normal(M), np.empty(M)
    normal_product_sparse(pointers, index[:count], values, 1 / a, v, out)
    np.testing.assert_allclose(out, want.T @ ((want @ v) / a), atol=1e-14)
    square_sums_sparse(pointers, index[:count], values, 1 / a, out)
    np.testing.assert_allclose(out, (want**2 / a[:, None]).sum(0), rtol=1e-13)


@pytest.mark.parametrize("kind", ["float32", "float64", "sparse"])
def test_newton_direction_solves_its_system(plan, kind) -> None:
    cost, h, a, _, want = plan
    columns, rows = np.empty(M), np.empty(N)
    if kind == "sparse":
        pointers, index, kept = np.empty(N + 1, np.int64), np.empty(N * M + M, np.uint32), np.empty(N * M + M)
        count = keep_entries(want.astype(np.float32), cost, 0.0, pointers, index, kept)
        system = Sparse(pointers, index[:count], kept[:count], np.empty(count))
        evaluate_sparse(*system, SCALE, h, a, columns, rows)
        inverse_a = 1 / a
    else:
        system = Dense(cost, np.empty((N, M), kind))
        evaluate_dense(*system, SCALE, h, a, columns, rows)
        inverse_a = (1 / a).astype(kind)
    residual = np.random.default_rng(2).standard_normal(M)
    residual -= residual.mean()
    matrix = np.diag(columns * 1.01) - want.T @ (want / a[:, None])
    enough = 1e-10 if kind != "float32" else 1e-4
    x = np.empty(M)
    newton_direction(system, inverse_a, columns, residual, 0.01, 1e-6, enough, 500, x)
    assert np.abs(matrix @ x - residual).sum() <= 3 * enough


def test_symmetric_pass_and_product() -> None:
    random = np.random.default_rng(3)
    x = random.standard_normal((M, 2))
    cost, F = ((x[:, None] - x) ** 2).sum(-1), random.standard_normal(M) - 4
    want = np.exp2(F[:, None] + F - SCALE * cost)
    plan, sums = np.full((M, M), np.nan), np.empty(M)
    evaluate_symmetric(cost, plan, SCALE, F, sums)
    np.testing.assert_allclose(np.triu(plan), np.triu(want), rtol=1e-13)
    np.testing.assert_allclose(sums, want.sum(1), rtol=1e-13)
    v, out = random.standard_normal(M), np.empty(M)
    product_symmetric(plan, v, out)
    np.testing.assert_allclose(out, want @ v, rtol=1e-12, atol=1e-15)


def test_column_soft_minima_over_some_rows(plan) -> None:
    cost, _, a, _, _ = plan
    rows = np.array([0, 2, 7, 9])
    u, out = np.log2(a[rows]) + 1500, np.empty(M)
    column_soft_minimum(cost, rows, 900.0, u, out)
    want = -logsumexp((u[:, None] - 900 * cost[rows]) * np.log(2), axis=0) / np.log(2)
    np.testing.assert_allclose(out, want, rtol=1e-13)


def test_sums_of_the_certificate(plan) -> None:
    cost, h, a, levels, want = plan
    u = np.log2(a) - levels + 0.3 * np.sin(np.arange(N))
    want = want * np.exp2(0.3 * np.sin(np.arange(N)))[:, None]
    rows, columns, lowered, out = np.empty(N), np.empty(M), np.empty(M), np.empty(N)
    total = plan_sums(cost, SCALE, u, h, a, rows, columns, lowered)
    finite = np.where(np.isinf(cost), 0, cost)
    assert total == pytest.approx((want * finite).sum(), rel=1e-13)
    np.testing.assert_allclose(rows, want.sum(1), rtol=1e-13)
    np.testing.assert_allclose(columns, want.sum(0), rtol=1e-13)
    keep = np.minimum(1, a / want.sum(1))
    np.testing.assert_allclose(lowered, keep @ want, rtol=1e-13)
    s = np.random.default_rng(4).random(M)
    scaled_row_sums(cost, SCALE, u, h, keep, s, out)
    np.testing.assert_allclose(out, keep * (want @ s), rtol=1e-13)
    left, right = np.maximum(np.sin(np.arange(N)), 0), s.copy()
    assert product_cost(cost, left, right) == np.inf
    left[[3, 7]] = 0
    assert product_cost(cost, left, right) == pytest.approx(left @ finite @ right, rel=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_of_a_plan(plan, dtype) -> None:
    cost, h, a, levels, want = plan
    block = np.empty((5, M), dtype)
    plan_rows(cost, SCALE, np.log2(a) - levels, h, 4, block)
    np.testing.assert_allclose(block, want[4:9], rtol=20 * np.finfo(dtype).eps)


@pytest.mark.parametrize("d", [1, 3, 9])
def test_squared_distances(d) -> None:
    random = np.random.default_rng(5)
    x, y = random.standard_normal((N, d)), random.standard_normal((M, d))
    want = ((x[:, None] - y) ** 2).sum(-1)
    out = np.empty((N, M))
    squared_distances(x, np.ascontiguousarray(y.T), out)
    np.testing.assert_allclose(out, want, rtol=1e-13)
    products = x @ y.T
    complete_squares((x**2).sum(1), (y**2).sum(1), products)
    np.testing.assert_allclose(products, want, rtol=1e-11, atol=1e-13)
