"""Fixed-step integrators against flows whose solution is known."""

import math

import pytest
import torch

from discrepancy import NumericalError
from discrepancy.dynamics.ode import Euler, Midpoint, RungeKutta4

SCHEMES = [Euler, Midpoint, RungeKutta4]


def _turn(x, t):
    """Rotation at angular speed 1 + t: at time t everything has turned by t + t^2 / 2."""
    return (1 + t) * torch.stack([-x[..., 1], x[..., 0]], -1)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_error_falls_at_the_stated_order(scheme):
    x = torch.tensor([[1.0, 0.0], [0.5, -2.0]], dtype=torch.float64)
    angle = 1.5
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    truth = x @ turn.T
    errors = [float((scheme(n).solve(_turn, x) - truth).abs().max()) for n in (20, 40)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(scheme.order, abs=0.15)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_polynomials_in_time_up_to_the_order_are_exact(scheme):
    power = scheme.order - 1
    x = torch.zeros(3, 1, dtype=torch.float64)
    moved = scheme(3).solve(lambda x, t: (power + 1) * t**power + 0 * x, x, 0.5, 2.0)
    assert torch.allclose(moved, x + 2.0 ** (power + 1) - 0.5 ** (power + 1), atol=1e-13)


def test_backward_undoes_forward():
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for scheme, bound in ((Euler(20), 0.5), (RungeKutta4(20), 1e-5)):
        back = scheme.solve(_turn, scheme.solve(_turn, x), 1.0, 0.0)
        assert float((back - x).abs().max()) < bound


def test_euler_is_the_recursion():
    x = torch.tensor([2.0], dtype=torch.float64)
    path = Euler(4).path(lambda x, t: x, x, 0.0, 1.0)
    assert [float(p) for p in path] == [2 * 1.25**k for k in range(5)]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_are_those_of_the_discrete_scheme(scheme, recompute):
    weight = torch.randn(2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64, requires_grad=True)

    def end(x, weight):
        return scheme(3, recompute).solve(lambda y, t: torch.tanh(y @ weight) * (1 + t), x)

    assert torch.autograd.gradcheck(end, (x, weight))


def test_precision_is_kept():
    assert RungeKutta4(2).solve(_turn, torch.ones(1, 2)).dtype == torch.float32


def test_bad_input():
    with pytest.raises(ValueError, match="steps must be a whole number of at least 1, got 0"):
        Euler(0)
    with pytest.raises(ValueError, match="finite times"):
        Euler(2).solve(_turn, torch.ones(1, 2), 0.0, math.inf)
    with pytest.raises(NumericalError, match="integration step 2 of 5"):
        Euler(5).solve(lambda x, t: torch.where(t > 0.1, x / 0, x), torch.ones(1, 2))
