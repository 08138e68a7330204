"""Bisection: roots, ends of the bracket, jumps."""

import pytest
import torch

from discrepancy.optimize import increasing_root


def test_roots_ends_and_jumps():
    target = torch.tensor([-30.0, -1.0, 0.0, 0.125, 8.0, 1e9], dtype=torch.float64)
    got = increasing_root(lambda x: x**3, target, -3.0, 3.0)
    want = torch.tensor([-3.0, -1.0, 0.0, 0.5, 2.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-15)
    jump = increasing_root(lambda x: torch.sign(x - 0.3), torch.tensor([0.5, -0.5]), -1.0, 1.0)
    torch.testing.assert_close(jump, torch.full((2,), 0.3, dtype=torch.float64))
    with pytest.raises(ValueError, match="low < high"):
        increasing_root(lambda x: x, target, 1.0, 1.0)
