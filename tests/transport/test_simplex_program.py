"""Quadratic programmes on the simplex against their optimality conditions, and against SciPy's general solver."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from discrepancy.transport.simplex_program import simplex_program


@pytest.mark.parametrize("rank", [1, 2, 5, 12])
def test_no_corner_is_better_than_the_answer(rank) -> None:
    """At the optimum every slope is at least the weighted mean slope, and equal to it where there is weight."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        G, f = rng.normal(size=(9, rank)), rng.uniform(0, 0.5, size=9)
        Q = G @ G.T
        found = simplex_program(Q, f)
        assert found.min() >= 0
        assert found.sum() == pytest.approx(1, abs=1e-14)
        slope = Q @ found + f
        level = found @ slope
        assert slope.min() >= level - 1e-10
        np.testing.assert_allclose(slope[found > 1e-9], level, atol=1e-10)


def test_it_agrees_with_a_general_solver() -> None:
    rng = np.random.default_rng(3)
    G, f = rng.normal(size=(6, 4)), rng.uniform(size=6)
    Q = G @ G.T
    peer = minimize(
        lambda w: f @ w + w @ Q @ w / 2,
        np.full(6, 1 / 6),
        bounds=[(0, 1)] * 6,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        tol=1e-12,
    )
    np.testing.assert_allclose(simplex_program(Q, f), peer.x, atol=1e-5)


def test_one_corner_and_equal_corners() -> None:
    assert simplex_program(np.ones((1, 1)), np.zeros(1)).tolist() == [1.0]
    found = simplex_program(np.ones((3, 3)), np.zeros(3))
    assert found.sum() == pytest.approx(1)
