"""Column generation and warm starts give the answers of a cold solve on all pairs."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from test_solve_matrix import check_certificate

from discrepancy._loops import simplex
from discrepancy._results import Outcome
from discrepancy.transport.exact.coarsening import cells, extended_potentials, representatives
from discrepancy.transport.exact.columns import candidate_arcs
from discrepancy.transport.exact.dense import solve_matrix
from discrepancy.transport.exact.flows import integer_weights
from discrepancy.transport.exact.matrix import CostMatrix


def cloud(seed, n, m, d, *, weighted=True):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, d)), rng.standard_normal((m, d)) + 0.7
    C = ((x[:, None] - y[None]) ** 2).sum(-1)
    a, b = (rng.random(n) + 1e-3, rng.random(m) + 1e-3) if weighted else (np.ones(n), np.ones(m))
    return C, a / a.sum(), b / b.sum()


def on_all_pairs(C, a, b):
    """The simplex on every arc from a north-west start: no hierarchy, no pricing."""
    n, m = C.shape
    w = integer_weights(a, b)
    rows, columns, flows = simplex.north_west(w.a, w.b)
    tree = simplex.build(n, m, rows, columns, flows, C[rows, columns], np.zeros(n), np.zeros(m))
    i, j = np.divmod(np.arange(n * m), m)
    assert simplex.solve_arcs(tree, n, i, j, C.ravel())
    rows, columns, flows = simplex.plan(tree, n)
    return float((flows / w.total * C[rows, columns]).sum())


@pytest.mark.parametrize(("n", "m", "d"), [(130, 170, 2), (200, 90, 5), (150, 150, 20)])
@pytest.mark.parametrize("weighted", [True, False])
def test_column_generation_equals_the_simplex_on_all_pairs(n, m, d, weighted):
    C, a, b = cloud(n, n, m, d, weighted=weighted)
    s = solve_matrix(C, a, b)
    check_certificate(C, a, b, s)
    assert s.primal == pytest.approx(on_all_pairs(C, a, b), rel=1e-12)


def test_candidates_are_the_smallest_reduced_costs_of_rows_and_columns():
    C, _, _ = cloud(1, 70, 90, 3)
    C[np.quantile(C, 0.97) < C] = np.inf
    rng = np.random.default_rng(0)
    f, g = rng.standard_normal(70), rng.standard_normal(90)
    arcs = candidate_arcs(CostMatrix(C), f, g)
    reduced = C - f[:, None] - g
    expected = {(i, j) for i in range(70) for j in np.argsort(reduced[i])[:8]} | {
        (i, j) for j in range(90) for i in np.argsort(reduced[:, j])[:8]
    }
    assert set(zip(arcs.rows.tolist(), arcs.columns.tolist())) == {(int(i), int(j)) for i, j in expected if np.isfinite(C[i, j])}
    np.testing.assert_array_equal(arcs.costs, C[arcs.rows, arcs.columns])


def test_cells_part_the_points_along_coordinates_and_keep_the_mass():
    rng = np.random.default_rng(0)
    points = rng.random((101, 2))
    order, starts = cells(points, 4)
    assert sorted(order.tolist()) == list(range(101))
    sizes = np.diff(np.append(starts, 101))
    assert sizes.max() <= 4
    assert sizes.min() >= 2
    spread = np.mean([np.ptp(part, 0).max() for part in np.split(points[order], starts[1:])])
    assert spread < 0.35
    weights = rng.integers(1, 100, 101)
    C = ((points[:, None] - rng.random((60, 2))[None]) ** 2).sum(-1)
    chosen, mass = representatives(CostMatrix(C), weights, np.random.default_rng(0), 0, 4)
    assert mass.sum() == weights.sum()
    assert len(set(chosen.tolist())) == len(mass) < 60


def test_potentials_of_representatives_shorten_the_way():
    C, a, b = cloud(3, 300, 400, 2)
    w = integer_weights(a, b)
    f, g = extended_potentials(CostMatrix(C), w.a, w.b, np.random.default_rng(0))
    s = solve_matrix(C, a, b)
    lowered = np.minimum(f, (C - g).min(1))
    assert s.primal - (a @ lowered + b @ g) < 0.05 * s.primal
    f, g = C.min(1), (C - C.min(1)[:, None]).min(0)
    assert s.primal - (a @ f + b @ g) > 0.3 * s.primal  # reduction alone is far off here


def test_a_memory_mapped_matrix_is_never_copied(tmp_path):
    C, a, b = cloud(9, 2200, 2500, 2)
    stored = np.memmap(tmp_path / "C", np.float64, "w+", shape=C.shape)
    stored[:] = C
    a[::50] = 0  # rows and columns are then gathered block by block
    a /= a.sum()
    for weights in (np.full(2200, 1 / 2200), a):
        tracemalloc.start()
        s = solve_matrix(stored, weights, b)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 0.6 * C.nbytes
        assert s.outcome is Outcome.CONVERGED


@pytest.mark.parametrize("weighted", [True, False])
def test_warm_start_with_other_costs(weighted):
    C, a, b = cloud(5, 260, 240, 4, weighted=weighted)
    first = solve_matrix(C, a, b)
    assert solve_matrix(C, a, b, start=first.basis).pivots == 0
    moved = C * (1 + 0.01 * np.random.default_rng(1).random(C.shape))
    cold, warm = solve_matrix(moved, a, b), solve_matrix(moved, a, b, start=first.basis)
    check_certificate(moved, a, b, warm)
    assert warm.primal == pytest.approx(cold.primal, rel=1e-13)
    assert warm.pivots < cold.pivots
    assert warm.rungs != cold.rungs


def test_warm_start_with_other_weights():
    C, a, b = cloud(6, 240, 260, 3)
    first = solve_matrix(C, a, b)
    rng = np.random.default_rng(1)
    a2, b2 = a * (1 + 0.01 * rng.random(240)), b * (1 + 0.01 * rng.random(260))
    a2[3] = b2[[7, 9]] = 0
    a2, b2 = a2 / a2.sum(), b2 / b2.sum()
    warm, cold = solve_matrix(C, a2, b2, start=first.basis), solve_matrix(C, a2, b2)
    check_certificate(C, a2, b2, warm)
    assert warm.primal == pytest.approx(cold.primal, rel=1e-13)
    back = solve_matrix(C, a, b, start=warm.basis)
    assert back.primal == pytest.approx(first.primal, rel=1e-13)


def test_warm_start_whose_pairs_became_forbidden():
    C, a, b = cloud(8, 120, 130, 3)
    first = solve_matrix(C, a, b)
    changed = C.copy()
    changed[first.rows[::7], first.columns[::7]] = np.inf
    warm, cold = solve_matrix(changed, a, b, start=first.basis), solve_matrix(changed, a, b)
    check_certificate(changed, a, b, warm)
    assert warm.primal == pytest.approx(cold.primal, rel=1e-13)
