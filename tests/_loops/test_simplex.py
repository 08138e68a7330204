"""The network simplex loops: the tree's invariants after every pivot, and optimal values against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment, linprog

from discrepancy._loops import simplex
from discrepancy._loops.simplex.arcs import places_of_labels
from discrepancy._loops.simplex.tree import PIVOTS, preorder_places, renumber


def check_tree(tree, n, a, b):
    """Every array of the tree against what `parent` and `upward` alone imply, and strong feasibility."""
    root = len(tree.parent) - 1
    children: list[list[int]] = [[] for _ in range(root + 1)]
    for u in range(root):
        children[tree.parent[u]].append(u)
    size = np.ones(root + 1, int)
    order, u = [], tree.thread[root]
    while u != root:
        order.append(int(u))
        assert tree.thread[tree.reverse[u]] == u
        u = tree.thread[u]
    assert sorted(order) == list(range(root))
    position = {u: k for k, u in enumerate(order)}
    for u in reversed(order):
        size[tree.parent[u]] += size[u]
    for u in order:
        block = order[position[u] : position[u] + size[u]]
        assert tree.size[u] == size[u]
        assert tree.last[u] == block[-1]
        inside, stack = set(), [u]
        while stack:
            w = stack.pop()
            inside.add(w)
            stack.extend(children[w])
        assert inside == set(block)
    assert tree.last[root] == order[-1]
    assert tree.size[root] == root + 1
    assert (tree.flow[:root] >= 0).all()
    assert tree.upward[:root][tree.flow[:root] == 0].all()  # strongly feasible
    net = np.zeros(root + 1, np.int64)
    for u in range(root):
        sign = 1 if tree.upward[u] else -1
        net[u] += sign * tree.flow[u]
        net[tree.parent[u]] -= sign * tree.flow[u]
        p = tree.potential
        reduced = tree.cost[u] + sign * (p[u] - p[tree.parent[u]])
        assert abs(reduced) < 1e-9 * max(1, abs(tree.cost[u]))
    label = tree.label
    weights = np.concatenate([a, -b, [0]])
    np.testing.assert_array_equal(net, weights[label])


def problem(rng, n, m, kind):
    a = rng.integers(1, 9, n)
    b = np.bincount(rng.integers(0, m, a.sum()), minlength=m).astype(np.int64)
    if kind == "uniform":
        a, b = np.full(n, m), np.full(m, n)
    cost = rng.integers(0, 4, (n, m)).astype(float) if kind == "ties" else rng.standard_normal((n, m))
    return a.astype(np.int64), b.astype(np.int64), cost


def lp_value(a, b, cost):
    n, m = cost.shape
    rows = np.kron(np.eye(n), np.ones(m))
    columns = np.kron(np.ones(n), np.eye(m))
    result = linprog(cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.concatenate([a, b]), method="highs")
    assert result.status == 0
    return result.fun


@pytest.mark.parametrize("kind", ["weights", "uniform", "ties"])
@pytest.mark.parametrize("seed", range(4))
def test_invariants_after_each_pivot_and_optimum(kind, seed):
    rng = np.random.default_rng(seed)
    n, m = rng.integers(1, 9, 2)
    a, b, cost = problem(rng, n, m, kind)
    rows, columns, flows = simplex.north_west(a, b)
    f, g = rng.standard_normal(n), rng.standard_normal(m)
    tree = simplex.build(n, m, rows, columns, flows, cost[rows, columns], f, g)
    check_tree(tree, n, a, b)
    i, j = np.divmod(np.arange(n * m), m)
    values = [float((flows * cost[rows, columns]).sum())]
    steps = 0
    while not simplex.solve_arcs(tree, n, i, j, cost.ravel(), max_pivots=1):
        check_tree(tree, n, a, b)
        if steps % 3 == 1:
            renumber(tree, preorder_places(tree))
            check_tree(tree, n, a, b)
        r, c, q = simplex.plan(tree, n)
        values.append(float((q * cost[r, c]).sum()))
        steps += 1
        assert steps < 1000
    assert (np.diff(values) <= 1e-9).all()
    simplex.refresh(tree)
    f, g = simplex.potentials(tree, n)
    r, c, q = simplex.plan(tree, n)
    assert (cost - f[:, None] - g[None]).min() > -1e-12
    assert abs((cost - f[:, None] - g[None])[r, c]).max() < 1e-12
    np.testing.assert_array_equal(np.bincount(r, q, n), a)
    np.testing.assert_array_equal(np.bincount(c, q, m), b)
    assert values[-1] == pytest.approx(lp_value(a, b, cost), abs=1e-9)
    assert simplex.pivots(tree) == steps


@pytest.mark.parametrize("n", [60, 200])
def test_assignment_with_renumbering_while_it_runs(n):
    rng = np.random.default_rng(n)
    cost = ((rng.random((n, 1, 2)) - rng.random((1, n, 2))) ** 2).sum(-1)
    ones = np.ones(n, np.int64)
    rows, columns, flows = simplex.north_west(ones, ones)
    tree = simplex.build(n, n, rows, columns, flows, cost[rows, columns], cost.min(1), np.zeros(n))
    i, j = np.divmod(np.arange(n * n), n)
    assert simplex.solve_arcs(tree, n, i, j, cost.ravel())
    r, c, q = simplex.plan(tree, n)
    assert set(q) == {1}
    assert cost[r, c].sum() == pytest.approx(cost[linear_sum_assignment(cost)].sum(), rel=1e-13)
    if n == 200:
        assert tree.counts[4] > 0
        assert not np.array_equal(tree.label, np.arange(2 * n + 1))
    np.testing.assert_array_equal(tree.label[places_of_labels(tree)], np.arange(2 * n + 1))
    check_tree(tree, n, ones, ones)


def test_arcs_may_arrive_in_portions_and_infinite_ones_never_enter():
    rng = np.random.default_rng(5)
    n, m = 30, 40
    a, b, cost = problem(rng, n, m, "weights")
    keep = b > 0
    b, cost, m = b[keep], cost[:, keep], int(keep.sum())
    rows, columns, flows = simplex.north_west(a, b)
    cost[rng.random((n, m)) < 0.3] = np.inf
    cost[rows, columns] = rng.standard_normal(len(rows))
    tree = simplex.build(n, m, rows, columns, flows, cost[rows, columns], np.zeros(n), np.zeros(m))
    i, j = np.divmod(rng.permutation(n * m), m)
    for part in np.array_split(np.arange(n * m), 5):
        assert simplex.solve_arcs(tree, n, i[part], j[part], cost[i[part], j[part]])
    while not simplex.solve_arcs(tree, n, i, j, cost[i, j], max_pivots=7):
        pass
    r, c, q = simplex.plan(tree, n)
    assert np.isfinite(cost[r, c]).all()
    assert (q * cost[r, c]).sum() == pytest.approx(lp_value(a, b, np.where(np.isfinite(cost), cost, 1e6)), rel=1e-9)


def test_greedy_start_is_a_forest_that_serves_all_weights():
    rng = np.random.default_rng(2)
    a, b, cost = problem(rng, 12, 9, "weights")
    i, j = np.divmod(np.argsort(cost.ravel())[:40], 9)
    rows, columns, flows, by_arcs = simplex.greedy(i, j, a, b)
    assert 0 < by_arcs <= len(rows) < 12 + 9
    np.testing.assert_array_equal(np.bincount(rows, flows, 12), a)
    np.testing.assert_array_equal(np.bincount(columns, flows, 9), b)
    assert (flows > 0).all()
    simplex.build(12, 9, rows, columns, flows, cost[rows, columns], np.zeros(12), np.zeros(9))


def test_components_keep_the_mean_of_the_wished_potentials():
    f, g = np.array([1.0, 2.0, 5.0]), np.array([3.0, -1.0])
    tree = simplex.build(3, 2, *(np.array(v) for v in ([0, 1, 2], [0, 0, 1], [1, 1, 2], [4.0, 4.5, 7.0])), f, g)
    got_f, got_g = simplex.potentials(tree, 3)
    assert got_f[0] + got_g[0] == pytest.approx(4.0)
    assert got_f[1] + got_g[0] == pytest.approx(4.5)
    assert -got_f[0] - got_f[1] + got_g[0] == pytest.approx(-1 - 2 + 3)
    assert got_g[1] - got_f[2] == pytest.approx(-1 - 5)


def test_a_cycle_in_the_start_is_refused():
    with pytest.raises(ValueError, match="cycle"):
        simplex.build(2, 2, *np.array([[0, 0, 1, 1], [0, 1, 0, 1], [1, 1, 1, 1]]), np.zeros(4), np.zeros(2), np.zeros(2))


@pytest.mark.parametrize("scale", [1e-300, 1e-12, 1e12])
def test_pivots_do_not_depend_on_the_scale_of_the_costs(scale):
    rng = np.random.default_rng(3)
    a, b, cost = problem(rng, 25, 25, "uniform")
    i, j = np.divmod(np.arange(625), 25)
    made = []
    for s in (1.0, 2.0 ** np.round(np.log2(scale))):
        rows, columns, flows = simplex.north_west(a, b)
        c = s * cost
        tree = simplex.build(25, 25, rows, columns, flows, c[rows, columns], np.zeros(25), np.zeros(25))
        assert simplex.solve_arcs(tree, 25, i, j, c.ravel())
        made.append((int(tree.counts[PIVOTS]), sorted(zip(*(v.tolist() for v in simplex.plan(tree, 25))))))
    assert made[0] == made[1]
