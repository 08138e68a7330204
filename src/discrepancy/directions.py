"""Directions on the unit sphere: along which lines the sliced discrepancies look.

Each object draws L directions in d dimensions. Every single direction is uniform on the sphere (for `Hadamard`, nearly so),
hence a mean over them is unbiased; only independent ones give a valid standard error. Numbers are drawn in float64 and then
cast, so that one generator state means the same directions in either precision.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from discrepancy._validate import generator_or_default


def _check_count(count: int) -> None:
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(f"count must be a whole number of directions, at least 1, got {count!r}")


class Directions(ABC):
    """A way to draw `count` directions; `independent` says whether a standard error over them is valid."""

    independent: ClassVar[bool] = False
    count: int

    def draw(
        self,
        d: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Unit vectors of shape (count, d)."""
        if d < 1:
            raise ValueError(f"d must be at least 1, got {d}")
        source = generator_or_default(generator, device)
        return self._draw(d, source).to(device=device, dtype=dtype)

    @abstractmethod
    def _draw(self, d: int, generator: torch.Generator) -> Tensor:
        """The directions in float64, on the generator's device."""


def _gaussian(rows: int, d: int, generator: torch.Generator) -> Tensor:
    return torch.randn(rows, d, generator=generator, dtype=torch.float64, device=generator.device)


@dataclass(frozen=True)
class Uniform(Directions):
    """Independent directions, uniform on the sphere: normalised Gaussians."""

    count: int = 100
    independent = True

    def __post_init__(self) -> None:
        """Raise ValueError unless count >= 1."""
        _check_count(self.count)

    def _draw(self, d: int, generator: torch.Generator) -> Tensor:
        z = _gaussian(self.count, d, generator)
        return z / torch.linalg.vector_norm(z, dim=-1, keepdim=True)


def _haar(d: int, blocks: int, generator: torch.Generator) -> Tensor:
    """Independent Haar rotations (blocks, d, d): Q of a Gaussian matrix, with the signs of R's diagonal moved into it."""
    z = torch.randn(blocks, d, d, generator=generator, dtype=torch.float64, device=generator.device)
    q, r = torch.linalg.qr(z)
    return q * torch.sign(torch.diagonal(r, dim1=-2, dim2=-1))[..., None, :]


@dataclass(frozen=True)
class Orthogonal(Directions):
    """Rows of independent random rotations: each d in a row are orthogonal, which spreads them evenly.

    Uniform one by one, dependent within a block. Cost: count d^2. Source: Rowland, Hron, Tang, Choromanski, Sarlos and Weller
    (2019).
    """

    count: int = 100

    def __post_init__(self) -> None:
        """Raise ValueError unless count >= 1."""
        _check_count(self.count)

    def _draw(self, d: int, generator: torch.Generator) -> Tensor:
        return _haar(d, -(-self.count // d), generator).reshape(-1, d)[: self.count]


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
        _check_count(self.count)

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
            return spiral @ _haar(3, 1, generator)[0]
        seed = int(torch.randint(2**31 - 1, (), generator=generator, device=generator.device))
        u = torch.quasirandom.SobolEngine(d, scramble=True, seed=seed).draw(n, dtype=torch.float64)
        # The grid has cells of width 2^-30 and contains 0: from the middle of a cell the quantile is finite.
        z = torch.special.ndtri(u + 2.0**-31).to(generator.device)
        return z / torch.linalg.vector_norm(z, dim=-1, keepdim=True)


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
        _check_count(self.count)

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


__all__ = ["Directions", "Hadamard", "Orthogonal", "QuasiMonteCarlo", "Uniform", "hadamard_transform"]
