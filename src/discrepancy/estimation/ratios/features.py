"""Features of points for ratio models that are linear in their parameters; each includes a constant where it says so."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from discrepancy._validate import whole_number
from discrepancy.kernels import Gaussian, Kernel, MedianHeuristic

Map = Callable[[Tensor], Tensor]


# Maps are classes, and not functions made inside `build`, so that fitted models can be pickled.
@dataclass(frozen=True)
class _Products:
    """Coordinates, then their products where the degree is 2."""

    degree: int

    def __call__(self, points: Tensor) -> Tensor:
        if self.degree == 1:
            return points
        rows, columns = torch.triu_indices(points.shape[1], points.shape[1], device=points.device)
        return torch.cat([points, points[:, rows] * points[:, columns]], 1)


@dataclass(frozen=True)
class _KernelMap:
    """The kernel at each centre."""

    kernel: Kernel
    centers: Tensor

    def __call__(self, points: Tensor) -> Tensor:
        return self.kernel.matrix(points, self.centers)


@dataclass(frozen=True)
class _SideBySide:
    """Several maps, side by side."""

    maps: tuple[Map, ...]

    def __call__(self, points: Tensor) -> Tensor:
        return torch.cat([m(points) for m in self.maps], 1)


class Features(ABC):
    """A rule that makes a map of features from the pooled sample."""

    @abstractmethod
    def build(self, z: Tensor, generator: torch.Generator) -> Map:
        """The map (k, d) -> (k, F) for a pooled sample z (N, d) of unit variance."""


@dataclass(frozen=True)
class Quadratic(Features):
    """The coordinates and their products, d (d + 3) / 2 features: the exact log-ratio of two Gaussians; degree 1 has no products.

    Raises ValueError for another degree than 1 or 2.
    """

    degree: int = 2

    def __post_init__(self) -> None:
        """Check the option."""
        if self.degree not in (1, 2) or isinstance(self.degree, bool):
            raise ValueError(f"degree must be 1 or 2, got {self.degree!r}")

    def build(self, z: Tensor, generator: torch.Generator) -> Map:
        """Coordinates, then products."""
        return _Products(self.degree)


@dataclass(frozen=True)
class KernelFeatures(Features):
    """k(., c_l) at `centers` rows of the pooled sample, drawn at random (all rows where there are fewer).

    Raises ValueError for fewer than one centre, TypeError for what is no kernel.
    """

    kernel: Kernel = field(default_factory=lambda: Gaussian(MedianHeuristic()))
    centers: int = 100

    def __post_init__(self) -> None:
        """Check the options."""
        whole_number(self.centers, 1, "centers")
        if not isinstance(self.kernel, Kernel):
            raise TypeError(f"kernel must be a kernel such as Gaussian(1.0), got {self.kernel!r}")

    def build(self, z: Tensor, generator: torch.Generator) -> Map:
        """Kernels at centres of the sample, the bandwidth chosen on it."""
        kernel = self.kernel.resolve(z, z.new_full((len(z),), 1 / len(z)))
        return _KernelMap(kernel, chosen_rows(z, self.centers, generator))


@dataclass(frozen=True)
class Joined(Features):
    """Several kinds of features side by side. Raises TypeError for what is none, ValueError for an empty list."""

    parts: tuple[Features, ...]

    def __post_init__(self) -> None:
        """Check the parts."""
        if not self.parts:
            raise ValueError("parts must name at least one kind of features, got none")
        for part in self.parts:
            if not isinstance(part, Features):
                raise TypeError(f"parts must be features such as Quadratic(), got {part!r}")

    def build(self, z: Tensor, generator: torch.Generator) -> Map:
        """All maps, side by side."""
        return _SideBySide(tuple(part.build(z, generator) for part in self.parts))


def chosen_rows(z: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """At most `count` rows of z, drawn without replacement."""
    return z[torch.randperm(len(z), generator=generator)[:count].to(z.device)]


__all__ = ["Features", "Joined", "KernelFeatures", "Map", "Quadratic", "chosen_rows"]
