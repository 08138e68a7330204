"""The cotangent Laplacian of a triangle mesh, and what becomes of meshes that are not quite surfaces."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from discrepancy.methods.geometry.laplacians.operator import Operator
from discrepancy.methods.geometry.meshes import Mesh, MeshWarning


@dataclass(frozen=True, eq=False)
class Surface:
    """The part of a mesh that has area: its `operator`, and for each vertex of the mesh which of the operator's points it is
    (`index`, (N,)) and its `share` (N,) of that point's mass. `area` is that of the surface as it came."""

    operator: Operator
    index: np.ndarray
    share: np.ndarray
    area: float


def cotangent_operator(mesh: Mesh, *, normalize: bool = True) -> Surface:
    """The linear finite elements' Laplacian: S_ij = -(cot a_ij + cot b_ij) / 2 for the angles opposite the edge ij, M_i a third
    of the area around vertex i (lumped).

    With `normalize` the area is scaled to one, so that shapes of different size compare (S does not change: in two dimensions
    the Dirichlet energy has no units). What is no surface is repaired, with one `MeshWarning` each: vertices at the same place
    are welded; faces without area and repeated faces are dropped; vertices that then belong to no face take the values of the
    nearest one that does, with mass zero; at edges of three or more faces all sheets are joined.
    Raises ValueError for a mesh without area. Time F log F, linear memory.
    Source: Pinkall and Polthier (1993); Meyer et al. (2003).
    """
    vertices = mesh.vertices.detach().cpu().double().numpy()
    faces = mesh.faces.cpu().numpy()
    # In a box of size one, wherever it lies: the cotangents do not know the difference, rounding does.
    centred = vertices - vertices.mean(0)
    size = max(float(np.abs(centred).max()), np.finfo(float).tiny)
    points, welded = np.unique(centred / size + 0.0, axis=0, return_inverse=True)  # a negative zero is zero
    welded = welded.reshape(-1)
    if len(points) < len(vertices):
        _warn(f"{len(vertices) - len(points)} of {len(vertices)} vertices lie where others do: they are welded to them")
    faces = _proper(welded[faces], points)
    if not len(faces):
        raise ValueError("the mesh has no face of positive area")
    used, numbers = np.unique(faces, return_inverse=True)
    faces, points_used = numbers.reshape(-1, 3), points[used]
    stiffness, mass = _assembled(points_used, faces)
    index, share = _positions(points, used, welded)
    area = float(mass.sum())
    return Surface(Operator(stiffness, mass / area if normalize else mass * size**2), index, share, area * size**2)


def _warn(message: str) -> None:
    warnings.warn(message, MeshWarning, stacklevel=4)


def _proper(faces: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The faces with area, each once; edges with three or more faces are said."""
    a, b, c = points[faces].transpose(1, 0, 2)
    doubled = np.linalg.norm(np.cross(b - a, c - a), axis=-1)
    longest = np.max([((b - a) ** 2).sum(-1), ((c - b) ** 2).sum(-1), ((a - c) ** 2).sum(-1)], axis=0)
    # Below this ratio of height to length the cotangents are rounding.
    solid = doubled > 1e-10 * longest
    if not solid.all():
        _warn(f"{int((~solid).sum())} of {len(faces)} faces have no area and are dropped")
    faces = faces[solid]
    _, first = np.unique(np.sort(faces, -1), axis=0, return_index=True)
    if len(first) < len(faces):
        _warn(f"{len(faces) - len(first)} faces are there more than once and are dropped")
        faces = faces[np.sort(first)]
    pairs = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), -1)
    _, counts = np.unique(pairs, axis=0, return_counts=True)
    if (counts > 2).any():
        _warn(f"{int((counts > 2).sum())} edges have three or more faces: the Laplacian joins all sheets there")
    return faces


def _assembled(points: np.ndarray, faces: np.ndarray) -> tuple[object, np.ndarray]:
    """The stiffness matrix and the lumped mass."""
    from scipy.sparse import coo_array

    n, corners = len(points), points[faces]
    rows, columns, entries = [], [], []
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1) / 2
    for k in range(3):
        i, j = (k + 1) % 3, (k + 2) % 3
        u, v = corners[:, i] - corners[:, k], corners[:, j] - corners[:, k]
        half = (u * v).sum(-1) / (4 * areas)  # cot / 2: the cross product's length is twice the area
        a, b = faces[:, i], faces[:, j]
        rows += [a, b, a, b]
        columns += [b, a, a, b]
        entries += [-half, -half, half, half]
    where = (np.concatenate(rows), np.concatenate(columns))
    mass = np.bincount(faces.ravel(), np.repeat(areas / 3, 3), minlength=n)
    return coo_array((np.concatenate(entries), where), shape=(n, n)).tocsr(), mass


def _positions(points: np.ndarray, used: np.ndarray, welded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each vertex of the mesh: which point of the operator it is, and its share of that point's mass."""
    place = np.full(len(points), -1)
    place[used] = np.arange(len(used))
    index = place[welded]
    lost = index < 0
    share = 1.0 / np.bincount(index[~lost], minlength=len(used))[np.where(lost, 0, index)]
    if lost.any():
        from scipy.spatial import KDTree

        _warn(f"{int(lost.sum())} of {len(index)} vertices belong to no face with area: they take the nearest one's values")
        index[lost] = KDTree(points[used]).query(points[welded[lost]])[1]
        share[lost] = 0.0
    return index, share


__all__ = ["Surface", "cotangent_operator"]
