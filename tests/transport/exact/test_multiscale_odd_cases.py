"""Scales, offsets, dtypes, duplicates, single points, extreme weights, warm starts, threads: what breaks exact solvers."""

import numpy as np
import ot
import pytest
import torch
from point_certificates import check, cloud, matrix, weights

from discrepancy._results import NumericalError
from discrepancy.costs import Euclidean, Manhattan, PowerCost, SquaredEuclidean
from discrepancy.transport.exact import sweeps
from discrepancy.transport.exact.multiscale import solve_points

SQUARED = SquaredEuclidean()


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    return rng.standard_normal((220, 3)), rng.standard_normal((260, 3)) + 0.5, weights(rng, 220), weights(rng, 260)


@pytest.mark.parametrize("exponent", [-150, -20, -6, 6, 20, 150])
@pytest.mark.parametrize("cost", [SQUARED, Euclidean(), Manhattan(), PowerCost(1.5)], ids=["square", "l2", "l1", "power"])
def test_scale_changes_nothing(problem, exponent, cost):
    x, y, a, b = problem
    scale = 2.0 ** round(exponent * np.log2(10))  # a power of two: the same plan, bit for bit
    plain, scaled = solve_points(x, y, a, b, cost), solve_points(x * scale, y * scale, a, b, cost)
    assert scaled.primal == pytest.approx(plain.primal * scale**cost.degree, rel=1e-12)
    np.testing.assert_array_equal(scaled.rows, plain.rows)
    np.testing.assert_array_equal(scaled.columns, plain.columns)
    assert np.isfinite(scaled.f).all()


def test_costs_beyond_float64_are_refused_and_below_it_vanish(problem):
    x, y, a, b = problem
    with pytest.raises(NumericalError, match="divide x and y"):
        solve_points(x * 1e200, y * 1e200, a, b, SQUARED)
    assert solve_points(x * 1e200, y * 1e200, a, b, Euclidean()).outcome.ok
    tiny = solve_points(x * 1e-200, y * 1e-200, a, b, SQUARED)
    assert tiny.primal == 0.0
    np.testing.assert_array_equal(tiny.rows, solve_points(x, y, a, b, SQUARED).rows)


@pytest.mark.parametrize("equal", [True, False])
def test_sweeps_by_cells_and_violated_blocks_keep_the_optimum(monkeypatch, equal):
    rng = np.random.default_rng(11)
    x, y = rng.random((700, 2)), rng.random((650, 2))
    a, b = (np.full(700, 1 / 700), np.full(650, 1 / 650)) if equal else (weights(rng, 700), weights(rng, 650))
    plain = solve_points(x, y, a, b, SQUARED)
    for name, value in (("_CELL", 20), ("_MANY_ARCS", 100), ("_BLOCK", 8)):
        monkeypatch.setattr(sweeps, name, value)
    swept = solve_points(x, y, a, b, SQUARED)
    assert swept.primal == pytest.approx(plain.primal, rel=1e-13)
    assert swept.pivots != plain.pivots
    check(swept, matrix(x, y, SQUARED), a, b)


@pytest.mark.parametrize("d", [3, 16])
def test_offset_loses_only_the_digits_of_the_input(d):
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((300, d)) + 1e6, rng.standard_normal((300, d)) + 1e6
    a, b = weights(rng, 300), weights(rng, 300)
    s = solve_points(x, y, a, b, SQUARED)
    check(s, matrix(x, y, SQUARED), a, b)


def test_far_clusters_and_a_point_far_from_all():
    rng = np.random.default_rng(2)
    x = np.r_[rng.standard_normal((150, 2)), rng.standard_normal((150, 2)) + 1e5, [[1e8, -1e8]]]
    y = np.r_[rng.standard_normal((200, 2)), rng.standard_normal((100, 2)) + 1e5]
    a, b = weights(rng, 301), weights(rng, 300)
    s = solve_points(x, y, a, b, SQUARED)
    C = matrix(x, y, SQUARED)
    check(s, C, a, b)
    assert s.primal == pytest.approx(ot.emd2(a, b, C / C.max(), numItermax=10**7) * C.max(), rel=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_both_dtypes_are_solved_in_float64(dtype):
    rng = np.random.default_rng(3)
    for d in (2, 8):
        x, y = rng.random((200, d)).astype(dtype), rng.random((200, d)).astype(dtype)
        a = np.full(200, 1 / 200)
        s = solve_points(x, y, a, a, SQUARED)
        assert s.f.dtype == s.mass.dtype == np.float64
        check(s, matrix(x, y, SQUARED), a, a)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 300), (300, 1), (2, 300), (3, 2)])
def test_few_points(n, m):
    rng = np.random.default_rng(n + m)
    x, y, a, b = rng.random((n, 2)), rng.random((m, 2)), weights(rng, n), weights(rng, m)
    s = solve_points(x, y, a, b, SQUARED)
    C = matrix(x, y, SQUARED)
    check(s, C, a, b)
    if min(n, m) == 1:
        assert s.primal == pytest.approx(float(a @ C @ b), rel=1e-13)


def test_all_points_equal():
    a, b = np.full(50, 1 / 50), np.full(70, 1 / 70)
    x, y = np.full((50, 2), 3.0), np.full((70, 2), 4.0)
    s = solve_points(x, y, a, b, SQUARED)
    assert s.primal == pytest.approx(2.0, rel=1e-14)
    check(s, matrix(x, y, SQUARED), a, b)
    still = solve_points(x, np.full((70, 2), 3.0), a, b, SQUARED)
    assert still.primal == 0.0
    check(still, np.zeros((50, 70)), a, b)


def test_weights_over_many_decades_and_one_huge_weight():
    rng = np.random.default_rng(4)
    x, y = rng.random((300, 2)), rng.random((250, 2))
    for a in (10.0 ** rng.uniform(-12, 0, 300), np.r_[1e9, np.ones(299)], (1 - rng.random(300)) ** -2.0):
        a = a / a.sum()
        b = weights(rng, 250)
        s = solve_points(x, y, a, b, SQUARED)
        C = matrix(x, y, SQUARED)
        check(s, C, a, b)
        assert s.primal == pytest.approx(ot.emd2(a, b, C, numItermax=10**7), rel=1e-9)


def test_duplicates_share_their_plan_and_potentials():
    rng = np.random.default_rng(5)
    x, y = cloud("lattice", 500, 3, rng), cloud("lattice", 400, 3, rng)
    a, b = weights(rng, 500), weights(rng, 400)
    s = solve_points(x, y, a, b, SQUARED)
    check(s, matrix(x, y, SQUARED), a, b)
    for points, values in ((x, s.f), (y, s.g)):
        _, label = np.unique(points, axis=0, return_inverse=True)
        assert all(np.ptp(values[label.ravel() == k]) == 0 for k in range(label.max() + 1))


def test_zero_and_minus_zero_are_one_point():
    x = np.array([[0.0, 1.0], [-0.0, 1.0], [2.0, 1.0]])
    s = solve_points(x, x[::-1] + 1, np.full(3, 1 / 3), np.full(3, 1 / 3), SQUARED)
    assert s.f[0] == s.f[1]
    assert s.primal == pytest.approx(2.0, rel=1e-14)


def test_threads_give_equal_bits():
    rng = np.random.default_rng(6)
    before = torch.get_num_threads()
    try:
        for d in (2, 12):
            x, y = rng.random((1500, d)), rng.random((1400, d))
            a, b = weights(rng, 1500), weights(rng, 1400)
            found = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                found.append(solve_points(x, y, a, b, SQUARED))
            for s in found[1:]:
                assert s.primal == found[0].primal
                for name in ("rows", "columns", "mass", "f", "g"):
                    np.testing.assert_array_equal(getattr(s, name), getattr(found[0], name))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("d", [2, 10])
def test_warm_start_after_a_small_move(d):
    rng = np.random.default_rng(7)
    x, y = rng.random((900, d)), rng.random((800, d))
    a, b = weights(rng, 900), weights(rng, 800)
    a[5], b[7] = 0, 0
    a, b = a / a.sum(), b / b.sum()
    cold = solve_points(x, y, a, b, SQUARED)
    moved = x + 1e-3 * rng.standard_normal(x.shape)
    again, warm = solve_points(moved, y, a, b, SQUARED), solve_points(moved, y, a, b, SQUARED, start=cold.basis)
    assert warm.primal == pytest.approx(again.primal, rel=1e-12)
    check(warm, matrix(moved, y, SQUARED), a, b)
    assert warm.pivots < 0.5 * again.pivots
    # Unchanged points: nothing is left to do.
    same = solve_points(x, y, a, b, SQUARED, start=cold.basis)
    assert same.primal == pytest.approx(cold.primal, rel=1e-13)
    assert same.pivots <= 0.02 * cold.pivots


def test_warm_start_with_other_weights_and_duplicates():
    rng = np.random.default_rng(8)
    x, y = cloud("lattice", 300, 2, rng), rng.random((350, 2)) * 4
    a, b = weights(rng, 300), weights(rng, 350)
    basis = solve_points(x, y, a, b, SQUARED).basis
    other = weights(rng, 300)
    s = solve_points(x, y, other, b, SQUARED, start=basis)
    check(s, matrix(x, y, SQUARED), other, b)
    assert s.primal == pytest.approx(solve_points(x, y, other, b, SQUARED).primal, rel=1e-12)
    kept = solve_points(x, y, a, b, SQUARED, start=basis)
    check(kept, matrix(x, y, SQUARED), a, b)


def test_memory_mapped_points(tmp_path):
    rng = np.random.default_rng(9)
    x, y = rng.random((400, 3)).astype(np.float32), rng.random((300, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    a, b = weights(rng, 400), weights(rng, 300)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert solve_points(mapped, y, a, b, SQUARED).primal == solve_points(x, y, a, b, SQUARED).primal


@pytest.mark.slow
def test_memory_stays_linear():
    # In a process of its own: 20,000 x 20,000 costs alone would take 3.2 GB.
    import subprocess
    import sys

    program = """
import numpy as np, psutil, threading, time
from discrepancy.costs import SquaredEuclidean
from discrepancy.transport.exact import sweeps
from discrepancy.transport.exact.multiscale import solve_points
rng = np.random.default_rng(0)
x, y = rng.random((20000, 2)), rng.random((20000, 2))
a = np.full(20000, 1 / 20000)
solve_points(x[:800], y[:800], a[:800] * 25, a[:800] * 25, SquaredEuclidean())
process, peak, running = psutil.Process(), [0], [True]
before = process.memory_info().rss
def watch():
    while running[0]:
        peak[0] = max(peak[0], process.memory_info().rss)
        time.sleep(0.005)
thread = threading.Thread(target=watch)
thread.start()
s = solve_points(x, y, a, a, SquaredEuclidean())
running[0] = False
thread.join()
assert s.outcome.ok and abs(s.gap) <= 1e-12 * s.primal
print(peak[0] - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 120 << 20
