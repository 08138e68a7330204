"""Synthetic point clouds: points on six shapes, each cloud stretched and turned at random."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from discrepancy._validate import generator_or_default, whole_number


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=torch.float64, device=generator.device)


def _gaussian(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device)


def _sphere(n: int, g: torch.Generator) -> Tensor:
    z = _gaussian((n, 3), g)
    return z / torch.linalg.vector_norm(z, dim=-1, keepdim=True)


def _cube(n: int, g: torch.Generator) -> Tensor:
    points = 2 * _uniform((n, 3), g) - 1
    face = torch.randint(6, (n,), generator=g, device=g.device)
    return points.scatter(1, (face % 3)[:, None], (2.0 * (face // 3) - 1)[:, None].double())


def _torus(n: int, g: torch.Generator) -> Tensor:
    """Radii 1 and 0.35, uniform by area: of two tube angles drawn, the one kept with chance proportional to its circle."""
    kept = torch.empty(0, dtype=torch.float64, device=g.device)
    while len(kept) < n:
        v = 2 * math.pi * _uniform((2 * n,), g)
        kept = torch.cat([kept, v[_uniform((2 * n,), g) < (1 + 0.35 * v.cos()) / 1.35]])
    v, u = kept[:n], 2 * math.pi * _uniform((n,), g)
    ring = 1 + 0.35 * v.cos()
    return torch.stack([ring * u.cos(), ring * u.sin(), 0.35 * v.sin()], -1)


def _cylinder(n: int, g: torch.Generator) -> Tensor:
    u = 2 * math.pi * _uniform((n,), g)
    return torch.stack([0.6 * u.cos(), 0.6 * u.sin(), 2 * _uniform((n,), g) - 1], -1)


def _two_blobs(n: int, g: torch.Generator) -> Tensor:
    side = 2.0 * torch.randint(2, (n,), generator=g, device=g.device) - 1
    points = 0.25 * _gaussian((n, 3), g)
    points[:, 0] += 0.8 * side
    return points


def _helix(n: int, g: torch.Generator) -> Tensor:
    t = _uniform((n,), g)
    angle = 4 * math.pi * t
    return torch.stack([0.7 * angle.cos(), 0.7 * angle.sin(), 2 * t - 1], -1) + 0.03 * _gaussian((n, 3), g)


_SHAPES: dict[str, Callable[[int, torch.Generator], Tensor]] = {
    "sphere": _sphere,
    "cube": _cube,
    "torus": _torus,
    "cylinder": _cylinder,
    "two blobs": _two_blobs,
    "helix": _helix,
}
SHAPES = tuple(_SHAPES)


def shape_clouds(
    count: int, points: int, *, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Clouds (count, points, 3), about one unit wide, and the index (count,) of each one's shape in `SHAPES`, taken in turn.

    Each cloud is stretched along its axes by factors uniform on [0.5, 1.2], then turned by a random rotation; spheres, cubes,
    tori and cylinders are sampled uniformly by area before the stretch. Raises ValueError unless both numbers are at least 1.
    """
    for name, value in (("count", count), ("points", points)):
        whole_number(value, 1, name)
    source = generator_or_default(generator)
    labels = torch.arange(count) % len(_SHAPES)
    clouds = torch.stack([_SHAPES[SHAPES[int(k)]](points, source) for k in labels])
    stretch = 0.5 + 0.7 * _uniform((count, 1, 3), source)
    q, r = torch.linalg.qr(_gaussian((count, 3, 3), source))
    q = q * torch.diagonal(r, dim1=-2, dim2=-1).sign()[:, None, :]
    return ((clouds * stretch) @ q).to(dtype), labels


__all__ = ["SHAPES", "shape_clouds"]
