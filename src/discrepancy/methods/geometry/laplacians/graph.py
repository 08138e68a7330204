"""The Laplacian of a weighted graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from discrepancy.methods.geometry.laplacians.operator import Operator


def graph_operator(graph: Any, *, weight: str = "weight", normalize: bool = False) -> Operator:
    """S = D - W for the symmetric weights W of a graph, D its degrees; M = 1, or M = D with `normalize` (random walks).

    graph: a NetworkX graph (whose edges carry `weight`, 1 where absent; nodes in its own order), or an adjacency matrix (n, n),
    a SciPy sparse one or dense. Loops change nothing and are dropped. Raises ValueError for a directed graph or an unsymmetric
    matrix, negative or non-finite weights, and, with `normalize`, nodes without edges; TypeError for anything else.
    Time and memory linear in the edges.
    """
    W = _adjacency(graph, weight)
    if W.shape[0] != W.shape[1] or W.shape[0] < 2:
        raise ValueError(f"an adjacency matrix is square with two rows at least, got shape {W.shape}")
    if not np.isfinite(W.data).all() or (W.data < 0).any():
        raise ValueError(f"graph weights must be non-negative and finite, got a smallest of {W.data.min():.6g}")
    gap = abs(W - W.T)
    if gap.nnz and gap.max() > 1e-12 * W.data.max():
        raise ValueError("the adjacency matrix is not symmetric: hand over an undirected graph, for example (W + W.T) / 2")
    W = (W + W.T) / 2
    W.setdiag(0)
    W.eliminate_zeros()
    return operator_of_weights(W, degrees_as_mass=normalize)


def operator_of_weights(W: Any, *, degrees_as_mass: bool) -> Operator:
    """D - W with mass 1 or D, for a symmetric non-negative sparse array W without diagonal."""
    from scipy.sparse import diags_array

    degrees = np.asarray(W.sum(1)).ravel()
    if degrees_as_mass and (degrees == 0).any():
        raise ValueError(f"{int((degrees == 0).sum())} nodes have no edges, hence no mass when degrees are the masses: drop them")
    return Operator((diags_array(degrees) - W).tocsr(), degrees if degrees_as_mass else np.ones(len(degrees)))


def _adjacency(graph: Any, weight: str) -> Any:
    """A float64 CSR copy of the adjacency matrix."""
    from scipy.sparse import csr_array, issparse

    if hasattr(graph, "is_directed") and hasattr(graph, "number_of_nodes"):
        import networkx as nx

        if graph.is_directed():
            raise ValueError("graph is directed, and its Laplacian has no orthogonal eigenvectors: use graph.to_undirected()")
        return csr_array(nx.to_scipy_sparse_array(graph, weight=weight, dtype=np.float64, format="csr"), copy=True)
    if issparse(graph):
        return csr_array(graph, dtype=np.float64, copy=True)
    if hasattr(graph, "__array__") or isinstance(graph, list):
        dense = np.asarray(graph, dtype=np.float64)
        if dense.ndim == 2:
            return csr_array(dense)
        raise ValueError(f"an adjacency matrix has two dimensions, got shape {dense.shape}")
    raise TypeError(f"graph must be a NetworkX graph or an adjacency matrix (SciPy sparse or dense), got {type(graph).__name__}")


__all__ = ["graph_operator", "operator_of_weights"]
