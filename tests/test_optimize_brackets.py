"""Brackets of sign changes: smooth roots, jumps, ends, infinite values."""

import pytest
import torch

from discrepancy.optimize.brackets import increasing_bracket


def _numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_roots_of_many_functions_at_once():
    target = _numbers(-27.0, -1e-3, 0.0, 0.125, 8.0)
    found = increasing_bracket(lambda x: x**3 - target, torch.full_like(target, -3.5), torch.full_like(target, 3.0))
    want = _numbers(-3.0, -0.1, 0.0, 0.5, 2.0)
    torch.testing.assert_close(found.low, want, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(found.high, want, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("place", [0.3, -0.7, 1e-9])
def test_a_jump_is_held_from_both_sides(place):
    found = increasing_bracket(lambda x: torch.where(x < place, -0.2, 5.0), _numbers(-1.0), _numbers(1.0))
    assert float(found.low) < place <= float(found.high)
    assert float(found.high - found.low) < 1e-14


def test_ends_where_there_is_no_crossing_and_infinite_values():
    found = increasing_bracket(lambda x: x, _numbers(1.0, -3.0), _numbers(2.0, -1.0))
    assert found.low.tolist() == found.high.tolist() == [1.0, -1.0]
    pole = increasing_bracket(lambda x: torch.where(x <= 0, -torch.inf, 1 - 0.01 / x), _numbers(0.0), _numbers(1.0))
    torch.testing.assert_close(pole.high, _numbers(0.01), rtol=1e-12, atol=0)


def test_a_smooth_root_takes_few_evaluations():
    calls = []

    def function(x):
        calls.append(x)
        return torch.log(x) - 1

    increasing_bracket(function, _numbers(1e-3), _numbers(1e3))
    assert len(calls) < 30
