"""The content of SciPy's tests of linear_sum_assignment: small matrices with known optima, put to the exact solver.

An assignment of n rows to m >= n columns is a transport of unit masses in which a row that costs nothing takes the columns left
over; a matrix with more rows than columns is transposed.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from discrepancy import OptimalTransport
from discrepancy._results import NumericalError

INF = np.inf
_KNOWN = {
    "square": ([[400, 150, 400], [400, 450, 600], [300, 225, 300]], [150, 400, 300]),
    "wide": ([[400, 150, 400, 1], [400, 450, 600, 2], [300, 225, 300, 3]], [150, 2, 300]),
    "square, small costs": ([[10, 10, 8], [9, 8, 1], [9, 7, 4]], [10, 1, 7]),
    "wide, small costs": ([[10, 10, 8, 11], [9, 8, 1, 1], [9, 7, 4, 10]], [10, 1, 4]),
    "forbidden pairs": ([[10, INF, INF], [INF, INF, 1], [INF, 7, INF]], [10, 1, 7]),
}


def _assign(cost) -> tuple[np.ndarray, np.ndarray, float]:
    """Rows, columns and total cost of the best assignment, through OptimalTransport.solve_cost."""
    cost = np.asarray(cost, dtype=float)
    if cost.shape[0] > cost.shape[1]:
        columns, rows, total = _assign(cost.T)
        order = np.argsort(rows)
        return rows[order], columns[order], total
    n, m = cost.shape
    spare = np.zeros((1 if m > n else 0, m))
    a = np.append(np.full(n, 1 / m), np.full(len(spare), (m - n) / m))
    result = OptimalTransport().solve_cost(np.vstack([cost, spare]), a, np.full(m, 1 / m))
    assert result.outcome.ok
    plan = result.plan().to_dense().numpy()[:n] * m
    np.testing.assert_allclose(np.sort(plan, 1)[:, :-1], 0, atol=1e-12)  # each row has one partner
    columns = plan.argmax(1)
    assert abs(float(result.dual_gap)) <= 1e-10 * max(1.0, abs(float(result.value)))
    return np.arange(n), columns, float(result.value) * m


@pytest.mark.parametrize("name", _KNOWN)
def test_known_matrices_and_their_transposes(name):
    cost, expected = _KNOWN[name]
    cost = np.array(cost, dtype=float)
    rows, columns, total = _assign(cost)
    np.testing.assert_array_equal(cost[rows, columns], expected)
    assert total == pytest.approx(sum(expected), rel=1e-13)
    rows, columns, total = _assign(cost.T)
    np.testing.assert_array_equal(np.sort(cost.T[rows, columns]), np.sort(expected))
    assert total == pytest.approx(sum(expected), rel=1e-13)


def test_the_greatest_cost_by_negation():
    cost = np.array(_KNOWN["square"][0], dtype=float)
    rows, columns, total = _assign(-cost)
    assert total == -(400 + 600 + 225) == -cost[rows, columns].sum()


@pytest.mark.parametrize(
    "cost",
    [
        [[INF, INF], [1.0, 2.0]],  # a row with nowhere to go
        [[INF, 1.0], [INF, 2.0]],  # a column that nobody may use
        [[1.0, INF, INF], [1.0, INF, INF], [1.0, 2.0, 3.0]],  # two rows for one column
    ],
    ids=["row", "column", "Hall"],
)
def test_infeasible_patterns_are_refused_not_answered(cost):
    with pytest.raises(NumericalError, match="leave no plan"):
        OptimalTransport().solve_cost(cost)


@pytest.mark.parametrize("bad", [[[np.nan, 1.0], [1.0, 2.0]], [[-INF, 1.0], [1.0, 2.0]]], ids=["nan", "minus infinity"])
def test_numbers_that_are_no_costs_are_refused(bad):
    with pytest.raises(ValueError, match=r"finite|NaN|nan|inf"):
        OptimalTransport().solve_cost(bad)


def test_one_by_one():
    assert _assign([[3.5]])[2] == 3.5


def test_integer_and_boolean_costs():
    assert float(OptimalTransport().solve_cost(np.array([[3, 1], [1, 3]])).value) == 1.0
    assert float(OptimalTransport().solve_cost(torch.tensor([[True, False], [False, True]])).value) == 0.0


@pytest.mark.parametrize("n", [5, 40])
def test_all_costs_equal(n):
    assert _assign(np.full((n, n), 7.0))[2] == pytest.approx(7.0 * n, rel=1e-13)


def test_random_matrices_with_many_ties_against_scipy():
    from scipy.optimize import linear_sum_assignment

    rng = np.random.default_rng(1)
    for shape in ((6, 6), (7, 12), (30, 30), (25, 60)):
        for top in (2, 10, 1000):
            cost = rng.integers(0, top, shape).astype(float)
            rows, columns = linear_sum_assignment(cost)
            assert _assign(cost)[2] == pytest.approx(cost[rows, columns].sum(), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_scale_of_the_costs_does_not_matter(scale):
    from scipy.optimize import linear_sum_assignment

    cost = np.random.default_rng(2).random((40, 40))
    rows, columns = linear_sum_assignment(cost)
    assert _assign(scale * cost)[2] == pytest.approx(scale * cost[rows, columns].sum(), rel=1e-12)
