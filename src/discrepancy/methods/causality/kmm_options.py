"""What the kernel method of moments is told: the reference law, the functions of the instruments, and how the saddle is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from discrepancy._validate import at_least, positive, whole_number
from discrepancy.kernels import Gaussian, Kernel
from discrepancy.networks import MLP


@dataclass(frozen=True)
class SmoothedReference:
    """omega: the data points and `count` draws from a Gaussian kernel density estimate of them, all of equal weight.

    `bandwidth` is in standard deviations of each column. With count = 0 candidates are reweighted data, as in empirical
    likelihood. Raises ValueError for a negative count or a bandwidth that is not positive.
    """

    count: int = 200
    bandwidth: float = 0.03

    def __post_init__(self) -> None:
        """Check the options."""
        whole_number(self.count, 0, "count")
        positive(self.bandwidth, "bandwidth")

    def draw(self, points: Tensor, generator: torch.Generator) -> Tensor:
        """`count` draws (count, D) near rows of points (n, D)."""
        rows = torch.randint(len(points), (self.count,), generator=generator)
        noise = torch.randn(self.count, points.shape[1], generator=generator, dtype=points.dtype)
        return points[rows] + self.bandwidth * points.std(0, correction=0) * noise


@dataclass(frozen=True)
class KernelInstruments:
    """h in the space of a kernel on z, each column divided by its standard deviation, with penalty |h|^2 lambda / 2.

    `most` limits the number of features.
    """

    kernel: Kernel = field(default_factory=Gaussian)
    most: int = 100

    def __post_init__(self) -> None:
        """Check the options."""
        if not isinstance(self.kernel, Kernel):
            raise TypeError(f"kernel must be a kernel such as Gaussian(), got {self.kernel!r}")
        whole_number(self.most, 1, "most")


def _leaky() -> nn.Module:
    return nn.LeakyReLU()


@dataclass(frozen=True)
class NeuralInstruments:
    """h a network of standardised z, with penalty E[|h|^2] lambda / 2: for the saddle solver only."""

    width: int = 50
    depth: int = 2
    activation: Callable[[], nn.Module] = _leaky

    def __post_init__(self) -> None:
        """Check the options."""
        MLP(self.width, self.depth, self.activation)

    def build(self, inputs: int, outputs: int, generator: torch.Generator) -> nn.Module:
        """The network, in float64."""
        return MLP(self.width, self.depth, self.activation).build(inputs, outputs, generator=generator, dtype=torch.float64)


@dataclass(frozen=True)
class ProfileSolver:
    """Inner problem by Newton's method at every theta, outer by L-BFGS with the envelope gradient: for up to some 2000 points.

    The reference draws are made once. `iterations` limits the outer steps.
    """

    iterations: int = 100

    def __post_init__(self) -> None:
        """Check the options."""
        whole_number(self.iterations, 1, "iterations")


@dataclass(frozen=True)
class SaddleSolver:
    """Optimistic Adam: descent in theta and ascent in the dual, on batches and fresh reference draws.

    Every `every` steps the MMR statistic of held-out residuals is taken; the best parameters are kept, and `patience` looks
    without gain end the search. held_out: the share of the rows that is set aside for it. clip: the largest norm of a gradient.
    """

    steps: int = 2000
    batch_size: int = 200
    rate: float = 5e-4
    dual_rate: float = 5e-3
    every: int = 100
    patience: int = 5
    held_out: float = 0.25
    clip: float = 10.0

    def __post_init__(self) -> None:
        """Check the options."""
        for name in ("steps", "batch_size", "every", "patience"):
            whole_number(getattr(self, name), 1, name)
        for name in ("rate", "dual_rate", "clip"):
            positive(getattr(self, name), name)
        at_least(self.held_out, 0.0, "held_out")
        if self.held_out >= 1:
            raise ValueError(f"held_out must be below 1, got {self.held_out!r}")


__all__ = ["KernelInstruments", "NeuralInstruments", "ProfileSolver", "SaddleSolver", "SmoothedReference"]
