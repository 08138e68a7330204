"""Directions from Walsh-Hadamard transforms: nearly uniform, and cheap in high dimension."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy.directions.base import Directions, check_count


def hadamard_transform(x: Tensor) -> Tensor:
    """The orthonormal Walsh-Hadamard transform of the last axis, a power of two, in d log2 d operations."""
    d = x.shape[-1]
    if d & (d - 1):
        raise ValueError(f"the last axis must be a power of two, got {d}")
    shape, h = x.shape, 1
    while h < d:
        pairs = x.reshape(*shape[:-1], d // (2 * h), 2, h)
        left, right = pairs[..., 0, :], pairs[..., 1, :]
        x = torch.stack([left + right, left - right], -2).reshape(shape)
        h *= 2
    return x / math.sqrt(d)


@dataclass(frozen=True)
class Hadamard(Directions):
    """Rows of products of random sign flips and Walsh-Hadamard transforms: nearly uniform, in d log d each.

    With K the next power of two after d, a block is (H D1)(H D2)(H D3) of size K; its first d columns, normalised row by
    row, give up to K directions. Their second moment is exactly I/d when d is a power of two (else within the fluctuation
    of the row norms); the law is uniform only in the limit of large d (for d = 2 it has 4 axes): prefer `Orthogonal` below
    a few hundred dimensions. Source: Zilca and Mendelson (2026).
    """

    count: int = 100

    def __post_init__(self) -> None:
        """Raise ValueError unless count >= 1."""
        check_count(self.count)

    def _draw(self, d: int, generator: torch.Generator) -> Tensor:
        size = 1 << max(d - 1, 0).bit_length()
        blocks = -(-self.count // size)
        signs = torch.randint(0, 2, (blocks, 3, size), generator=generator, device=generator.device).double() * 2 - 1
        rows = torch.eye(size, dtype=torch.float64, device=generator.device).expand(blocks, size, size)
        for k in range(3):  # row i of the product is e_i H D1 H D2 H D3
            rows = hadamard_transform(rows) * signs[:, k, None, :]
        z = rows[..., :d].reshape(-1, d)[: self.count]
        length = torch.linalg.vector_norm(z, dim=-1, keepdim=True)
        # A row may vanish on the first d columns (d = 1 and size 1 cannot): the first axis stands in for it.
        first = torch.zeros_like(z)
        first[:, 0] = 1.0
        return torch.where(length > 1e-12, z / torch.where(length > 1e-12, length, torch.ones_like(length)), first)


__all__ = ["Hadamard", "hadamard_transform"]
