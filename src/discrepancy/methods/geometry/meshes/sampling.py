"""Points drawn from a surface, uniformly by area."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from discrepancy._results import Result
from discrepancy._validate import generator_or_default
from discrepancy.methods.geometry.meshes.mesh import Mesh, as_mesh


@dataclass(frozen=True, repr=False)
class SurfacePoints(Result):
    """Points on a surface: `points` (n, 3), the `faces` (n,) that they lie on, the unit `normals` (n, 3) there, and their
    `barycentric` coordinates (n, 3) on the face."""

    points: Float[Tensor, "n 3"]
    faces: Int[Tensor, " n"]
    normals: Float[Tensor, "n 3"]
    barycentric: Float[Tensor, "n 3"]


def sample_surface(mesh: Any, count: int, *, generator: torch.Generator | None = None) -> SurfacePoints:
    """`count` independent points, uniform on the surface of a mesh.

    Points move with the vertices (barycentric coordinates held fixed), so that gradients reach them; the choice of faces has no
    gradient. Raises ValueError for a count below 1 and for a surface without area. Time F + n log F.
    """
    surface = as_mesh(mesh)
    check_points(count)
    cumulative = _areas(surface).double().cumsum(0)
    total = float(cumulative[-1])
    if not total > 0:
        raise ValueError("mesh has no area: all its faces are degenerate, and there is nowhere to draw points")
    source = generator_or_default(generator, surface.vertices.device)
    # Drawn in float64, so that one state means the same points in either precision.
    u = torch.rand(count, 3, generator=source, dtype=torch.float64, device=source.device).to(surface.vertices.device)
    faces = torch.searchsorted(cumulative, u[:, 0].contiguous() * total, right=True).clamp_max(len(cumulative) - 1)
    # The root spreads uniformly over the triangle: shares of area grow with the square of the distance from the first corner.
    reach, turn = u[:, 1].sqrt(), u[:, 2]
    barycentric = torch.stack([1 - reach, reach * (1 - turn), reach * turn], -1).to(surface.vertices.dtype)
    points = (barycentric[..., None] * surface.corners()[faces]).sum(1)
    return SurfacePoints(points, faces, surface.normals()[faces], barycentric)


def _areas(surface: Mesh) -> Tensor:
    return surface.detached().areas()


def check_points(count: int) -> None:
    """Raise ValueError unless count is a whole number of at least 1."""
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(f"the number of points must be a whole number of at least 1, got {count!r}")


__all__ = ["SurfacePoints", "check_points", "sample_surface"]
