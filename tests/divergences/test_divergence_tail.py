"""A user's generator far from one, where its formula is all rounding: against the classes that know their limits."""

from __future__ import annotations

import pytest
import torch

from discrepancy import (
    KL,
    Alpha,
    ChiSquared,
    CustomDivergence,
    Jeffreys,
    JensenShannon,
    LeCam,
    NeymanChiSquared,
    ReverseKL,
    SquaredHellinger,
    TotalVariation,
)
from discrepancy.divergences.tail import Tail, tail

_SAME = {
    "2 JensenShannon": (lambda t: t * torch.log(t) - (t + 1) * torch.log((t + 1) / 2), 2 * JensenShannon()),
    "ReverseKL": (lambda t: t - 1 - torch.log(t), ReverseKL()),
    "KL": (lambda t: t * torch.log(t) - t + 1, KL()),
    "SquaredHellinger": (lambda t: (torch.sqrt(t) - 1) ** 2 / 2, SquaredHellinger()),
    "NeymanChiSquared": (lambda t: (t - 1) ** 2 / t, NeymanChiSquared()),
    "ChiSquared": (lambda t: (t - 1) ** 2, ChiSquared()),
    "LeCam": (lambda t: (t - 1) ** 2 / (2 * (t + 1)), LeCam()),
    "Jeffreys": (lambda t: (t - 1) * torch.log(t), Jeffreys()),
    "Alpha(0.3)": (lambda t: (t**0.3 - 0.3 * t - 0.7) / (0.3 * -0.7), Alpha(0.3)),
    "Alpha(-1.5)": (lambda t: (t**-1.5 + 1.5 * t - 2.5) / (1.5 * 2.5), Alpha(-1.5)),
}
_LOG_T = torch.tensor([-200.0, -40.0, -20.0, -12.0, -5.0, 0.5, 5.0, 12.0, 20.0, 40.0, 200.0], dtype=torch.float64)


@pytest.mark.parametrize("name", _SAME)
@pytest.mark.parametrize("turned", [False, True], ids=["as it is", "reversed"])
def test_slopes_and_curvatures_hold_far_from_one(name, turned):
    formula, exact = _SAME[name]
    custom = CustomDivergence(formula)
    if turned:
        custom, exact = custom.reversed(), exact.reversed()
    slope, truth = custom.derivative(log_t=_LOG_T), exact.derivative(log_t=_LOG_T)
    torch.testing.assert_close(slope, truth, rtol=5e-5, atol=1e-9)
    # Curvatures span e^600: their logarithms are compared.
    curvature, truth = custom.curvature(log_t=_LOG_T), exact.curvature(log_t=_LOG_T)
    assert bool((curvature >= 0).all())
    known = (truth > 1e-290) & torch.isfinite(truth)
    torch.testing.assert_close(torch.log(curvature[known]), torch.log(truth[known]), rtol=0, atol=0.15)


@pytest.mark.parametrize("name", ["2 JensenShannon", "ReverseKL", "SquaredHellinger", "LeCam", "NeymanChiSquared"])
def test_the_slope_of_a_reversal_grows_over_the_whole_line(name):
    reversed_slope = CustomDivergence(_SAME[name][0]).reversed().derivative(log_t=torch.linspace(-150, 150, 3001).double())
    assert bool((reversed_slope.diff() >= -1e-9 * reversed_slope.abs()[1:]).all())


@pytest.mark.parametrize("name", ["2 JensenShannon", "ReverseKL", "SquaredHellinger"])
def test_its_inverse_derivative_is_that_of_the_class(name):
    formula, exact = _SAME[name]
    s = torch.tensor([-30.0, -3.0, -0.5, 0.1, 0.3], dtype=torch.float64)
    found = CustomDivergence(formula).reversed().inverse_derivative(s, log=True)
    torch.testing.assert_close(found, exact.reversed().inverse_derivative(s, log=True), rtol=1e-4, atol=1e-7)


def test_gradients_pass_through_the_tail():
    u = torch.tensor([-60.0, -30.0], dtype=torch.float64, requires_grad=True)
    CustomDivergence(_SAME["2 JensenShannon"][0]).reversed().derivative(log_t=u).sum().backward()
    # g'(e^u) = log 2 - log(1 + e^-u) (+ a constant), whose slope in u is one far to the left.
    torch.testing.assert_close(u.grad, torch.ones(2, dtype=torch.float64), rtol=1e-4, atol=0)


def test_a_tail_continues_powers_and_logarithms_exactly():
    v = torch.tensor([30.0, 80.0], dtype=torch.float64)
    root = Tail(start=20.0, value=5.0, weight=2.0, rate=0.5)
    torch.testing.assert_close(root.rho(v), 5 + 4 * torch.expm1(0.5 * (v - 20)))
    torch.testing.assert_close(root.slope(v), 2 * torch.exp(0.5 * (v - 20)))
    torch.testing.assert_close(Tail(20.0, 5.0, 2.0, 0.0).rho(v), 5 + 2 * (v - 20))


def test_what_is_exact_everywhere_or_has_a_corner_needs_no_growth():
    assert tail(ChiSquared()).start == float("inf")
    corner = CustomDivergence(lambda t: (t - 1).abs() / 2, smooth=False)
    u = torch.tensor([-300.0, -30.0, 30.0, 300.0], dtype=torch.float64)
    torch.testing.assert_close(corner.reversed().derivative(log_t=u), TotalVariation().derivative(log_t=u))
