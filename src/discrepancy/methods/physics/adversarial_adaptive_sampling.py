"""Networks that solve differential equations, with collocation points that an adversary moves to where they fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from discrepancy._results import NumericalError, Result
from discrepancy._validate import at_least, generator_or_default, whole_number
from discrepancy.learning import Training
from discrepancy.methods.physics.collocation import Collocation, FlowDensity, uniform_points
from discrepancy.networks.coupling_flow import check_bounds

Field = Callable[[Tensor], Tensor]


def laplacian(u: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """sum_i d^2 u / dx_i^2 (n,) at x (n, d), differentiable in u's parameters: d + 1 backward passes."""
    at = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(u(at).sum(), at, create_graph=True)
    total = torch.zeros_like(slope[:, 0])
    for i in range(x.shape[1]):
        total = total + torch.autograd.grad(slope[:, i].sum(), at, create_graph=True)[0][:, i]
    return total


@dataclass(frozen=True)
class PDEProblem:
    """N[u] = s on a box with conditions on its boundary, as two functions of the network.

    residual(net, x) -> N[u](x) - s(x), (n,) at points x (n, d); boundary_loss(net) -> a scalar; bounds (d, 2). Time is one more
    coordinate. Raises ValueError for bounds that are no box.
    """

    residual: Callable[[nn.Module, Tensor], Tensor]
    boundary_loss: Callable[[nn.Module], Tensor]
    bounds: Any
    box: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the bounds."""
        object.__setattr__(self, "box", check_bounds(self.bounds))

    def checked_residual(self, net: nn.Module, x: Tensor) -> Tensor:
        """The residual, its shape checked (ValueError) and its values finite (NumericalError with the first bad point)."""
        r = self.residual(net, x)
        if r.shape != x.shape[:1]:
            raise ValueError(f"residual must return shape {tuple(x.shape[:1])} for points {tuple(x.shape)}, got {tuple(r.shape)}")
        bad = ~torch.isfinite(r.detach())
        if bool(bad.any()):
            raise NumericalError(f"the residual is not finite at {int(bad.sum())} point(s), the first {x[bad][0].tolist()}")
        return r

    def squared(self, net: nn.Module) -> Callable[[Tensor], Tensor]:
        """x -> r(x)^2 without gradients."""
        return lambda x: self.checked_residual(net, x).detach().square()


def dirichlet_poisson(source: Field, values: Field, bounds: Any, *, scale: float = 1.0, boundary_points: int = 64) -> PDEProblem:
    """-Lap u = source on a box, u = values on its faces; the residual is divided by `scale`.

    Every face (an end, in one dimension) is checked at `boundary_points` points of a fixed grid. Raises ValueError for bounds
    that are no box.
    """
    box = check_bounds(bounds)
    d = box.shape[0]
    faces = []
    for i in range(d):
        for end in range(2):
            side = max(1, round(boundary_points ** (1 / max(d - 1, 1))))
            axes = [box[k, 0] + (box[k, 1] - box[k, 0]) * torch.linspace(0, 1, side) for k in range(d)]
            axes[i] = box[i, end : end + 1]
            faces.append(torch.cartesian_prod(*axes).reshape(-1, d))
    rim = torch.cat(faces).to(box.dtype)
    target = values(rim).detach()

    def residual(net: nn.Module, x: Tensor) -> Tensor:
        return (-laplacian(lambda z: net(z)[:, 0], x) - source(x)) / scale

    def boundary_loss(net: nn.Module) -> Tensor:
        return (net(rim)[:, 0] - target).square().mean()

    return PDEProblem(residual, boundary_loss, bounds)


@dataclass(frozen=True, repr=False)
class PinnFit(Result):
    """A trained network: the record `history` ("step", "loss", "residual", "boundary"), and of r^2 at uniform points the mean and
    the variance, the measure of how evenly the equation is obeyed."""

    net: nn.Module = field(repr=False)
    history: dict[str, list[float]] = field(repr=False)
    mean_squared_residual: float
    residual_variance: float


@dataclass(frozen=True)
class AdversarialAdaptiveSampling:
    """min_theta max_p  int r_theta^2 p dx - beta int |grad p|^2 dx + boundary_weight boundary_loss, p a density on the box.

    The inner maximum is the mean squared residual plus its squared H^-1 distance from a constant, over 4 beta: the network is
    asked for a small and an even residual. `collocation` chooses the points: `FlowDensity()` is the paper's flow,
    `SmoothDensity()` the exact inner solution on a grid, `ResidualPoints()` and `UniformPoints()` are what one compares with.
    New points every `redraw_every` steps; between, the network takes steps on the mean of r^2 over them, points held fixed (the
    adversary, in turn, sees the network fixed). Judge errors by uniform points: the sampled loss is weighted.

    `training` the network's loop. Raises ValueError for options out of range; NumericalError naming the point where a residual is
    not finite. Source: Tang et al. (2024).
    """

    collocation: Collocation = field(default_factory=FlowDensity)
    points: int = 1000
    redraw_every: int = 50
    boundary_weight: float = 100.0
    training: Training = field(default_factory=lambda: Training(steps=2500, learning_rate=3e-3, final_share=0.0))
    references: ClassVar[tuple[str, ...]] = ("adversarial-adaptive-sampling",)

    def __post_init__(self) -> None:
        """Check the options."""
        for name in ("points", "redraw_every"):
            value = getattr(self, name)
            whole_number(value, 1, name)
        at_least(self.boundary_weight, 0, "boundary_weight")
        if not isinstance(self.collocation, Collocation):
            raise TypeError(f"collocation must be an object such as FlowDensity() or UniformPoints(), got {self.collocation!r}")

    def train(self, net: nn.Module, problem: PDEProblem, *, generator: torch.Generator | None = None) -> PinnFit:
        """Train `net`, (n, d) -> (n, k), in place."""
        source = generator_or_default(generator, problem.box.device)
        drawer = self.collocation.start(problem.box, source)
        held: dict[str, Tensor] = {}

        def step(k: int) -> tuple[Tensor, dict[str, Tensor | float]]:
            if k % self.redraw_every == 0:
                held["x"] = drawer.points(self.points, problem.squared(net), source).detach()
            residual = problem.checked_residual(net, held["x"]).square().mean()
            boundary = problem.boundary_loss(net)
            return residual + self.boundary_weight * boundary, {"residual": residual.detach(), "boundary": boundary.detach()}

        history = self.training.run(net.parameters(), step)
        r2 = problem.squared(net)(uniform_points(4096, problem.box, source))
        return PinnFit(net, history, float(r2.mean()), float(r2.var()))

    def compared_with(self, collocation: Collocation) -> AdversarialAdaptiveSampling:
        """The same training with other points."""
        return replace(self, collocation=collocation)


__all__ = ["AdversarialAdaptiveSampling", "PDEProblem", "PinnFit", "dirichlet_poisson", "laplacian"]
