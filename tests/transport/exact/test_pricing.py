"""The walks over all pairs against brute force, the cells they rest on, and the refinement of plans."""

import itertools

import numpy as np
import pytest
import torch
from point_certificates import matrix

from discrepancy._loops.pricing import ground as loops
from discrepancy.costs import Euclidean, FunctionCost, Manhattan, PowerCost, Sphere, SquaredEuclidean
from discrepancy.transport.exact.hierarchy import Side, cell_bounds, finest, kd_order, level_depths, sides
from discrepancy.transport.exact.pricing import BlockPricing, PointPricing
from discrepancy.transport.exact.reduction import give_back, keep_all, merge_equal
from discrepancy.transport.exact.refinement import CoarsePlan, match_in_order, match_locally

METRICS = {
    "squared": (SquaredEuclidean(), loops.SQUARED, 1.0),
    "euclidean": (Euclidean(), loops.EUCLIDEAN, 1.0),
    "power": (PowerCost(2.5), loops.POWER, 2.5),
    "manhattan": (Manhattan(), loops.MANHATTAN, 1.0),
    "sphere": (Sphere(), loops.GEODESIC, 1.0),
}


def side(points: np.ndarray) -> Side:
    points = points[kd_order(points)]
    return finest(np.ascontiguousarray(points), np.ones(len(points), np.int64))


def clouds(n, m, d, metric):
    rng = np.random.default_rng(n + m + d)
    x, y = rng.standard_normal((n, d)), 3 + rng.standard_normal((m, d))
    if metric == "sphere":
        x, y = (p / np.linalg.norm(p, axis=1, keepdims=True) for p in (x, y))
    return side(x), side(y), rng.standard_normal(m), rng.standard_normal(n)


def expected(keys, k, limit, ceiling):
    order = np.argsort(keys, axis=1, kind="stable")[:, :k]
    values = np.take_along_axis(keys, order, 1)
    return order, (values < limit[:, None]).sum(1), np.minimum(keys.min(1), ceiling)


@pytest.mark.parametrize("every_pair", [False, True])
# In one dimension the sphere has two points and all its keys tie.
@pytest.mark.parametrize(("metric", "d"), [(k, d) for k in METRICS for d in (1, 2, 4, 5, 30) if (k, d) != ("sphere", 1)])
def test_smallest_reduced_costs(metric, d, every_pair):
    cost, code, power = METRICS[metric]
    x, y, v, u = clouds(700, 300, d, metric)
    C = matrix(x.points, y.points, cost)
    pricing = PointPricing(x, y, code, power, every_pair)
    for keys, dual, back in ((C - v, v, False), (C.T - u, u, True)):
        free = np.full(len(keys), np.inf)
        middle = np.median(keys, axis=1) - 0.5 * keys.std()
        for limit, ceiling in ((free, free), (middle, middle + 0.1), (np.full(len(keys), -1e3), keys.min(1) - 1)):
            found = pricing.smallest(dual, 5, limit, ceiling, back=back)
            order, count, lowest = expected(keys, 5, limit, ceiling)
            np.testing.assert_array_equal(found.count, count)
            valid = np.arange(5) < count[:, None]
            np.testing.assert_array_equal(found.index[valid], order[valid])
            np.testing.assert_allclose(found.lowest, lowest, atol=1e-12)
    i, j = np.array([0, 5, 699], np.int32), np.array([3, 3, 299], np.int32)
    np.testing.assert_allclose(pricing.pairs(i, j), C[i, j], rtol=1e-13)


def test_blocks_of_any_cost():
    x, y, v, u = clouds(90, 70, 3, "any")
    cost = FunctionCost(lambda p, q: (p - 2 * q).abs().sum(-1))
    C = matrix(x.points, y.points, cost)
    pricing = BlockPricing(x, y, cost, torch.float64, 1 << 16)
    for keys, dual, back in ((C - v, v, False), (C.T - u, u, True)):
        free = np.full(len(keys), np.inf)
        found = pricing.smallest(dual, 4, back=back)
        order, _, lowest = expected(keys, 4, free, free)
        np.testing.assert_array_equal(found.index, order)
        np.testing.assert_allclose(found.lowest, lowest, rtol=1e-13)


def test_products_miss_nothing_far_from_the_origin():
    # |x|^2 is 1e12 and the distances 1e-3: a product keeps no digit of them.
    rng = np.random.default_rng(0)
    x, y = (side(1e6 + 1e-3 * rng.standard_normal((200, 8))) for _ in range(2))
    C = matrix(x.points, y.points, SquaredEuclidean())
    for code, keys in ((loops.SQUARED, C), (loops.EUCLIDEAN, np.sqrt(C))):
        found = PointPricing(x, y, code, 1.0).smallest(np.zeros(200), 3)
        np.testing.assert_array_equal(found.index, np.argsort(keys, axis=1, kind="stable")[:, :3])


@pytest.mark.parametrize("n", [1, 2, 3, 47, 64, 1000])
def test_cells_hold_equally_many_points(n):
    rng = np.random.default_rng(n)
    points = rng.standard_normal((n, 2)) * [1, 5]
    order = kd_order(points)
    assert sorted(order) == list(range(n))
    for depth in range(12):
        bounds = cell_bounds(n, depth)
        sizes = np.diff(bounds)
        assert bounds[0] == 0
        assert bounds[-1] == n
        assert (sizes[:-1] == sizes[0]).all()
        assert 0 < sizes[-1] <= sizes[0]
        assert len(sizes) <= 2**depth
        # The next depth cuts every cell along its widest side.
        finer = np.searchsorted(bounds, cell_bounds(n, depth + 1)[1:-1])
        for cut, cell in zip(cell_bounds(n, depth + 1)[1:-1], finer - 1):
            if cut < bounds[cell + 1]:
                inside = points[order[bounds[cell] : bounds[cell + 1]]]
                axis = np.argmax(np.ptp(inside, axis=0))
                at = cut - bounds[cell]
                assert inside[:at, axis].max() <= inside[at:, axis].min()


def test_levels_keep_mass_and_mean():
    rng = np.random.default_rng(1)
    points, mass = rng.standard_normal((3000, 2)), rng.integers(1, 9, 3000)
    order = kd_order(points)
    levels = sides(finest(points[order], mass[order]), level_depths(3000, 500), flat=True)
    assert len(levels) >= 3
    for level in levels:
        assert level.mass.sum() == mass.sum()
        np.testing.assert_allclose(level.mass @ level.points / mass.sum(), mass @ points / mass.sum(), atol=1e-13)
        assert level.tiles[0] == 0
        assert level.tiles[-1] == len(level.mass)
    for fine, coarse in itertools.pairwise(levels):
        np.testing.assert_array_equal(np.add.reduceat(fine.mass, coarse.children[:-1]), coarse.mass)
    members = sides(finest(points[order], mass[order]), level_depths(3000, 500), flat=False)
    known = {tuple(p) for p in points}
    assert all(tuple(p) in known for level in members for p in level.points)


def test_merged_points_and_their_plan():
    x = np.array([[1.0, 2], [3, 4], [1, 2], [5, 6], [3, 4], [7, 8]])
    mass = np.array([4, 1, 3, 2, 2, 0])
    merged = merge_equal(x, mass)
    assert sorted(map(tuple, x[merged.chosen])) == [(1, 2), (3, 4), (5, 6)]
    assert dict(zip(map(tuple, x[merged.chosen]), merged.mass.tolist())) == {(1, 2): 7, (3, 4): 3, (5, 6): 2}
    assert merged.zero.tolist() == [5]
    other = keep_all(np.array([0, 5, 7]))
    group = {tuple(p): k for k, p in enumerate(x[merged.chosen])}
    rows = np.array([group[1, 2], group[1, 2], group[3, 4], group[5, 6]])
    columns, flows = np.array([0, 1, 1, 1]), np.array([5, 2, 3, 2])
    i, j, f = give_back(rows, columns, flows, merged, other, mass, np.array([0, 5, 7]))
    assert np.bincount(i, f, 6).tolist() == mass.tolist()
    assert np.bincount(j, f, 3).tolist() == [0, 5, 7]
    assert (f > 0).all()
    assert len(f) <= 5 + 2 - 1


def test_local_match_hands_down_the_coarse_plan():
    rng = np.random.default_rng(2)
    points, others = rng.random((64, 2)), rng.random((64, 2))
    fine = [finest(p[kd_order(p)], np.full(64, 3)) for p in (points, others)]
    bounds = cell_bounds(64, 4)
    pricing = PointPricing(*fine, loops.SQUARED, 1.0)
    coarse = CoarsePlan(np.arange(16), np.arange(16)[::-1].copy(), np.full(16, 12), bounds, bounds)
    forest = match_locally(coarse, pricing, fine[0].mass, fine[1].mass, np.zeros(64), np.zeros(64))
    assert np.bincount(forest.rows, forest.flows, 64).tolist() == [3] * 64
    assert np.bincount(forest.columns, forest.flows, 64).tolist() == [3] * 64
    assert (forest.rows // 4 == 15 - forest.columns // 4).all()
    np.testing.assert_allclose(forest.costs, pricing.pairs(forest.rows, forest.columns))
    # Locally the cheapest pair of every cell is used.
    C = matrix(fine[0].points, fine[1].points, SquaredEuclidean())
    for k in range(16):
        block = C[4 * k : 4 * k + 4, 60 - 4 * k : 64 - 4 * k]
        i, j = np.unravel_index(block.argmin(), block.shape)
        assert (4 * k + i, 60 - 4 * k + j) in set(zip(forest.rows.tolist(), forest.columns.tolist()))
    ordered = match_in_order(pricing, fine[0].mass, fine[1].mass)
    assert (ordered.rows == ordered.columns).all()
