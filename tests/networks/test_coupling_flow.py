"""Flows on boxes: inverse and slope against autograd, mass one, draws that follow the density, a planted density found."""

import math

import pytest
import torch

from discrepancy.learning import Training
from discrepancy.networks import MLP
from discrepancy.networks.coupling_flow import CouplingFlow, rational_spline


def seeded(k=0):
    return torch.Generator().manual_seed(k)


def disturbed(bounds, layers=3, seed=0):
    """A flow away from its uniform start, in float64."""
    flow = CouplingFlow(layers, 5, MLP(16, 1)).build(torch.tensor(bounds, dtype=torch.float64), generator=seeded(seed))
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=seeded(seed + 1), dtype=p.dtype))
    return flow


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_spline_inverse_and_slope(dtype):
    free = 1.5 * torch.randn(200, 13, generator=seeded(), dtype=dtype)
    t = torch.rand(200, generator=seeded(1), dtype=dtype, requires_grad=True)
    image, log_slope = rational_spline(t, free)
    (slope,) = torch.autograd.grad(image.sum(), t)
    tight = 1e-3 if dtype == torch.float32 else 1e-10
    assert torch.allclose(slope.log(), log_slope, atol=tight)
    back, log_back = rational_spline(image, free, inverse=True)
    assert torch.allclose(back, t, atol=tight)
    assert torch.allclose(log_back, -log_slope, atol=100 * tight)
    ends = torch.tensor([0.0, 1.0], dtype=dtype)
    assert torch.allclose(rational_spline(ends, free[:2])[0], ends, atol=1e-6)
    zero = torch.zeros(200, 13, dtype=dtype)
    assert torch.allclose(rational_spline(t.detach(), zero)[0], t.detach(), atol=1e-6)


def test_spline_is_continuously_differentiable_across_knots():
    free = torch.randn(13, generator=seeded(), dtype=torch.float64)
    steps = []
    for n in (20_001, 200_001):
        t = torch.linspace(0, 1, n, dtype=torch.float64)
        image, log_slope = rational_spline(t, free.expand(n, -1))
        assert (image.diff() > 0).all()
        steps.append(float(log_slope.diff().abs().max()))
    assert steps[0] / steps[1] == pytest.approx(10, rel=0.2)  # a jump of the slope would not shrink with the grid


def test_starts_uniform():
    flow = CouplingFlow().build([[0.0, 2.0], [-1.0, 3.0]], generator=seeded())
    x = flow.sample(100, generator=seeded(1))
    assert torch.allclose(flow.log_prob(x), torch.full((100,), -math.log(8.0)), atol=1e-5)
    assert ((x >= torch.tensor([0.0, -1.0])) & (x <= torch.tensor([2.0, 3.0]))).all()
    assert flow.log_prob(torch.tensor([[3.0, 0.0]])).item() == -math.inf


def test_mass_is_one():
    line = disturbed([[-1.0, 3.0]])
    x = torch.linspace(-1, 3, 100_001, dtype=torch.float64)[:, None]
    assert float(torch.trapezoid(line.log_prob(x).exp(), x[:, 0]).detach()) == pytest.approx(1, abs=1e-6)
    plane = disturbed([[0.0, 1.0], [0.0, 2.0]])
    u = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    grid = torch.cartesian_prod(u, 2 * u)
    assert float(plane.log_prob(grid).exp().mean().detach()) * 2 == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("bounds", [[[-1.0, 3.0]], [[0.0, 1.0], [0.0, 2.0]], [[0.0, 1.0]] * 3])
def test_draws_follow_the_density(bounds):
    flow = disturbed(bounds, seed=2)
    x = flow.sample(40_000, generator=seeded(4))
    d = len(bounds)
    box = torch.tensor(bounds, dtype=torch.float64)
    unit = (x - box[:, 0]) / (box[:, 1] - box[:, 0])
    # E over draws of 1{cell} against the integral of the density over that cell, in halves of each axis
    points = torch.rand(40_000, d, generator=seeded(5), dtype=torch.float64)
    p = flow.log_prob(box[:, 0] + points * (box[:, 1] - box[:, 0])).exp().detach() * float((box[:, 1] - box[:, 0]).prod())
    assert float((p - 1).abs().mean()) > 0.05  # it is not uniform
    for corner in range(2**d):
        side = torch.tensor([(corner >> k) & 1 for k in range(d)])
        drawn = ((unit >= 0.5).long() == side).all(1).double().mean()
        truth = (p * ((points >= 0.5).long() == side).all(1)).mean()
        assert float(drawn) == pytest.approx(float(truth), abs=0.02)


def test_sample_gradients_and_log_prob_gradients():
    flow = disturbed([[0.0, 1.0], [0.0, 2.0]])
    x = flow.rsample(5, generator=seeded(1))
    parameter = flow.shape
    (slope,) = torch.autograd.grad(x.square().sum(), parameter)
    slope = slope[0]
    h, k = 1e-6, 2
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            parameter[0, k] += sign * h
            values.append(float(flow.rsample(5, generator=seeded(1)).square().sum()))
            parameter[0, k] -= sign * h
    assert float(slope[k]) == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-4, abs=1e-8)
    points = x.detach().requires_grad_()
    (score,) = torch.autograd.grad(flow.log_prob(points).sum(), points, create_graph=True)
    shift = torch.zeros_like(points).detach()
    shift[:, 0] = h
    difference = (flow.log_prob(points + shift) - flow.log_prob(points - shift)) / (2 * h)
    assert torch.allclose(score[:, 0], difference, rtol=1e-4, atol=1e-6)
    (second,) = torch.autograd.grad(score.square().sum(), parameter)  # what a penalty on |grad log p| needs
    assert torch.isfinite(second).all()
    assert float(second.abs().max()) > 0


def test_a_planted_density_is_found():
    # p(x) = 1 + cos(pi x) / 2 on [0, 1], by maximum likelihood; its entropy is known by quadrature
    u = torch.linspace(0, 1, 20_001, dtype=torch.float64)
    p = 1 + 0.5 * torch.cos(math.pi * u)
    mass = torch.cat([torch.zeros(1, dtype=torch.float64), torch.cumulative_trapezoid(p, u)])
    draws = u[torch.searchsorted(mass, torch.rand(20_000, generator=seeded(), dtype=torch.float64))][:, None]
    flow = CouplingFlow(1, 6).build(torch.tensor([[0.0, 1.0]], dtype=torch.float64), generator=seeded())
    Training(steps=150, learning_rate=0.05).run(flow.parameters(), lambda k: (-flow.log_prob(draws).mean(), {}))
    assert float((flow.log_prob(u[:, None]).exp() - p).abs().mean().detach()) < 0.03


@pytest.mark.parametrize("bad", [[[1.0, 0.0]], [[0.0, 0.0]], [0.0, 1.0], [[0.0, math.inf]], [[0.0, 1.0, 2.0]]])
def test_bad_bounds(bad):
    with pytest.raises(ValueError, match="bounds must"):
        CouplingFlow().build(bad)


def test_bad_options_and_calls():
    for bad in (lambda: CouplingFlow(0), lambda: CouplingFlow(bins=1), lambda: CouplingFlow(bins=501)):
        with pytest.raises(ValueError, match="whole number"):
            bad()
    flow = CouplingFlow(1, 2).build([[0.0, 1.0]])
    with pytest.raises(ValueError, match=r"shape \(\.\.\., 1\)"):
        flow.log_prob(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="count must"):
        flow.rsample(0)
