"""Edges and lengths from graphs, points and distance matrices."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from discrepancy._validate import as_tensor, sample
from discrepancy.neighbors import nearest_neighbors

_ROUNDING = 1e-9  # relative, by which a matrix may fail to be symmetric or a triangle to close


def graph_arrays(graph: Any, length: str | None, measure: str | None) -> tuple[Tensor, Tensor, Tensor | None, tuple[Any, ...]]:
    """(edges (E, 2), lengths (E,), measures (E,) or None, labels) of a networkx graph or a sparse matrix of lengths."""
    if hasattr(graph, "tocoo"):
        if length is not None or measure is not None:
            raise ValueError("length and measure name attributes of a networkx graph; a sparse matrix holds lengths itself")
        return *_sparse_edges(graph), None, tuple(range(graph.shape[0]))
    if not (hasattr(graph, "edges") and hasattr(graph, "nodes")):
        raise TypeError(f"graph must be a networkx graph or a SciPy sparse matrix, got {type(graph).__name__}")
    if graph.is_directed():
        raise TypeError("graph is directed, and distances here are symmetric: pass graph.to_undirected()")
    labels = tuple(graph.nodes)
    place = {label: k for k, label in enumerate(labels)}
    listed = list(graph.edges(data=True))
    edges = torch.tensor([(place[i], place[j]) for i, j, _ in listed], dtype=torch.int64).reshape(-1, 2)

    def attribute(name: str) -> Tensor:
        missing = next(((i, j) for i, j, data in listed if name not in data), None)
        if missing is not None:
            raise ValueError(f"edge {missing} has no attribute {name!r}")
        return torch.tensor([float(data[name]) for _, _, data in listed], dtype=torch.float64)

    lengths = torch.ones(len(listed), dtype=torch.float64) if length is None else attribute(length)
    return edges, lengths, None if measure is None else attribute(measure), labels


def _sparse_edges(matrix: Any) -> tuple[Tensor, Tensor]:
    """The upper triangle of a symmetric sparse matrix of lengths."""
    entries = matrix.tocoo()
    if entries.ndim != 2 or entries.shape[0] != entries.shape[1]:
        raise ValueError(f"graph must be a square matrix of edge lengths, got shape {entries.shape}")
    gap = abs(matrix - matrix.T)
    largest = float(abs(entries.data).max(initial=0.0))
    if gap.nnz and float(gap.max()) > _ROUNDING * largest:
        raise ValueError(f"graph must be symmetric, its entries differ by up to {float(gap.max()):.6g}")
    row, column = entries.row, entries.col
    upper = row <= column  # a loop is refused with the other edges
    edges = np.stack([row[upper], column[upper]], 1).astype(np.int64)
    return torch.from_numpy(edges), torch.from_numpy(np.asarray(entries.data[upper], np.float64))


def neighbor_edges(X: Any, k: int, *, connected: bool) -> tuple[Tensor, Tensor, int]:
    """(edges (E, 2), lengths (E,) differentiable in X, n) of the symmetrised k-nearest-neighbour graph of points (n, d)."""
    points = sample(X, "X")
    if points.ndim != 2:
        raise ValueError(f"X must be one cloud of shape (n, d), got {tuple(points.shape)}")
    n = len(points)
    if not isinstance(k, int) or not 1 <= k <= n - 1:
        raise ValueError(f"k must be a whole number from 1 to {n - 1}, the number of other points, got {k!r}")
    near = nearest_neighbors(points.detach(), points.detach(), k, exclude_self=True).indices.numpy()
    edges = _unordered(np.repeat(np.arange(n), k), near.reshape(-1), n)
    if connected:
        edges = join_components(points.detach(), edges)
    # From coordinates in float64: a length in float32 has lost digits that the slopes divide by.
    ends = torch.from_numpy(edges)
    wide = points.double()
    lengths = torch.linalg.vector_norm(wide[ends[:, 1]] - wide[ends[:, 0]], dim=-1).to(points.dtype)
    zero = (lengths.detach() == 0).nonzero()
    if len(zero):
        i, j = edges[int(zero[0])]
        raise ValueError(f"points {i} and {j} of X are equal, an edge of length zero: merge duplicates and add their weights")
    return ends, lengths, n


def _unordered(i: np.ndarray, j: np.ndarray, n: int) -> np.ndarray:
    """The distinct pairs (E, 2), lower index first, ascending."""
    key = np.unique(np.minimum(i, j).astype(np.int64) * n + np.maximum(i, j))
    return np.stack([key // n, key % n], 1)


def join_components(points: Tensor, edges: np.ndarray) -> np.ndarray:
    """The edges (E, 2) and, until all is connected, the shortest link of each component to another (Boruvka's rounds)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(points)
    while True:
        graph = coo_array((np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])), shape=(n, n))
        count, label = connected_components(graph, directed=False)
        if count == 1:
            return edges
        links = []
        for component in range(count):
            inside, outside = np.flatnonzero(label == component), np.flatnonzero(label != component)
            if len(inside) > len(outside):
                continue  # the smaller sides reach out; at most one component is that large
            near = nearest_neighbors(points[inside], points[outside], 1)
            best = int(near.distances[:, 0].argmin())
            links.append((inside[best], outside[int(near.indices[best, 0])]))
        added = np.array(links, np.int64)
        edges = _unordered(np.r_[edges[:, 0], added[:, 0]], np.r_[edges[:, 1], added[:, 1]], n)


def distance_edges(D: Any) -> tuple[Tensor, Tensor, int]:
    """(edges (E, 2), lengths (E,), n) of all pairs at finite distance in a matrix D (n, n)."""
    matrix = as_tensor(D, "D")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] == 0:
        raise ValueError(f"D must be a square matrix of distances, got shape {tuple(matrix.shape)}")
    values = matrix.detach().double()
    if bool(values.isnan().any()):
        raise ValueError(f"D has {int(values.isnan().sum())} entries that are NaN: +inf separates two points")
    if bool((values < 0).any()):
        raise ValueError(f"D must be non-negative, got a smallest entry of {float(values.min()):.6g}")
    finite = values.isfinite()
    scale = float(values[finite].max())
    same = torch.equal(finite, finite.mT)
    gap = float((torch.where(finite, values, 0.0) - torch.where(finite.mT, values.mT, 0.0)).abs().max())
    if not same or gap > _ROUNDING * scale:
        raise ValueError("D must be symmetric" + (f", entries differ by {gap:.6g}" if same else ", +inf included"))
    if bool((values.diagonal() != 0).any()):
        raise ValueError("D must be zero on its diagonal")
    n = len(values)
    upper = torch.triu_indices(n, n, offset=1)
    edges = upper[:, finite[upper[0], upper[1]]].T.contiguous()
    lengths = matrix[edges[:, 0], edges[:, 1]]
    zero = (lengths.detach() == 0).nonzero()
    if len(zero):
        i, j = edges[int(zero[0])].tolist()
        raise ValueError(f"D is zero between the points {i} and {j}, an edge of length zero: merge them and add their weights")
    _warn_of_shortcuts(values.numpy(), scale)
    return edges, lengths, n


def _warn_of_shortcuts(values: np.ndarray, scale: float) -> None:
    """Warn where a path is shorter than the entry between its ends. n^3 time."""
    from scipy.sparse.csgraph import shortest_path

    with np.errstate(invalid="ignore"):
        excess = values - shortest_path(values, method="FW", directed=False)
    excess[~np.isfinite(values)] = np.where(np.isnan(excess[~np.isfinite(values)]), 0.0, np.inf)
    worst = float(excess.max())
    if worst > _ROUNDING * scale:
        i, j = np.unravel_index(int(excess.argmax()), excess.shape)
        warnings.warn(
            f"D breaks the triangle inequality, by {worst:.6g} between the points {i} and {j}: distances here are those of the "
            "shortest paths",
            stacklevel=4,
        )


__all__ = ["distance_edges", "graph_arrays", "join_components", "neighbor_edges"]
