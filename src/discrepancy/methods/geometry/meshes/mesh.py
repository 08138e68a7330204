"""The triangle mesh: vertices, faces, and what each face measures."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from discrepancy._validate import as_tensor, require_finite
from discrepancy.methods.geometry.meshes.topology import (
    Topology,
    edges,
    inconsistent_edges,
    neighbouring_faces,
    topology_of,
)

# A face below this share of the squared diagonal of the mesh's box has no direction that rounding leaves alone.
DEGENERATE = 1e-12
_OF_FACES = ("edges", "neighbours", "topology")


class MeshWarning(UserWarning):
    """A mesh can be used, and something about it is not as it should be; the message says what that will do."""


@dataclass(frozen=True, eq=False)
class Mesh:
    """A triangle mesh in space: `vertices` (N, 3) and `faces` (F, 3), whose rows number the three corners of a triangle.

    Seen from outside, corners run anticlockwise: the normal of (v0, v1, v2) is that of (v1 - v0) x (v2 - v0). Vertices keep
    their precision, device and gradient. Open surfaces, several pieces and unused vertices are fine.

    Raises ValueError for vertices that are no (N, 3) array, empty or not finite, and faces that are empty, not triangles or
    number vertices that are not there; TypeError for faces that are no whole numbers. Warns (`MeshWarning`) of neighbouring
    faces that look to different sides, since their normals contradict each other, and of faces without area.
    """

    vertices: Float[Tensor, "n 3"]
    faces: Int[Tensor, "f 3"]

    def __post_init__(self) -> None:
        """Check vertices and faces, and bring them to tensors."""
        vertices, faces = _checked_vertices(self.vertices), _checked_faces(self.faces)
        faces = faces.to(vertices.device)
        low, high = int(faces.min()), int(faces.max())
        if low < 0 or high >= len(vertices):
            wrong = low if low < 0 else high
            raise ValueError(f"faces must number vertices 0 to {len(vertices) - 1}, got {wrong}")
        object.__setattr__(self, "vertices", vertices)
        object.__setattr__(self, "faces", faces)
        contradicting = len(inconsistent_edges(faces))
        if contradicting:
            warnings.warn(
                f"{contradicting} edge(s) are run through twice in one direction: neighbouring faces look to different sides "
                "there, and oriented normals contradict each other; turn the faces so that all are anticlockwise from outside",
                MeshWarning,
                stacklevel=3,
            )
        flat = int((~self.solid).sum())
        if flat:
            warnings.warn(
                f"{flat} of {len(faces)} faces have no area: they carry no measure and are dropped from it",
                MeshWarning,
                stacklevel=3,
            )

    def __repr__(self) -> str:
        return f"Mesh({len(self.vertices)} vertices, {len(self.faces)} faces, {self.vertices.dtype})"

    def moved(self, vertices: Float[Tensor, "n 3"]) -> Mesh:
        """The same faces on other vertices (N, 3). The faces are not checked again, which a loop of deformations is glad of."""
        if vertices.shape != self.vertices.shape:
            raise ValueError(
                f"vertices must be {tuple(self.vertices.shape)}, one for each that there is, got {tuple(vertices.shape)}"
            )
        other = object.__new__(Mesh)
        object.__setattr__(other, "vertices", vertices)
        object.__setattr__(other, "faces", self.faces)
        # What the faces alone determine is computed once for all deformations.
        other.__dict__.update({name: self.__dict__[name] for name in _OF_FACES if name in self.__dict__})
        return other

    def detached(self) -> Mesh:
        """The mesh without its gradient."""
        return self.moved(self.vertices.detach())

    def corners(self) -> Float[Tensor, "f 3 3"]:
        """The corners' coordinates: face, corner, axis."""
        return self.vertices[self.faces]

    def area_vectors(self) -> Float[Tensor, "f 3"]:
        """(v1 - v0) x (v2 - v0) / 2: as long as the face is large, along its normal; smooth also where the area is zero."""
        a, b, c = self.corners().unbind(-2)
        return torch.linalg.cross(b - a, c - a) / 2

    def areas(self) -> Float[Tensor, " f"]:
        """The area of each face; its gradient is zero where the area is."""
        return torch.linalg.vector_norm(self.area_vectors(), dim=-1)

    def normals(self) -> Float[Tensor, "f 3"]:
        """The unit normal of each face, zero (with zero gradient) where the area is zero.

        Its gradient grows like 1 / area: a sum over faces should weight it by the area.
        """
        return unit(self.area_vectors())

    def centroids(self) -> Float[Tensor, "f 3"]:
        """The mean of each face's corners."""
        return self.corners().mean(-2)

    def area(self) -> Tensor:
        """The area of the whole surface."""
        return self.areas().sum()

    def volume(self) -> Tensor:
        """The volume that a closed surface encloses, positive where its normals point outward; sum of v0 . (v1 x v2) / 6."""
        a, b, c = (self.corners() - self.vertices.detach().mean(0)).unbind(-2)
        return (a * torch.linalg.cross(b, c)).sum() / 6

    def vertex_areas(self) -> Float[Tensor, " n"]:
        """A third of the area of the faces around each vertex: they sum to the area of the surface."""
        share = (self.areas() / 3).repeat_interleave(3)
        return torch.zeros_like(self.vertices[:, 0]).index_add(0, self.faces.flatten(), share)

    def vertex_normals(self) -> Float[Tensor, "n 3"]:
        """The unit normal at each vertex: that of the sum of the area vectors around it; zero where no face is."""
        share = self.area_vectors().repeat_interleave(3, 0)
        return unit(torch.zeros_like(self.vertices).index_add(0, self.faces.flatten(), share))

    def box(self) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
        """The lowest and the highest corner of the box around the vertices that faces use."""
        used = self.vertices.detach()[self.faces.flatten()]
        return used.amin(0), used.amax(0)

    def diagonal(self) -> float:
        """The length of that box's diagonal."""
        low, high = self.box()
        return float(torch.linalg.vector_norm(high - low))

    @cached_property
    def solid(self) -> Tensor:
        """Which faces (F,) have an area above 1e-12 of the squared diagonal of the box."""
        return self.detached().areas() > DEGENERATE * self.diagonal() ** 2

    @cached_property
    def edges(self) -> Tensor:
        """The undirected edges (E, 2), smaller vertex first."""
        return edges(self.faces)[0]

    @cached_property
    def neighbours(self) -> Tensor:
        """The pairs of faces (E, 2) that share an edge."""
        return neighbouring_faces(self.faces)

    @cached_property
    def topology(self) -> Topology:
        """Edges, borders, orientation, Euler characteristic, pieces."""
        return topology_of(self.faces)


def unit(vectors: Float[Tensor, "... 3"]) -> Float[Tensor, "... 3"]:
    """The vectors at length one; a zero vector stays zero and has gradient zero."""
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return torch.where(length > 0, vectors / torch.where(length > 0, length, torch.ones_like(length)), torch.zeros_like(vectors))


def as_mesh(mesh: Any, name: str = "mesh") -> Mesh:
    """A `Mesh` from a Mesh, from a pair (vertices, faces), or from any object with those two attributes (trimesh's, say).

    Raises TypeError for anything else, and what `Mesh` raises.
    """
    if isinstance(mesh, Mesh):
        return mesh
    if hasattr(mesh, "vertices") and hasattr(mesh, "faces"):
        return Mesh(mesh.vertices, mesh.faces)
    if isinstance(mesh, tuple | list) and len(mesh) == 2:
        return Mesh(mesh[0], mesh[1])
    raise TypeError(
        f"{name} must be a Mesh, a pair (vertices, faces) or an object with these attributes, got {type(mesh).__name__}"
    )


def _checked_vertices(vertices: Any) -> Tensor:
    vertices = as_tensor(vertices, "vertices")
    if vertices.ndim != 2 or vertices.shape[-1] != 3:
        raise ValueError(f"vertices must be points in space of shape (N, 3), got shape {tuple(vertices.shape)}")
    if not len(vertices):
        raise ValueError("vertices is empty: a mesh needs at least three")
    require_finite(vertices, "vertices")
    return vertices


def _checked_faces(faces: Any) -> Tensor:
    given = faces if isinstance(faces, Tensor) else torch.from_numpy(np.array(faces))
    if given.numel() == 0:
        raise ValueError("faces is empty: a surface needs at least one triangle")
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        raise TypeError(f"faces must be whole numbers that number the vertices, got {given.dtype}")
    if given.ndim != 2 or given.shape[-1] != 3:
        what = "quadrilaterals: split each into two triangles" if given.shape[-1:] == (4,) else "no triangles"
        raise ValueError(f"faces must be triangles of shape (F, 3), got shape {tuple(given.shape)}, {what}")
    return given.long()


__all__ = ["DEGENERATE", "Mesh", "MeshWarning", "as_mesh", "unit"]
