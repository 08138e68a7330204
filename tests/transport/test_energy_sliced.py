"""The energy-weighted sliced distance: its place between the mean and the maximum, its limits, its options."""

from __future__ import annotations

import math

import pytest
import torch

from discrepancy import SlicedWasserstein
from discrepancy.directions import Orthogonal, Uniform
from discrepancy.transport import EnergySlicedWasserstein, ExponentialEnergy, PowerEnergy
from discrepancy.transport.wasserstein import Wasserstein


def _samples(dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(30, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(20, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 2.0, 0.5]) + 1
    return x.to(dtype), y.to(dtype)


def _seeded():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("energy", [ExponentialEnergy(), ExponentialEnergy(0.3), PowerEnergy(), PowerEnergy(2.5)])
@pytest.mark.parametrize("p", [1, 2, 3])
def test_the_weighted_mean_over_directions_by_hand(energy, p):
    x, y = _samples()
    theta = Uniform(40).draw(3, _seeded(), torch.float64, "cpu")
    costs = torch.stack([Wasserstein(p)(x @ t, y @ t) ** p for t in theta])
    weights = (costs / energy.scale).exp() if isinstance(energy, ExponentialEnergy) else costs**energy.power
    expected = ((weights * costs).sum() / weights.sum()) ** (1 / p)
    got = EnergySlicedWasserstein(p, Uniform(40), energy)(x, y, generator=_seeded())
    assert float(got) == pytest.approx(float(expected), rel=1e-10)
    plain = SlicedWasserstein(p, Uniform(40))(x, y, generator=_seeded())
    assert plain <= got <= costs.max() ** (1 / p)


def test_limits_of_the_energy():
    x, y = _samples()
    plain = SlicedWasserstein(2, Uniform(30))(x, y, generator=_seeded())
    flat = EnergySlicedWasserstein(2, Uniform(30), ExponentialEnergy(1e12))(x, y, generator=_seeded())
    assert float(flat) == pytest.approx(float(plain), rel=1e-9)
    sharp = EnergySlicedWasserstein(2, Uniform(30), ExponentialEnergy(1e-6))(x, y, generator=_seeded())
    theta = Uniform(30).draw(3, _seeded(), torch.float64, "cpu")
    assert float(sharp) == pytest.approx(max(float(Wasserstein(2)(x @ t, y @ t)) for t in theta), rel=1e-9)


def test_a_planar_translate_has_a_closed_form():
    # W_2^2 along theta is |c|^2 cos^2 and, with the weight cos^2, the mean of cos^4 over that of cos^2 is 3/4 in the plane.
    x = torch.randn(5, 2, generator=_seeded(), dtype=torch.float64)
    c = torch.tensor([2.0, -1.0], dtype=torch.float64)
    got = EnergySlicedWasserstein(2, Uniform(200_000), PowerEnergy())(x, x + c, generator=_seeded())
    assert float(got) == pytest.approx(math.sqrt(0.75) * float(c.norm()), rel=3e-3)


@pytest.mark.parametrize("energy", [ExponentialEnergy(), PowerEnergy(1.5)])
def test_gradient_through_the_weights(energy):
    x, y = _samples()
    D = EnergySlicedWasserstein(2, Uniform(7), energy)
    x.requires_grad_()
    (slope,) = torch.autograd.grad(D(x, y, generator=_seeded()), x)
    step = torch.randn(x.shape, generator=_seeded(), dtype=x.dtype)
    h = 1e-6
    with torch.no_grad():
        difference = (D(x + h * step, y, generator=_seeded()) - D(x - h * step, y, generator=_seeded())) / (2 * h)
    assert float((slope * step).sum()) == pytest.approx(float(difference), rel=1e-6)


@pytest.mark.parametrize("energy", [ExponentialEnergy(), PowerEnergy()])
def test_equal_samples_have_gradient_zero(energy):
    x = _samples()[0].requires_grad_()
    value = EnergySlicedWasserstein(energy=energy)(x, x.detach().clone(), generator=_seeded())
    assert float(value.detach()) == 0
    assert torch.autograd.grad(value, x)[0].abs().max() == 0


def test_one_dimension_is_the_distance_on_the_line():
    x, y = (t[:, :1] for t in _samples())
    assert float(EnergySlicedWasserstein()(x, y)) == pytest.approx(float(Wasserstein(2)(x, y)))


def test_options_are_checked():
    with pytest.raises(TypeError, match="energy must be"):
        EnergySlicedWasserstein(energy="energy")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="p must be finite"):
        EnergySlicedWasserstein(math.inf)
    for energy in (ExponentialEnergy, PowerEnergy):
        with pytest.raises(ValueError, match="positive"):
            energy(0.0)
    assert EnergySlicedWasserstein(energy=PowerEnergy()).claims.degree == 1
    assert EnergySlicedWasserstein(2, Orthogonal(12)).claims.degree is None
