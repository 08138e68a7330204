"""Distances along a surface, and how far a point map is from the truth in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from discrepancy._results import Result
from discrepancy._validate import positive
from discrepancy.methods.geometry.meshes import as_mesh


def geodesic_distances(mesh: Any, *, sources: Int[Tensor, " s"] | None = None) -> Float[Tensor, "s n"]:
    """Lengths of shortest paths along the edges from each source (all vertices if None) to every vertex, in the mesh's units.

    An upper bound of the distance along the surface, by up to a quarter on regular triangles and a tenth on average; infinite
    between parts that are not connected. Time s n log n, memory s n. Source: Dijkstra's algorithm, by SciPy.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import dijkstra

    mesh = as_mesh(mesh)
    faces = mesh.faces.cpu().numpy()
    vertices = mesh.vertices.detach().cpu().double().numpy()
    pairs = np.unique(np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), -1), axis=0)
    length = np.linalg.norm(vertices[pairs[:, 0]] - vertices[pairs[:, 1]], axis=-1)
    # Vertices at one place are joined by an edge of length zero, which a sparse matrix would read as none.
    length = np.maximum(length, np.finfo(float).tiny)
    graph = coo_array((length, (pairs[:, 0], pairs[:, 1])), shape=(len(vertices), len(vertices))).tocsr()
    found = dijkstra(graph, directed=False, indices=None if sources is None else np.asarray(sources))
    return torch.from_numpy(np.atleast_2d(found)).to(mesh.vertices)


@dataclass(frozen=True, repr=False)
class GeodesicError(Result):
    """How far a point map is from the truth, in units of the shape's size: `mean` and `largest` over points, `per_point` (n_y,).

    With symmetries, these are those of the symmetry that explains the map best, and `symmetry` says which: 0 is the truth itself.
    """

    mean: float
    largest: float
    symmetry: int
    per_point: Tensor

    def within(self, radius: float) -> float:
        """The share of points whose error is at most the radius."""
        return float((self.per_point <= radius).double().mean())


def geodesic_error(
    y_to_x: Int[Tensor, " m"],
    truth: Int[Tensor, " m"],
    distances: Float[Tensor, "n n"],
    *,
    size: float | None = None,
    symmetries: Sequence[Int[Tensor, " n"]] = (),
) -> GeodesicError:
    """The distance on X between where y_to_x (n_y,) sends each point of Y and where it belongs, over the `size` of X.

    distances (n_x, n_x): along X, as from `geodesic_distances`. size: what to divide by, for example the root of the area; None
    takes the diameter, the largest distance. symmetries: maps of X onto itself (n_x,) that features of the shape alone cannot
    tell from the identity, such as its reflection: a map that is right up to one of them is right, and its error is the smallest
    mean over them all. Raises ValueError for sizes that do not fit.
    """
    if y_to_x.shape != truth.shape or y_to_x.ndim != 1:
        raise ValueError(f"y_to_x and truth must have one entry a point of Y, got {tuple(y_to_x.shape)} and {tuple(truth.shape)}")
    n = len(distances)
    if distances.shape != (n, n):
        raise ValueError(f"distances must be square, between all points of X, got {tuple(distances.shape)}")
    for name, index in (("y_to_x", y_to_x), ("truth", truth)):
        if int(index.min()) < 0 or int(index.max()) >= n:
            raise ValueError(f"{name} must number points of X, 0 to {n - 1}, got {int(index.min())} to {int(index.max())}")
    if size is None:
        size = float(distances[torch.isfinite(distances)].max())
    positive(size, "size")
    best: tuple[float, int, Tensor] | None = None
    for k, turn in enumerate([torch.arange(n), *symmetries]):
        if turn.shape != (n,):
            raise ValueError(f"a symmetry must have one entry for each of the {n} points of X, got shape {tuple(turn.shape)}")
        errors = distances[turn[truth], y_to_x] / size
        mean = float(errors.double().mean())
        if best is None or mean < best[0]:
            best = (mean, k, errors)
    assert best is not None
    return GeodesicError(best[0], float(best[2].max()), best[1], best[2])


__all__ = ["GeodesicError", "geodesic_distances", "geodesic_error"]
