"""Surfaces as probability measures, so that any discrepancy between samples compares them."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from discrepancy._results import Result
from discrepancy._validate import at_least
from discrepancy.methods.geometry.meshes.mesh import Mesh, MeshWarning, as_mesh
from discrepancy.methods.geometry.meshes.sampling import check_points, sample_surface


@dataclass(frozen=True, repr=False)
class MeshMeasure(Result):
    """A surface as weighted points: `points` (n, d), `weights` (n,) that sum to one or None where equal, the `area` that was
    divided out, and how many faces without area were `dropped`."""

    points: Float[Tensor, "n d"]
    weights: Float[Tensor, " n"] | None
    area: Tensor
    dropped: int


class Encoding(ABC):
    """A way to read a surface as a probability measure; `random` says whether it draws points."""

    random: ClassVar[bool] = False

    def __call__(self, mesh: Any, *, generator: torch.Generator | None = None) -> MeshMeasure:
        """The measure of a mesh, differentiable in its vertices. Raises ValueError for a surface without area."""
        surface = as_mesh(mesh)
        solid = surface.solid
        dropped = int((~solid).sum())
        if dropped == len(solid):
            raise ValueError("mesh has no area: all its faces are degenerate, and there is nothing to measure")
        return self._encode(surface, solid if dropped else None, dropped, generator)

    @abstractmethod
    def _encode(self, mesh: Mesh, solid: Tensor | None, dropped: int, generator: torch.Generator | None) -> MeshMeasure:
        """The measure of the faces where `solid` (F,), all if None."""


def _kept(values: Tensor, solid: Tensor | None) -> Tensor:
    return values if solid is None else values[solid]


@dataclass(frozen=True)
class Varifold(Encoding):
    """The oriented varifold: each face is one point (centroid, gamma * unit normal) in R^6, weighted by its share of the area.

    mu = sum_f (s_f / S) delta_(c_f, gamma n_f). Nothing is drawn and no number of points is chosen; two sheets that lie on each
    other and look to opposite sides are far apart. `normal_weight` gamma is in units of the positions: it sets what share of the
    distance between two faces is due to their normals (opposite ones are 2 gamma apart), so that positions should be of order
    one for the default. A normal's gradient grows like 1 / area, its weight like the area, and their product stays bounded.
    Time and memory linear in the faces. Source: Le, Nguyen, Sun, Han, Ho and Xie (2024); varifolds of surfaces: Charon and
    Trouve (2013).
    """

    normal_weight: float = 1.0
    references: ClassVar[tuple[str, ...]] = ("diffeomorphic-mesh", "charon-trouve-2013")

    def __post_init__(self) -> None:
        """Raise ValueError unless normal_weight >= 0."""
        at_least(self.normal_weight, 0.0, "normal_weight")

    def _encode(self, mesh: Mesh, solid: Tensor | None, dropped: int, generator: torch.Generator | None) -> MeshMeasure:
        areas = _kept(mesh.areas(), solid)
        area = areas.sum()
        points = torch.cat([mesh.centroids(), self.normal_weight * mesh.normals()], -1)
        return MeshMeasure(_kept(points, solid), areas / area, area, dropped)


@dataclass(frozen=True)
class SurfaceMeasure(Encoding):
    """The normalised area measure: each face is one point at its centroid in R^3, weighted by its share of the area."""

    def _encode(self, mesh: Mesh, solid: Tensor | None, dropped: int, generator: torch.Generator | None) -> MeshMeasure:
        areas = _kept(mesh.areas(), solid)
        area = areas.sum()
        return MeshMeasure(_kept(mesh.centroids(), solid), areas / area, area, dropped)


@dataclass(frozen=True)
class SampledPoints(Encoding):
    """`count` points drawn uniformly by area, equally weighted: the set that Chamfer losses compare.

    Gradients move the points with the vertices; the share of points that a growing face receives has none.
    """

    count: int = 5000
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Raise ValueError unless count >= 1."""
        check_points(self.count)

    def _encode(self, mesh: Mesh, solid: Tensor | None, dropped: int, generator: torch.Generator | None) -> MeshMeasure:
        drawn = sample_surface(mesh, self.count, generator=generator)
        return MeshMeasure(drawn.points, None, mesh.area(), dropped)


def mesh_to_measure(mesh: Any, encoding: Encoding | None = None, *, generator: torch.Generator | None = None) -> MeshMeasure:
    """A mesh as a weighted sample: its oriented varifold unless another encoding is given.

    Raises TypeError for what is no encoding, ValueError for a surface without area.
    """
    return check_encoding(encoding)(mesh, generator=generator)


def check_encoding(encoding: Encoding | None) -> Encoding:
    """The encoding, the default for None; TypeError for what is none."""
    if encoding is None:
        return Varifold()
    if not isinstance(encoding, Encoding):
        raise TypeError(f"encoding must be Varifold(), SurfaceMeasure() or SampledPoints(n), got {encoding!r}")
    return encoding


def warn_of_mismatch(first: Mesh, second: Mesh) -> None:
    """Warn (`MeshWarning`) of two meshes of scales more than ten times apart, and of closed ones turned inside out."""
    sizes = first.diagonal(), second.diagonal()
    if max(sizes) > 10 * min(sizes):
        warnings.warn(
            f"the meshes' boxes have diagonals {sizes[0]:.3g} and {sizes[1]:.3g}, more than ten times apart: "
            "are their units the same?",
            MeshWarning,
            stacklevel=3,
        )
    if first.topology.closed and second.topology.closed:
        inside, outside = (float(m.detached().volume()) for m in (first, second))
        if inside * outside < 0:
            warnings.warn(
                "one mesh's normals point outward and the other's inward: turn one by faces.flip(-1)", MeshWarning, stacklevel=3
            )


__all__ = [
    "Encoding",
    "MeshMeasure",
    "SampledPoints",
    "SurfaceMeasure",
    "Varifold",
    "check_encoding",
    "mesh_to_measure",
    "warn_of_mismatch",
]
