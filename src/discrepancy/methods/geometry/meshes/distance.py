"""Distances from points to a surface, and between two surfaces."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from discrepancy._results import Result
from discrepancy._validate import sample, whole_number
from discrepancy.methods.geometry.meshes.mesh import Mesh, as_mesh
from discrepancy.methods.geometry.meshes.sampling import SurfacePoints, sample_surface
from discrepancy.methods.geometry.meshes.tree import TriangleTree


@dataclass(frozen=True, repr=False)
class SurfaceProjection(Result):
    """Points projected onto a surface: their `distances` (n,), the nearest `points` (n, 3) on it, and the `faces` (n,) that
    those lie on."""

    distances: Float[Tensor, " n"]
    points: Float[Tensor, "n 3"]
    faces: Int[Tensor, " n"]


def project_to_surface(points: Any, mesh: Any) -> SurfaceProjection:
    """The nearest point of a surface to each of the points (n, 3), exactly.

    Differentiable once in the points and in the mesh's vertices: the nearest point keeps its barycentric coordinates, which by
    the envelope theorem is the whole derivative; at distance zero it is zero. Raises ValueError for points that are not in
    space, TypeError for a mesh that is not on the CPU. Time F (log F)^2 for a tree of boxes, then about n log F.
    """
    surface = as_mesh(mesh)
    given = sample(points, "points", like=surface.vertices)
    if given.ndim != 2 or given.shape[-1] != 3:
        raise ValueError(f"points must be of shape (n, 3), got {tuple(given.shape)}")
    return _projected(given, surface, TriangleTree.of(surface))


def _projected(points: Tensor, surface: Mesh, tree: TriangleTree) -> SurfaceProjection:
    if points.device.type != "cpu":
        raise TypeError(f"points are on {points.device} and the surface is searched on the CPU: move them there")
    faces, barycentric = tree.nearest(points)
    near = (barycentric[..., None].to(surface.vertices.dtype) * surface.corners()[faces]).sum(1)
    return SurfaceProjection(torch.linalg.vector_norm(points - near, dim=-1), near, faces)


@dataclass(frozen=True, repr=False)
class SurfaceDistance(Result):
    """How far apart two surfaces are, in units of their coordinates.

    `mean` is the average symmetric surface distance: from points of either to the other surface, both directions averaged,
    with the `standard_error` of its sampling; `root_mean_square` likewise; `hausdorff90` the larger of the two 90 %
    quantiles; `hausdorff` the largest distance seen (a lower bound of the true one). `normal_consistency` is the mean cosine
    between the normals of a point and of its projection: 1 for equal surfaces, -1 for one turned inside out.
    """

    mean: float
    standard_error: float
    root_mean_square: float
    hausdorff90: float
    hausdorff: float
    normal_consistency: float
    points: int


def surface_distance(
    first: Any, second: Any, *, points: int = 20_000, generator: torch.Generator | None = None
) -> SurfaceDistance:
    """The distance between two surfaces from `points` area-uniform points of each, projected onto the other one exactly.

    Unlike distances between two sampled clouds it is zero for equal surfaces, whatever their triangles. Raises ValueError for
    fewer than two points and for surfaces without area. Time (F + n) log F; no gradients.
    """
    whole_number(points, 2, "points")
    a, b = as_mesh(first, "first").detached(), as_mesh(second, "second").detached()
    distances, cosines = zip(
        *(_one_way(sample_surface(s, points, generator=generator), t) for s, t in ((a, b), (b, a))), strict=True
    )
    means = [float(d.mean()) for d in distances]
    return SurfaceDistance(
        mean=sum(means) / 2,
        standard_error=math.sqrt(sum(float(d.var()) / points for d in distances)) / 2,
        root_mean_square=math.sqrt(sum(float(d.square().mean()) for d in distances) / 2),
        hausdorff90=max(float(torch.quantile(d, 0.9)) for d in distances),
        hausdorff=max(float(d.max()) for d in distances),
        normal_consistency=sum(float(c.mean()) for c in cosines) / 2,
        points=points,
    )


def _one_way(points: SurfacePoints, surface: Mesh) -> tuple[Tensor, Tensor]:
    found = _projected(points.points, surface, TriangleTree.of(surface))
    return found.distances.double(), (points.normals * surface.normals()[found.faces]).sum(-1).double()


__all__ = ["SurfaceDistance", "SurfaceProjection", "project_to_surface", "surface_distance"]
