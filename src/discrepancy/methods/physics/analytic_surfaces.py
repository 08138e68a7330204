"""Energy surfaces in closed form, with gradients: the Muller-Brown surface and Lennard-Jones clusters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from discrepancy._validate import as_tensor, positive


@dataclass(frozen=True)
class MullerBrown:
    """A surface on the plane with three minima and two saddles, the sum of four Gaussians, times `scale`.

    Calling it on a point (2,) gives the energy and its gradient (2,). `minima` and `saddles` are known to six digits.
    Source: Muller and Brown (1979).
    """

    scale: float = 0.01
    references: ClassVar[tuple[str, ...]] = ("muller-brown-1979",)
    minima: ClassVar[tuple[tuple[float, float], ...]] = ((-0.558224, 1.441726), (0.623499, 0.028038), (-0.050011, 0.466694))
    saddles: ClassVar[tuple[tuple[float, float], ...]] = ((-0.822002, 0.624313), (0.212487, 0.292988))

    def __post_init__(self) -> None:
        """Check the scale."""
        positive(self.scale, "scale")

    def __call__(self, x: Float[Tensor, "2"]) -> tuple[Tensor, Tensor]:
        """The energy and its gradient."""
        x = as_tensor(x, "x")
        if x.shape != (2,):
            raise ValueError(f"x must be a point of the plane, got shape {tuple(x.shape)}")
        height = x.new_tensor([-200.0, -100.0, -170.0, 15.0])
        a, b, c = x.new_tensor([[-1, -1, -6.5, 0.7], [0, 0, 11, 0.6], [-10, -10, -6.5, 0.7]])
        u, v = x[0] - x.new_tensor([1, 0, -0.5, -1]), x[1] - x.new_tensor([0, 0.5, 1.5, 1])
        value = self.scale * height * (a * u * u + b * u * v + c * v * v).exp()
        gradient = torch.stack([(value * (2 * a * u + b * v)).sum(), (value * (b * u + 2 * c * v)).sum()])
        return value.sum(), gradient


@dataclass(frozen=True)
class LennardJones:
    """4 depth (r^-12 - r^-6) over all pairs of atoms, lengths in units of the distance where a pair has energy zero.

    Calling it on coordinates (3 N,) gives the energy and its gradient (3 N,). Two atoms rest at 2^(1/6).
    """

    depth: float = 1.0

    def __post_init__(self) -> None:
        """Check the depth."""
        positive(self.depth, "depth")

    def __call__(self, x: Float[Tensor, " k"]) -> tuple[Tensor, Tensor]:
        """The energy and its gradient. N^2 time and memory."""
        places = as_tensor(x, "x").reshape(-1, 3)
        gap = places[:, None] - places[None]
        squared = gap.square().sum(-1).fill_diagonal_(math.inf)
        sixth = squared**-3
        gradient = (24 * self.depth * (sixth - 2 * sixth.square()) / squared)[..., None] * gap
        return 2 * self.depth * (sixth.square() - sixth).sum(), gradient.sum(1).flatten()

    @staticmethod
    def pentagonal_bipyramid() -> Float[Tensor, "21"]:
        """The global minimum of seven atoms, energy -16.505384, to ten digits: five atoms in a ring and one above and below."""
        angle = torch.arange(5, dtype=torch.float64) * 2 * math.pi / 5
        x = torch.cat(
            [
                torch.stack([angle.cos(), angle.sin(), torch.zeros(5, dtype=torch.float64)], 1) * 0.95,
                torch.tensor([[0, 0, 0.55], [0, 0, -0.55]], dtype=torch.float64),
            ]
        ).flatten()
        surface = LennardJones()
        # Two free lengths by symmetry, the radius and the height: Newton on their gradient, differences for its derivative.
        basis = torch.stack([torch.cat([x[:15], torch.zeros(6)]) / 0.95, torch.cat([torch.zeros(15), x[15:]]) / 0.55], 1)
        lengths = torch.tensor([0.95, 0.55], dtype=torch.float64)
        for _ in range(30):
            slope = basis.mT @ surface(basis @ lengths)[1]
            h = 1e-6
            columns = [(basis.mT @ surface(basis @ (lengths + h * e))[1] - slope) / h for e in torch.eye(2, dtype=torch.float64)]
            lengths = lengths - torch.linalg.solve(torch.stack(columns, 1), slope)
        return basis @ lengths


__all__ = ["LennardJones", "MullerBrown"]
