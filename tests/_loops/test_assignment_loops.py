"""Assignment by augmenting paths against SciPy, whole and given up half-way."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from discrepancy._loops.assignment import assign


def costs(kind, n, seed):
    rng = np.random.default_rng(seed)
    if kind == "ties":
        return rng.integers(0, 4, (n, n)).astype(float)
    if kind == "equal":
        return np.ones((n, n))
    if kind == "plane":
        return ((rng.random((n, 1, 2)) - rng.random((1, n, 2))) ** 2).sum(-1)
    if kind == "float32":
        return rng.standard_normal((n, n)).astype(np.float32)
    return rng.standard_normal((n, n))


def check_state(C, column_of, row_of, g):
    """Assigned pairs are mutual, and each has the smallest c - g of its row, to rounding."""
    rows = np.flatnonzero(column_of >= 0)
    np.testing.assert_array_equal(row_of[column_of[rows]], rows)
    assert (row_of >= 0).sum() == len(rows)
    reduced = C - g
    assert (reduced[rows, column_of[rows]] - reduced[rows].min(1)).max(initial=0) < 1e-13


@pytest.mark.parametrize("kind", ["normal", "ties", "equal", "plane", "float32"])
@pytest.mark.parametrize("n", [1, 2, 3, 10, 41, 90])
def test_whole_assignment(kind, n):
    C = costs(kind, n, n)
    column_of, row_of, g, free = assign(C, 2**40, n, 2**40)
    assert free == 0
    check_state(C, column_of, row_of, g)
    assert sorted(column_of.tolist()) == list(range(n))
    rows, columns = linear_sum_assignment(C)
    assert C[np.arange(n), column_of].sum(dtype=float) == pytest.approx(C[rows, columns].sum(dtype=float), abs=1e-12 * n)
    f = (C - g).min(1)
    assert f.sum() + g.sum() == pytest.approx(C[rows, columns].sum(dtype=float), abs=1e-12 * n)


@pytest.mark.parametrize("kind", ["normal", "ties", "plane"])
@pytest.mark.parametrize(("trial", "most_free", "most"), [(0, 0, 0), (150, 0, 1000), (300, 60, 300)])
def test_what_is_given_up_is_a_valid_state(kind, trial, most_free, most):
    C = costs(kind, 60, 1)
    column_of, row_of, g, free = assign(C, trial, most_free, most)
    assert (column_of < 0).sum() == free
    check_state(C, column_of, row_of, g)
