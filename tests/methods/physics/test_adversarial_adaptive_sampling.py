"""Adversarial collocation: the inner problem in closed form, the two gradient paths, rules for points, and bad inputs."""

import math

import pytest
import torch
from torch import nn

from discrepancy import NumericalError, cite
from discrepancy.learning import Training
from discrepancy.methods.physics.adversarial_adaptive_sampling import (
    AdversarialAdaptiveSampling,
    PDEProblem,
    dirichlet_poisson,
    laplacian,
)
from discrepancy.methods.physics.collocation import FlowDensity, ResidualPoints, SmoothDensity, UniformPoints
from discrepancy.methods.physics.optimal_density import optimal_density_on_grid
from discrepancy.networks import MLP, CouplingFlow

LINE, PLANE = torch.tensor([[0.0, 1.0]]), torch.tensor([[-1.0, 1.0], [0.0, 3.0]])


def seeded(k=0):
    return torch.Generator().manual_seed(k)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inner_problem_on_the_line(dtype):
    A, beta = 0.5, 0.1
    x = (torch.arange(400, dtype=dtype) + 0.5) / 400
    found = optimal_density_on_grid(1 + A * torch.cos(math.pi * x), [1.0], beta)
    tight = 1e-6 if dtype == torch.float32 else 1e-12
    assert found.density.dtype == dtype
    assert (found.density - (1 + A * torch.cos(math.pi * x) / (2 * beta * math.pi**2))).abs().max() < tight
    assert found.value == pytest.approx(1 + A**2 / (8 * beta * math.pi**2), abs=10 * tight)
    assert found.value == pytest.approx(1.03166, abs=1e-5)
    assert found.positive
    assert not optimal_density_on_grid(1 + A * torch.cos(math.pi * x), [1.0], 0.01).positive


def test_inner_problem_in_a_rectangle():
    # r2 = 2 + cos(2 pi x / 2) cos(pi y / 3) on [0, 2] x [0, 3]: an eigenfunction with eigenvalue pi^2 + pi^2 / 9
    x, y = (torch.arange(40, dtype=torch.float64) + 0.5) / 20, (torch.arange(30, dtype=torch.float64) + 0.5) / 10
    wave = torch.cos(math.pi * x)[:, None] * torch.cos(math.pi * y / 3)
    found = optimal_density_on_grid(2 + wave, [2.0, 3.0], 0.7)
    eigenvalue = math.pi**2 * (1 + 1 / 9)
    assert torch.allclose(found.density, 1 / 6 + wave / (1.4 * eigenvalue), atol=1e-12)
    norm = 1.5 / eigenvalue  # int wave^2 = 6 / 4
    assert found.dual_norm**2 == pytest.approx(norm)
    assert found.value == pytest.approx(2 + norm / 2.8)
    assert float(found.density.mean()) * 6 == pytest.approx(1)


def test_no_density_does_better():
    x = (torch.arange(300, dtype=torch.float64) + 0.5) / 300
    r2 = (1 + torch.sin(5 * x)).square()
    best = optimal_density_on_grid(r2, [1.0], 0.5)
    spread = [torch.cos(k * math.pi * x) for k in range(1, 6)]
    for k, wave in enumerate(spread, start=1):
        for size in (0.05, -0.05):
            p = best.density + size * wave
            coefficients = [float((best.density * w).mean()) * 2 for w in spread]
            shift = float((r2 * (size * wave)).mean())
            rough = 0.5 * (k * math.pi) ** 2 * (size * coefficients[k - 1] + size**2 / 2)
            assert shift - rough < 1e-6  # the objective's change
            assert float(p.mean()) == pytest.approx(1)


def test_laplacian_of_a_polynomial():
    x = torch.randn(7, 2, generator=seeded(), dtype=torch.float64)
    u = lambda z: z[:, 0] ** 3 * z[:, 1] + z[:, 1] ** 2  # noqa: E731
    assert torch.allclose(laplacian(u, x), 6 * x[:, 0] * x[:, 1] + 2)


def test_the_flow_solves_the_inner_problem():
    drawer = FlowDensity(0.1, CouplingFlow(1, 8)).start(LINE, seeded())
    for _ in range(15):
        drawer.improve(lambda z: 1 + 0.5 * torch.cos(math.pi * z[:, 0]), seeded(1))
    x = ((torch.arange(400) + 0.5) / 400)[:, None].requires_grad_()
    p = drawer.flow.log_prob(x).exp()
    (slope,) = torch.autograd.grad(p.sum(), x)
    value = float(((1 + 0.5 * torch.cos(math.pi * x[:, 0])) * p).mean().detach() - 0.1 * slope.square().mean())
    assert value == pytest.approx(1.03166, rel=0.01)
    assert value > 1.02  # the uniform density has 1


def test_the_flows_objective_is_the_integral():
    drawer = FlowDensity(0.3, uniform_fraction=1.0).start(PLANE, seeded())
    with torch.no_grad():
        for p in drawer.flow.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=seeded(1)))
    u = (torch.arange(200) + 0.5) / 200
    x = torch.cartesian_prod(2 * u - 1, 3 * u)
    r2 = 1 + x[:, 0].square()
    found = drawer.objective(x, r2, drawer.density(x))  # q uniform: the mean over q is the integral over the volume
    at = x.clone().requires_grad_()
    p = drawer.flow.log_prob(at).exp()
    (slope,) = torch.autograd.grad(p.sum(), at)
    truth = ((r2 * p - 0.3 * slope.square().sum(-1)) * 6).mean()
    assert float(found.detach()) == pytest.approx(float(truth.detach()), rel=1e-3)
    # E_p |grad log p|^2 would be another penalty
    fisher = (6 * p * (slope / p[:, None]).square().sum(-1)).mean()
    assert abs(float((fisher - 6 * slope.square().sum(-1).mean()).detach())) > 0.01


@pytest.mark.parametrize(
    "rule", [ResidualPoints(), SmoothDensity(0.05, 0.05, 40), FlowDensity(0.05, steps=20)], ids=lambda r: type(r).__name__
)
def test_points_go_where_the_residual_is_large(rule):
    hot = lambda x: torch.exp(-8 * (x - torch.tensor([0.5, 2.0])).square().sum(-1))  # noqa: E731
    drawer = rule.start(PLANE, seeded())
    for _ in range(5):
        x = drawer.points(2000, hot, seeded(2))
    assert x.shape == (2000, 2)
    assert ((x >= PLANE[:, 0]) & (x <= PLANE[:, 1])).all()
    near = ((x - torch.tensor([0.5, 2.0])).abs() < 0.5).all(1).float().mean()
    assert float(near) > 1.4 / 6  # uniform points: 1/6
    again = rule.start(PLANE, seeded())
    for _ in range(5):
        y = again.points(2000, hot, seeded(2))
    assert torch.equal(x, y)


def test_coverage_survives_a_single_hot_spot():
    drawer = FlowDensity(1e-4, steps=20).start(PLANE, seeded())
    for _ in range(5):
        drawer.improve(lambda x: torch.exp(-30 * x.square().sum(-1)), seeded(1))
    x = torch.rand(5000, 2, generator=seeded(2)) * torch.tensor([2.0, 3.0]) + torch.tensor([-1.0, 0.0])
    assert float(drawer.density(x).min()) >= 0.2 / 6 - 1e-6


def test_uniform_points_stay_or_are_drawn_anew():
    fixed, fresh = (UniformPoints(f).start(LINE, seeded()) for f in (False, True))
    g = seeded(1)
    assert torch.equal(fixed.points(5, lambda x: x, g), fixed.points(5, lambda x: x, g))
    assert not torch.equal(fresh.points(5, lambda x: x, g), fresh.points(5, lambda x: x, g))


def sine_problem():
    return dirichlet_poisson(
        lambda x: math.pi**2 * torch.sin(math.pi * x[:, 0]), lambda x: 0 * x[:, 0], [[0.0, 1.0]], scale=10.0, boundary_points=1
    )


@pytest.mark.parametrize(
    "rule", [UniformPoints(True), SmoothDensity(0.05, 0.1), FlowDensity(0.05, steps=2, batch=64)], ids=lambda r: type(r).__name__
)
def test_a_smooth_equation_is_solved(rule):
    net = MLP(32, 2, nn.Tanh).build(1, 1, generator=seeded())
    method = AdversarialAdaptiveSampling(rule, points=40, boundary_weight=1.0, training=Training(steps=300, learning_rate=1e-2))
    fit = method.train(net, sine_problem(), generator=seeded(1))
    x = torch.linspace(0, 1, 101)[:, None]
    with torch.no_grad():
        error = float((net(x)[:, 0] - torch.sin(math.pi * x[:, 0])).abs().max())
    assert error < 0.1
    assert fit.mean_squared_residual < 0.02
    assert fit.history["residual"][-1] < fit.history["residual"][0]
    assert "2305.18702" in cite(method)


def test_exact_solution_has_no_residual_and_boundary():
    class Exact(nn.Module):
        def forward(self, x):
            return torch.sin(math.pi * x)

    problem = sine_problem()
    x = torch.rand(20, 1, generator=seeded())
    assert problem.checked_residual(Exact(), x).abs().max() < 1e-5
    assert float(problem.boundary_loss(Exact())) < 1e-10


@pytest.mark.parametrize(
    "bad",
    [
        lambda: optimal_density_on_grid(torch.ones(3), [1.0], 0.0),
        lambda: optimal_density_on_grid(torch.ones(3), [1.0, 1.0], 1.0),
        lambda: optimal_density_on_grid(torch.tensor([1.0, math.nan]), [1.0], 1.0),
        lambda: FlowDensity(0.0),
        lambda: FlowDensity(uniform_fraction=1.5),
        lambda: SmoothDensity(-1.0),
        lambda: SmoothDensity(floor=2.0),
        lambda: ResidualPoints(shift=-1.0),
        lambda: AdversarialAdaptiveSampling(points=0),
        lambda: AdversarialAdaptiveSampling(boundary_weight=-1.0),
        lambda: PDEProblem(lambda n, x: x, lambda n: 0, [0.0, 1.0]),
        lambda: PDEProblem(lambda n, x: x, lambda n: 0, [[1.0, 0.0]]),
        lambda: SmoothDensity().start(torch.tensor([[0.0, 1.0]] * 3), seeded()),
    ],
)
def test_bad_options(bad):
    with pytest.raises(ValueError, match=r"must|non-finite|one or two"):
        bad()


def test_warnings_and_bad_residuals():
    with pytest.warns(UserWarning, match="uniform_fraction = 0"):
        FlowDensity(uniform_fraction=0.0)
    with pytest.warns(UserWarning, match="floor = 0"):
        SmoothDensity(floor=0.0)
    with pytest.raises(TypeError, match="collocation must be an object"):
        AdversarialAdaptiveSampling("uniform")
    net = nn.Linear(1, 1)
    method = AdversarialAdaptiveSampling(UniformPoints(), points=3, training=Training(steps=2))
    with pytest.raises(ValueError, match="residual must return shape"):
        method.train(net, PDEProblem(lambda n, x: n(x), lambda n: n.bias.sum(), [[0.0, 1.0]]))
    with pytest.raises(NumericalError, match=r"not finite at 3 point\(s\), the first \["):
        method.train(net, PDEProblem(lambda n, x: n(x)[:, 0] * math.nan, lambda n: n.bias.sum(), [[0.0, 1.0]]))
