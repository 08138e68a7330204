"""Rotations and reflections of the plane."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from discrepancy._validate import whole_number
from discrepancy.groups.group import FiniteGroup


def _circle(k: int, m: int) -> tuple[float, float]:
    """Cosine and sine of 2 pi k / m; exact at quarter turns, where rounding would make an exact symmetry a rough one."""
    if 4 * k % m == 0:
        return ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))[4 * k // m % 4]
    return math.cos(2 * math.pi * k / m), math.sin(2 * math.pi * k / m)


def _rotated(x: Tensor, cosine: float, sine: float) -> Tensor:
    u, v = x[..., 0], x[..., 1]
    return torch.stack([cosine * u - sine * v, sine * u + cosine * v], -1)


@dataclass(frozen=True)
class Cyclic(FiniteGroup):
    """The rotations of the plane about the origin by multiples of 2 pi / m.

    A large m stands in for all rotations: for a smooth function the mean over m of them is that over the circle up to an error
    that falls faster than any power of m.
    """

    m: int

    def __post_init__(self) -> None:
        """Raise ValueError unless m is a whole number of at least 1."""
        whole_number(self.m, 1, "m")

    @property
    def order(self) -> int:
        """m."""
        return self.m

    @property
    def dimension(self) -> int:
        """2."""
        return 2

    def act(self, k: int, x: Tensor) -> Tensor:
        """Rotation by 2 pi k / m."""
        return x if k == 0 else _rotated(x, *_circle(k, self.m))

    def inverse(self, k: int, x: Tensor) -> Tensor:
        """Rotation by -2 pi k / m."""
        cosine, sine = _circle(k, self.m)
        return x if k == 0 else _rotated(x, cosine, -sine)


@dataclass(frozen=True)
class Dihedral(FiniteGroup):
    """The symmetries of a regular m-gon about the origin: the m rotations, and each after the reflection (u, v) -> (u, -v)."""

    m: int

    def __post_init__(self) -> None:
        """Raise ValueError unless m is a whole number of at least 1."""
        whole_number(self.m, 1, "m")

    @property
    def order(self) -> int:
        """2 m."""
        return 2 * self.m

    @property
    def dimension(self) -> int:
        """2."""
        return 2

    def act(self, k: int, x: Tensor) -> Tensor:
        """Rotation by 2 pi k / m for k < m; after that the reflections."""
        if k == 0:
            return x
        mirrored = x if k < self.m else torch.stack([x[..., 0], -x[..., 1]], -1)
        return _rotated(mirrored, *_circle(k % self.m, self.m))

    def inverse(self, k: int, x: Tensor) -> Tensor:
        """The rotation back; a reflection undoes itself."""
        if k >= self.m:
            return self.act(k, x)
        cosine, sine = _circle(k, self.m)
        return x if k == 0 else _rotated(x, cosine, -sine)


__all__ = ["Cyclic", "Dihedral"]
