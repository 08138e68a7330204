"""Weights as integers of equal total, and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from discrepancy.transport.exact.flows import integer_weights, masses


@pytest.mark.parametrize(("n", "m", "unit_a", "unit_b"), [(4, 4, 1, 1), (4, 6, 3, 2), (3, 7, 7, 3), (1, 5, 5, 1)])
def test_equal_weights_are_exact(n, m, unit_a, unit_b):
    w = integer_weights(np.full(n, 1 / n), np.full(m, 1 / m))
    assert w.exact
    assert w.a.tolist() == [unit_a] * n
    assert w.b.tolist() == [unit_b] * m


def test_points_without_mass_are_left_out():
    w = integer_weights(np.array([0.5, 0.0, 0.5]), np.array([0.0, 1.0]))
    assert w.rows.tolist() == [0, 2]
    assert w.columns.tolist() == [1]
    assert not w.complete
    assert w.a.tolist() == [1, 1]
    assert w.b.tolist() == [2]


weights = arrays(np.float64, st.integers(1, 30), elements=st.floats(1e-9, 1.0))


@given(weights, weights)
def test_totals_agree_and_what_is_lost_is_rounding(a, b):
    a, b = a / a.sum(), b / b.sum()
    w = integer_weights(a, b)
    assert w.a.sum() == w.b.sum() == w.total
    assert (w.a > 0).all()
    assert (w.b > 0).all()
    np.testing.assert_allclose(w.a / w.total, a, rtol=1e-15, atol=(len(a) + len(b)) * 2.0**-54)
    np.testing.assert_allclose(w.b / w.total, b, rtol=1e-15, atol=(len(a) + len(b)) * 2.0**-54)


def test_nine_decades_and_one_huge_weight_keep_every_point():
    a = np.concatenate([[1.0], np.full(50, 1e-12)])
    b = np.logspace(-9, 0, 40)
    w = integer_weights(a / a.sum(), b / b.sum())
    assert w.complete
    np.testing.assert_allclose(w.a / w.total, a / a.sum(), rtol=1e-5)
    np.testing.assert_allclose(w.b / w.total, b / b.sum(), rtol=1e-8)


def test_masses_return_the_weights_to_rounding():
    a = np.array([0.7, 0.3 - 1e-12, 1e-12])
    w = integer_weights(a, np.array([0.25, 0.75]))
    flows = np.array([w.a[0] - 5, 5, w.a[1], w.a[2]])
    mass = masses(flows, np.array([0, 0, 1, 2]), w.a, a)
    np.testing.assert_allclose(np.bincount([0, 0, 1, 2], mass), a, rtol=4e-16)


def test_a_side_without_mass_is_refused():
    with pytest.raises(ValueError, match="positive weight"):
        integer_weights(np.zeros(3), np.ones(1))
