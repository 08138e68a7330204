"""Where a network that solves a differential equation is asked to obey it: rules that choose the points of the next steps."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from discrepancy._validate import positive, whole_number
from discrepancy.methods.physics.optimal_density import optimal_density_on_grid
from discrepancy.networks import BoxFlow, CouplingFlow

# The squared residual (n,) at points (n, d), without gradients.
Squared = Callable[[Tensor], Tensor]


def _count(value: int, name: str) -> None:
    whole_number(value, 1, name)


def uniform_points(n: int, box: Tensor, generator: torch.Generator) -> Tensor:
    """n uniform points (n, d) of the box (d, 2)."""
    u = torch.rand(n, box.shape[0], generator=generator, dtype=box.dtype, device=generator.device).to(box.device)
    return box[:, 0] + u * (box[:, 1] - box[:, 0])


class Drawer(ABC):
    """A rule at work on one box: it may learn from round to round."""

    @abstractmethod
    def points(self, n: int, squared: Squared, generator: torch.Generator) -> Tensor:
        """The n points (n, d) of the next round, given the squared residual as it is now."""


class Collocation(ABC):
    """A rule that chooses points; `start(box, generator)` sets it to work on a box (d, 2)."""

    @abstractmethod
    def start(self, box: Tensor, generator: torch.Generator) -> Drawer:
        """The rule at work."""


@dataclass(frozen=True)
class UniformPoints(Collocation):
    """Uniform points: one set for the whole training, or with `fresh` a new one each round."""

    fresh: bool = False

    def start(self, box: Tensor, generator: torch.Generator) -> Drawer:
        """Nothing to learn."""
        return _UniformDrawer(self.fresh, box)


class _UniformDrawer(Drawer):
    def __init__(self, fresh: bool, box: Tensor) -> None:
        self.fresh, self.box = fresh, box
        self.kept: Tensor | None = None

    def points(self, n: int, squared: Squared, generator: torch.Generator) -> Tensor:
        if self.kept is None or self.fresh:
            self.kept = uniform_points(n, self.box, generator)
        return self.kept


@dataclass(frozen=True)
class ResidualPoints(Collocation):
    """Points from p ~ (r^2)^power / mean + shift, by resampling `candidates` uniform ones. Source: Wu et al. (2023), RAD."""

    power: float = 1.0
    shift: float = 1.0
    candidates: int = 4000

    def __post_init__(self) -> None:
        """Check the options."""
        positive(self.power, "power")
        if not self.shift >= 0:
            raise ValueError(f"shift must be at least 0, got {self.shift!r}")
        _count(self.candidates, "candidates")

    def start(self, box: Tensor, generator: torch.Generator) -> Drawer:
        """Nothing is kept between rounds."""
        return _ResidualDrawer(self, box)


class _ResidualDrawer(Drawer):
    def __init__(self, rule: ResidualPoints, box: Tensor) -> None:
        self.rule, self.box = rule, box

    def points(self, n: int, squared: Squared, generator: torch.Generator) -> Tensor:
        x = uniform_points(max(n, self.rule.candidates), self.box, generator)
        size = squared(x).double() ** self.rule.power
        share = size / size.mean() + self.rule.shift if float(size.mean()) > 0 else torch.ones_like(size)
        return x[torch.multinomial(share, n, replacement=False, generator=generator)]


@dataclass(frozen=True)
class SmoothDensity(Collocation):
    """Points from the exact smooth density of adversarial sampling, on `cells` cells an axis; one or two dimensions.

    The density is `optimal_density_on_grid` of r^2 / mean, raised to `floor` times the uniform one where it is below. Raises
    ValueError for beta <= 0 and other options out of range; warns for floor = 0.
    """

    beta: float = 0.02
    floor: float = 0.05
    cells: int = 64

    def __post_init__(self) -> None:
        """Check the options."""
        positive(self.beta, "beta")
        _count(self.cells, "cells")
        if not 0 <= self.floor <= 1:
            raise ValueError(f"floor must lie in [0, 1], got {self.floor!r}")
        if self.floor == 0:
            warnings.warn("floor = 0 leaves parts of the box without points", UserWarning, stacklevel=3)

    def start(self, box: Tensor, generator: torch.Generator) -> Drawer:
        """Raises ValueError beyond two dimensions."""
        if box.shape[0] > 2:
            raise ValueError(f"SmoothDensity works on grids of one or two dimensions, got {box.shape[0]}: use FlowDensity()")
        return _GridDrawer(self, box)


class _GridDrawer(Drawer):
    def __init__(self, rule: SmoothDensity, box: Tensor) -> None:
        self.rule, self.box = rule, box

    def points(self, n: int, squared: Squared, generator: torch.Generator) -> Tensor:
        low, length, d, m = self.box[:, 0], self.box[:, 1] - self.box[:, 0], self.box.shape[0], self.rule.cells
        places = torch.cartesian_prod(*[torch.arange(m, device=self.box.device)] * d).reshape(-1, d)
        r2 = squared(low + (places + 0.5) / m * length).double()
        mean = r2.mean()
        if float(mean) == 0:
            return uniform_points(n, self.box, generator)
        density = optimal_density_on_grid((r2 / mean).reshape([m] * d), length.double(), self.rule.beta).density.flatten()
        share = density.clamp_min(self.rule.floor / float(length.double().prod()))
        cell = places[torch.multinomial(share, n, replacement=True, generator=generator)]
        inside = torch.rand(n, d, generator=generator, dtype=self.box.dtype, device=generator.device).to(self.box.device)
        return low + (cell + inside) / m * length


@dataclass(frozen=True)
class FlowDensity(Collocation):
    """Points from a normalising flow trained against the network: max_p int r^2 p - beta int |grad p|^2, r^2 divided by its mean.

    Each round takes `steps` Adam steps on importance-weighted points, E_q[(p/q) (r^2 - beta p |grad log p|^2)], whose gradient
    needs no derivative of the residual; q is the flow of the round's start mixed with `uniform_fraction` of uniform points, which
    bounds the weights and keeps every place covered. Draws come from that same mixture. Any dimension; a step costs two passes
    through the flow at `batch` points. Raises ValueError for beta <= 0 (collapse) and warns for uniform_fraction = 0.
    """

    beta: float = 0.02
    flow: CouplingFlow = field(default_factory=CouplingFlow)
    steps: int = 10
    batch: int = 512
    learning_rate: float = 1e-2
    uniform_fraction: float = 0.2

    def __post_init__(self) -> None:
        """Check the options."""
        positive(self.beta, "beta")
        positive(self.learning_rate, "learning_rate")
        _count(self.steps, "steps")
        _count(self.batch, "batch")
        if not 0 <= self.uniform_fraction <= 1:
            raise ValueError(f"uniform_fraction must lie in [0, 1], got {self.uniform_fraction!r}")
        if self.uniform_fraction == 0:
            warnings.warn("uniform_fraction = 0 lets the flow leave parts of the box without points", UserWarning, stacklevel=3)

    def start(self, box: Tensor, generator: torch.Generator) -> FlowDrawer:
        """A uniform flow and its optimiser."""
        return FlowDrawer(self, box, generator)


class FlowDrawer(Drawer):
    """A flow in training; `density(x)` is that of its draws."""

    def __init__(self, rule: FlowDensity, box: Tensor, generator: torch.Generator) -> None:
        """Start at the uniform density on the box (d, 2)."""
        self.rule, self.box = rule, box
        self.flow: BoxFlow = rule.flow.build(box, generator=generator)
        self.optimiser = torch.optim.Adam(self.flow.parameters(), lr=rule.learning_rate)
        self.volume = float((box[:, 1] - box[:, 0]).prod())

    def density(self, x: Tensor) -> Tensor:
        """(1 - uniform_fraction) p(x) + uniform_fraction / volume, (n,), without gradients."""
        with torch.no_grad():
            mixed = self.rule.uniform_fraction
            return (1 - mixed) * self.flow.log_prob(x).exp() + mixed / self.volume

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """n points of the mixture."""
        flows, plain = self.flow.sample(n, generator=generator), uniform_points(n, self.box, generator)
        pick = torch.rand(n, generator=generator, device=generator.device).to(self.box.device) < self.rule.uniform_fraction
        return torch.where(pick[:, None], plain, flows)

    def objective(self, x: Tensor, r2: Tensor, q: Tensor) -> Tensor:
        """E_q[(p/q) r2] - beta E_q[|grad p|^2 / q] at points x of density q, differentiable in the flow's parameters."""
        at = x.detach().requires_grad_()
        log_p = self.flow.log_prob(at)
        (score,) = torch.autograd.grad(log_p.sum(), at, create_graph=True)
        p = log_p.exp()
        return (p / q * (r2 - self.rule.beta * p * score.square().sum(-1))).mean()

    def improve(self, squared: Squared, generator: torch.Generator) -> float:
        """One round of steps up the objective; its last value, in units of the mean residual."""
        x = self.draw(self.rule.batch * self.rule.steps, generator)
        q, r2 = self.density(x), squared(x).to(x.dtype)
        mean = (r2 / q).mean() / self.volume
        if float(mean) == 0:
            return 0.0
        value = torch.zeros(())
        for part in torch.arange(len(x), device=x.device).chunk(self.rule.steps):
            self.optimiser.zero_grad(set_to_none=True)
            value = self.objective(x[part], r2[part] / mean, q[part])
            (-value).backward()
            self.optimiser.step()
        return float(value.detach())

    def points(self, n: int, squared: Squared, generator: torch.Generator) -> Tensor:
        """Improve, then draw."""
        self.improve(squared, generator)
        return self.draw(n, generator)


__all__ = [
    "Collocation",
    "Drawer",
    "FlowDensity",
    "FlowDrawer",
    "ResidualPoints",
    "SmoothDensity",
    "UniformPoints",
    "uniform_points",
]
