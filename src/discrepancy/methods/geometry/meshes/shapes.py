"""Analytic surfaces as meshes: truths for tests and recipes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from discrepancy._validate import whole_number
from discrepancy.methods.geometry.meshes.mesh import Mesh, unit
from discrepancy.methods.geometry.meshes.topology import directed_edges, distinct_pairs


def icosphere(subdivisions: int = 3, radius: float = 1.0, *, dtype: torch.dtype | None = None) -> Mesh:
    """The sphere from an icosahedron whose faces are split into four, `subdivisions` times: 10 * 4^k + 2 vertices, 20 * 4^k
    faces.

    Vertices lie on the sphere, normals point outward. Raises ValueError for a negative or fractional number of subdivisions.
    """
    whole_number(subdivisions, 0, "subdivisions")
    phi = (1 + math.sqrt(5)) / 2
    ring = [(-1.0, phi), (1.0, phi), (-1.0, -phi), (1.0, -phi)]
    corners = [(x, y, 0.0) for x, y in ring] + [(0.0, x, y) for x, y in ring] + [(y, 0.0, x) for x, y in ring]
    faces = torch.tensor(
        [
            *[(0, 11, 5), (0, 5, 1), (0, 1, 7), (0, 7, 10), (0, 10, 11)],
            *[(1, 5, 9), (5, 11, 4), (11, 10, 2), (10, 7, 6), (7, 1, 8)],
            *[(3, 9, 4), (3, 4, 2), (3, 2, 6), (3, 6, 8), (3, 8, 9)],
            *[(4, 9, 5), (2, 4, 11), (6, 2, 10), (8, 6, 7), (9, 8, 1)],
        ]
    )
    vertices = unit(torch.tensor(corners, dtype=torch.float64))
    for _ in range(subdivisions):
        vertices, faces = _split(vertices, faces)
        vertices = unit(vertices)
    return Mesh((radius * vertices).to(dtype or torch.get_default_dtype()), faces)


def _split(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Each face into four by the midpoints of its edges."""
    pairs = directed_edges(faces).sort(-1).values
    edges, where, _ = distinct_pairs(pairs)
    middle = (where + len(vertices)).reshape(3, -1)  # of the edges 01, 12, 20 of every face
    a, b, c = faces.T
    ab, bc, ca = middle
    four = [torch.stack(corner, -1) for corner in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))]
    return torch.cat([vertices, vertices[edges].mean(1)]), torch.stack(four, 1).reshape(-1, 3)


def subdivided(mesh: Mesh) -> Mesh:
    """The same surface with every face split into four by the midpoints of its edges."""
    return Mesh(*_split(mesh.vertices, mesh.faces))


def coarsened(mesh: Mesh) -> Mesh:
    """The mesh that `subdivided` made this one from: every four faces become one, and its corners stay where they are.

    For surfaces built by splitting faces whose older vertices are numbered first, which those of FreeSurfer (fsaverage5 from
    fsaverage4) and `icosphere` are, whatever was done to their vertices since. Raises ValueError for other triangulations.
    """
    # Splitting adds a vertex an edge, and a closed surface has 3 (V - euler) edges.
    total = len(mesh.vertices) + 3 * mesh.topology.euler
    refused = ValueError(f"{mesh!r} is no mesh whose faces were split into four, with the older vertices numbered first")
    old, faces = total // 4, mesh.faces
    new = faces >= old
    middle = new.all(-1)
    # A fourth of the faces join three midpoints; each other one has a single old corner, opposite a side of its middle face.
    if not mesh.topology.closed or total % 4 or 4 * int(middle.sum()) != len(faces) or not bool((new.sum(-1) >= 2).all()):
        raise refused
    outer = faces[~middle]
    place = (~new[~middle]).long().argmax(-1)
    corner, one, two = (outer.gather(1, ((place + k) % 3)[:, None])[:, 0] for k in range(3))
    base = len(mesh.vertices)
    key, order = (one * base + two).sort()
    # The outer face runs through the common side in the opposite direction.
    sides = [faces[middle][:, [(k + 1) % 3, k]] for k in range(3)]
    wanted = torch.stack([a * base + b for a, b in (side.T for side in sides)], -1)
    where = torch.searchsorted(key, wanted).clamp_max(len(key) - 1)
    if not torch.equal(key[where], wanted):
        raise refused
    return Mesh(mesh.vertices[:old], corner[order][where])


def radial(radius: Callable[[Tensor], Tensor], subdivisions: int = 3, *, dtype: torch.dtype | None = None) -> Mesh:
    """The star-shaped surface {r(u) u}: `radius` takes unit vectors (N, 3) in float64 and returns (N,)."""
    sphere = icosphere(subdivisions, dtype=torch.float64)
    vertices = radius(sphere.vertices)[:, None] * sphere.vertices
    return sphere.moved(vertices.to(dtype or torch.get_default_dtype()))


def ellipsoid(axes: Sequence[float] = (1.0, 0.7, 0.5), subdivisions: int = 3, *, dtype: torch.dtype | None = None) -> Mesh:
    """The sphere stretched along the three axes."""
    sphere = icosphere(subdivisions, dtype=torch.float64)
    return sphere.moved((sphere.vertices * torch.tensor(axes, dtype=torch.float64)).to(dtype or torch.get_default_dtype()))


def bumpy_sphere(height: float = 0.25, subdivisions: int = 3, *, dtype: torch.dtype | None = None) -> Mesh:
    """r = 1 + height * x y z / max(x y z): the real spherical harmonic of degree 3 and order 2, scaled to run over [-1, 1]."""
    return radial(lambda u: 1 + height * 3 * math.sqrt(3) * u.prod(-1), subdivisions, dtype=dtype)


def folded_sphere(depth: float = 0.2, folds: int = 6, subdivisions: int = 3, *, dtype: torch.dtype | None = None) -> Mesh:
    """r = 1 + depth cos(folds * azimuth) sin(polar angle)^3: meridian folds like those of a cortex."""

    def radius(u: Tensor) -> Tensor:
        return 1 + depth * torch.cos(folds * torch.atan2(u[:, 1], u[:, 0])) * torch.linalg.vector_norm(u[:, :2], dim=-1) ** 3

    return radial(radius, subdivisions, dtype=dtype)


def _grid(rows: int, columns: int, around_rows: bool, around_columns: bool) -> Tensor:
    """The faces of a grid of rows x columns vertices, numbered row by row, joined up around an axis where said so."""
    i = torch.arange(rows if around_rows else rows - 1)[:, None]
    j = torch.arange(columns if around_columns else columns - 1)[None]
    corner = [((i + di) % rows) * columns + (j + dj) % columns for di, dj in ((0, 0), (1, 0), (1, 1), (0, 1))]
    halves = [torch.stack([corner[k].flatten() for k in ks], -1) for ks in ((0, 1, 2), (0, 2, 3))]
    return torch.stack(halves, 1).reshape(-1, 3)


def torus(major: float = 1.0, minor: float = 0.4, rows: int = 48, columns: int = 24, *, dtype: torch.dtype | None = None) -> Mesh:
    """The torus around the z axis: `rows` vertices around it, `columns` around the tube; genus 1."""
    u = 2 * math.pi * torch.arange(rows, dtype=torch.float64)[:, None] / rows
    v = 2 * math.pi * torch.arange(columns, dtype=torch.float64)[None] / columns
    reach = major + minor * torch.cos(v)
    points = torch.stack(torch.broadcast_tensors(reach * torch.cos(u), reach * torch.sin(u), minor * torch.sin(v)), -1)
    return Mesh(points.reshape(-1, 3).to(dtype or torch.get_default_dtype()), _grid(rows, columns, True, True))


def sheet(rows: int = 11, columns: int = 11, *, dtype: torch.dtype | None = None) -> Mesh:
    """The unit square in the plane z = 0, an open surface with normal +z."""
    x = torch.linspace(0, 1, rows, dtype=torch.float64)[:, None].expand(rows, columns)
    y = torch.linspace(0, 1, columns, dtype=torch.float64)[None].expand(rows, columns)
    points = torch.stack([x, y, torch.zeros_like(x)], -1).reshape(-1, 3)
    return Mesh(points.to(dtype or torch.get_default_dtype()), _grid(rows, columns, False, False))


__all__ = ["bumpy_sphere", "coarsened", "ellipsoid", "folded_sphere", "icosphere", "radial", "sheet", "subdivided", "torus"]
