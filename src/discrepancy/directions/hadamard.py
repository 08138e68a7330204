"""Directions from Walsh-Hadamard transforms: nearly uniform, and cheap in high dimension."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._validate import whole_number
from discrepancy.directions.base import Directions, check_count
from discrepancy.directions.walsh_hadamard import hadamard_transform, next_power_of_two


@dataclass(frozen=True)
class Hadamard(Directions):
    """Rows of products of random sign flips and Walsh-Hadamard transforms: nearly uniform, in d log d each.

    With K the next power of two after d, a rotation is a product of `blocks` factors H D of size K; its first d columns,
    normalised row by row, give up to K directions. With one block every entry is +-1/sqrt(K); two make each coordinate nearly
    Gaussian, three the more so in low dimension. Their second moment is exactly I/d when d is a power of two (else within the
    fluctuation of the row norms); the law is uniform only in the limit of large d (for d = 2 it has 4 axes): prefer
    `Orthogonal` below a few hundred dimensions. Source: Zilca and Mendelson (2026).
    """

    count: int = 100
    blocks: int = 3

    def __post_init__(self) -> None:
        """Raise ValueError unless count >= 1 and blocks >= 1."""
        check_count(self.count)
        whole_number(self.blocks, 1, "blocks")

    def _draw(self, d: int, generator: torch.Generator) -> Tensor:
        size = next_power_of_two(d)
        rotations = -(-self.count // size)
        shape = (rotations, self.blocks, size)
        signs = torch.randint(0, 2, shape, generator=generator, device=generator.device).double() * 2 - 1
        rows = torch.eye(size, dtype=torch.float64, device=generator.device).expand(rotations, size, size)
        for k in range(self.blocks):  # row i of the product is e_i H D1 H D2 ...
            rows = hadamard_transform(rows) * signs[:, k, None, :]
        z = rows[..., :d].reshape(-1, d)[: self.count]
        length = torch.linalg.vector_norm(z, dim=-1, keepdim=True)
        # A row may vanish on the first d columns (d = 1 and size 1 cannot): the first axis stands in for it.
        first = torch.zeros_like(z)
        first[:, 0] = 1.0
        return torch.where(length > 1e-12, z / torch.where(length > 1e-12, length, torch.ones_like(length)), first)


__all__ = ["Hadamard"]
