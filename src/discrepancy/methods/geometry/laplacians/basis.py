"""The lowest eigenfunctions of a Laplacian as a basis for functions on a shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from discrepancy._validate import as_tensor, require_finite, sample
from discrepancy.methods.geometry.laplacians.cotangent import cotangent_operator
from discrepancy.methods.geometry.laplacians.graph import graph_operator
from discrepancy.methods.geometry.laplacians.point_cloud import point_cloud_operator
from discrepancy.methods.geometry.meshes import as_mesh


@dataclass(frozen=True, eq=False)
class LaplacianBasis:
    """The k lowest eigenfunctions of a shape's Laplacian: `vectors` Phi (n, k), `values` (k,) ascending, `mass` (n,).

    Phi^T M Phi = I: a function f on the n points has the coefficients Phi^T M f (`coefficients`), and Phi c is the function of
    coefficients c (`synthesis`). `stiffness` (n, n), a sparse tensor, gives Dirichlet energies where it is there; `points` (n, d)
    are the coordinates, None for a graph; `area` is the area before scaling, None where there is none.

    Built by `from_mesh`, `from_graph` or `from_point_cloud`, or from eigenpairs of your own. Raises ValueError for sizes that do
    not fit, values that do not ascend, negative values or masses, and what is not finite.
    """

    vectors: Float[Tensor, "n k"]
    values: Float[Tensor, " k"]
    mass: Float[Tensor, " n"]
    stiffness: Tensor | None = None
    points: Float[Tensor, "n d"] | None = None
    area: float | None = None

    def __post_init__(self) -> None:
        """Check that the pieces fit."""
        vectors = as_tensor(self.vectors, "vectors")
        values, mass = (as_tensor(getattr(self, name), name, like=vectors).to(vectors.dtype) for name in ("values", "mass"))
        if vectors.ndim != 2 or values.shape != vectors.shape[1:] or mass.shape != vectors.shape[:1]:
            raise ValueError(
                "vectors, values and mass must have shapes (n, k), (k,) and (n,), got "
                f"{tuple(vectors.shape)}, {tuple(values.shape)}, {tuple(mass.shape)}"
            )
        for name, value in (("vectors", vectors), ("values", values), ("mass", mass)):
            require_finite(value, name)
            object.__setattr__(self, name, value)
        if bool((values[1:] < values[:-1]).any()):
            raise ValueError("values must ascend: sort the eigenpairs, vectors[:, values.argsort()]")
        if bool((values < 0).any()):
            raise ValueError(f"values must not be negative, got a smallest of {float(values.min()):.6g}")
        if bool((mass < 0).any()) or not float(mass.sum()) > 0:
            raise ValueError(f"mass must be non-negative with a positive sum, got a smallest of {float(mass.min()):.6g}")

    def __repr__(self) -> str:
        return f"LaplacianBasis({self.n} points, {self.k} eigenfunctions, {self.vectors.dtype})"

    @property
    def n(self) -> int:
        """The number of points."""
        return self.vectors.shape[0]

    @property
    def k(self) -> int:
        """The number of eigenfunctions."""
        return self.vectors.shape[1]

    @classmethod
    def from_mesh(cls, mesh: Any, faces: Any = None, k: int = 50, *, normalize: bool = True) -> LaplacianBasis:
        """Of a triangle mesh by the cotangent Laplacian with lumped mass; the area is scaled to one with `normalize`.

        mesh: a `Mesh`, any object with `vertices` and `faces`, or the vertices (N, 3) with `faces` (F, 3). Repairs and their
        warnings are those of `cotangent_operator`, time and memory those of `Operator.eigenpairs`. No gradient.
        Raises ValueError unless k < N, and for more connected parts than k.
        """
        mesh = as_mesh(mesh if faces is None else (mesh, faces))
        found = cotangent_operator(mesh, normalize=normalize)
        values, vectors = found.operator.eigenpairs(k)
        index, mass = found.index, found.operator.mass[found.index] * found.share
        stiffness = found.operator.stiffness
        if len(index) > len(found.operator.mass) or (index != np.arange(len(index))).any():
            stiffness = _spread(stiffness, index, found.share)
        vertices = mesh.vertices.detach()
        return _on(vertices, vectors[index], values, mass, stiffness, vertices, found.area)

    @classmethod
    def from_graph(cls, graph: Any, k: int = 50, *, weight: str = "weight", normalize: bool = False) -> LaplacianBasis:
        """Of a NetworkX graph or an adjacency matrix: eigenvalues of D - W, or with `normalize` those of random walks.

        Arguments and errors as in `graph_operator`; torch's default dtype.
        """
        operator = graph_operator(graph, weight=weight, normalize=normalize)
        values, vectors = operator.eigenpairs(k)
        return _on(torch.empty(0), vectors, values, operator.mass, operator.stiffness, None, None)

    @classmethod
    def from_point_cloud(
        cls, points: Any, k: int = 50, *, neighbors: int = 32, dimension: int = 2, normalize: bool = True
    ) -> LaplacianBasis:
        """Of the manifold of that dimension that points (n, d) sample; arguments and errors as in `point_cloud_operator`."""
        cloud = sample(points, "points").detach()
        if cloud.ndim != 2:
            raise ValueError(f"points must be one cloud of shape (n, d), got {tuple(cloud.shape)}")
        operator = point_cloud_operator(cloud, neighbors=neighbors, dimension=dimension, normalize=normalize)
        values, vectors = operator.eigenpairs(k)
        return _on(cloud, vectors, values, operator.mass, operator.stiffness, cloud, None)

    def coefficients(self, f: Float[Tensor, "n c"]) -> Float[Tensor, "k c"]:
        """Phi^T M f: the coefficients of functions f (n, c); those of the projection where f has finer detail."""
        if f.shape[0] != self.n:
            raise ValueError(f"f must have one row for each of the {self.n} points, got shape {tuple(f.shape)}")
        return self.vectors.mT @ (f * self.mass[:, None])

    def synthesis(self, coefficients: Float[Tensor, "k c"]) -> Float[Tensor, "n c"]:
        """Phi c: the functions with these coefficients."""
        return self.vectors @ coefficients

    def dirichlet_energy(self, f: Float[Tensor, "n c"]) -> Tensor:
        """sum over columns of f^T S f = int |grad f|^2. Raises TypeError for a basis that carries no stiffness matrix."""
        if self.stiffness is None:
            raise TypeError("this basis carries no stiffness matrix: build it by from_mesh, from_graph or from_point_cloud")
        return (f * torch.sparse.mm(self.stiffness, f)).sum()

    def truncated(self, k: int) -> LaplacianBasis:
        """The first k eigenfunctions. Raises ValueError for more than there are."""
        if not 1 <= k <= self.k:
            raise ValueError(f"k must lie between 1 and {self.k}, the number of eigenfunctions there are, got {k!r}")
        return LaplacianBasis(self.vectors[:, :k], self.values[:k], self.mass, self.stiffness, self.points, self.area)


def _spread(stiffness: Any, index: np.ndarray, share: np.ndarray) -> Any:
    """The stiffness on the mesh's own vertices: a welded point's value is the mean of its copies' with their shares."""
    from scipy.sparse import coo_array

    mean = coo_array((share, (index, np.arange(len(index)))), shape=(stiffness.shape[0], len(index))).tocsr()
    return mean.T @ stiffness @ mean


def _on(
    like: Tensor,
    vectors: np.ndarray,
    values: np.ndarray,
    mass: np.ndarray,
    stiffness: Any,
    points: Tensor | None,
    area: float | None,
) -> LaplacianBasis:
    """The basis as tensors of like's dtype and device."""

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(like)

    matrix = stiffness.tocoo()
    where = torch.from_numpy(np.stack([matrix.row, matrix.col]).astype(np.int64))
    sparse = (
        torch.sparse_coo_tensor(where, torch.from_numpy(matrix.data), matrix.shape, check_invariants=False).coalesce().to(like)
    )
    return LaplacianBasis(tensor(vectors), tensor(values), tensor(mass), sparse, points, area)


__all__ = ["LaplacianBasis"]
