"""Uniform directions, independent or spread evenly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy.directions.base import Directions, check_count
from discrepancy.directions.rotations import haar_rotations


def _gaussian(rows: int, d: int, generator: torch.Generator) -> Tensor:
    return torch.randn(rows, d, generator=generator, dtype=torch.float64, device=generator.device)


@dataclass(frozen=True)
class Uniform(Directions):
    """Independent directions, uniform on the sphere: normalised Gaussians."""

    count: int = 100
    independent = True

    def __post_init__(self) -> None:
        """Raise ValueError unless count >= 1."""
        check_count(self.count)

    def _draw(self, d: int, generator: torch.Generator) -> Tensor:
        z = _gaussian(self.count, d, generator)
        return z / torch.linalg.vector_norm(z, dim=-1, keepdim=True)


@dataclass(frozen=True)
class Orthogonal(Directions):
    """Rows of independent random rotations: each d in a row are orthogonal, which spreads them evenly.

    Uniform one by one, dependent within a block. Cost: count d^2. Source: Rowland, Hron, Tang, Choromanski, Sarlos and Weller
    (2019).
    """

    count: int = 100

    def __post_init__(self) -> None:
        """Raise ValueError unless count >= 1."""
        check_count(self.count)

    def _draw(self, d: int, generator: torch.Generator) -> Tensor:
        return haar_rotations(d, -(-self.count // d), generator).reshape(-1, d)[: self.count]


@dataclass(frozen=True)
class QuasiMonteCarlo(Directions):
    """Low-discrepancy directions, randomised so that each is uniform.

    d = 2: equally spaced angles on a half circle (opposite directions see the same), turned by a random angle. d = 3: a
    spiral of equal areas under a random rotation. Otherwise a scrambled Sobol sequence through the normal quantile
    function, normalised. Source: Nguyen, Bariletto and Ho (2024).
    """

    count: int = 100

    def __post_init__(self) -> None:
        """Raise ValueError unless count >= 1."""
        check_count(self.count)

    def _draw(self, d: int, generator: torch.Generator) -> Tensor:
        n = self.count
        k = torch.arange(n, dtype=torch.float64, device=generator.device)
        if d == 2:
            turn = torch.rand((), generator=generator, dtype=torch.float64, device=generator.device)
            angle = math.pi * (k + turn) / n
            return torch.stack([angle.cos(), angle.sin()], -1)
        if d == 3:
            height = 1 - (2 * k + 1) / n
            radius = (1 - height.square()).clamp_min(0).sqrt()
            angle = k * math.pi * (3 - math.sqrt(5))  # the golden angle
            spiral = torch.stack([radius * angle.cos(), radius * angle.sin(), height], -1)
            return spiral @ haar_rotations(3, 1, generator)[0]
        seed = int(torch.randint(2**31 - 1, (), generator=generator, device=generator.device))
        u = torch.quasirandom.SobolEngine(d, scramble=True, seed=seed).draw(n, dtype=torch.float64)
        # The grid has cells of width 2^-30 and contains 0: from the middle of a cell the quantile is finite.
        z = torch.special.ndtri(u + 2.0**-31).to(generator.device)
        return z / torch.linalg.vector_norm(z, dim=-1, keepdim=True)


__all__ = ["Orthogonal", "QuasiMonteCarlo", "Uniform"]
