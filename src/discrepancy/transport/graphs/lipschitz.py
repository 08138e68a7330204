"""Lipschitz functions on a graph: shortest-path distances, local constants, and McShane's extension."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from discrepancy._validate import as_tensor, positive, require_finite
from discrepancy.transport.graphs.cheapest import shortest_edges
from discrepancy.transport.graphs.network import Network

_BLOCK_BYTES = 64 << 20


def distances(network: Network, indices: np.ndarray, limit: float = np.inf) -> np.ndarray:
    """Shortest-path distances (k, n) from the vertices `indices`, +inf beyond `limit`. k searches of E log n."""
    from scipy.sparse.csgraph import dijkstra

    return dijkstra(shortest_edges(network), directed=False, indices=indices, limit=limit)


def vertex_indices(indices: Any, n: int) -> np.ndarray:
    """Vertex numbers (k,) as int64, or ValueError."""
    chosen = np.asarray(indices)
    if chosen.ndim != 1 or chosen.size == 0 or chosen.dtype.kind not in "iu":
        raise ValueError(f"indices must be vertex numbers of shape (k,), got {chosen.dtype} of shape {chosen.shape}")
    if chosen.min() < 0 or chosen.max() >= n:
        raise ValueError(f"indices must lie between 0 and {n - 1}, got {chosen.min()} to {chosen.max()}")
    return chosen.astype(np.int64)


def local_constants(network: Network, f: Tensor, r: float) -> Tensor:
    """max |f(x) - f(y)| / d(x, y) over 0 < d(x, y) <= r at each vertex x, (..., n); in blocks of 64 MiB."""
    positive(r, "r")
    n = network.n
    found = torch.zeros_like(f)
    step = max(1, _BLOCK_BYTES // (8 * n))
    for start in range(0, n, step):
        block = np.arange(start, min(n, start + step))
        d = distances(network, block, limit=r)
        row, column = np.nonzero(np.isfinite(d) & (d > 0))
        if len(row) == 0:
            continue
        x, y = torch.from_numpy(block[row]), torch.from_numpy(column)
        slope = (f[..., x] - f[..., y]).abs() / torch.from_numpy(d[row, column]).to(f.dtype)
        found = found.scatter_reduce(-1, x.expand(slope.shape), slope, "amax")
    return found


def extend(network: Network, indices: Any, values: Any) -> Tensor:
    """McShane's extension (n,) of values (k,) at the vertices `indices` (k,)."""
    anchors = vertex_indices(indices, network.n)
    given = as_tensor(values, "values")
    if given.shape != anchors.shape:
        raise ValueError(f"values must have one number for each of the {len(anchors)} indices, got shape {tuple(given.shape)}")
    require_finite(given, "values")
    if len(np.unique(anchors)) != len(anchors):
        raise ValueError("indices name a vertex twice: give each anchor once")
    d = torch.from_numpy(distances(network, anchors))
    v = given.double()
    among = d[:, anchors]
    rise = (v.detach()[:, None] - v.detach()).abs()
    pairs = among.isfinite() & (among > 0)
    constant = float((rise[pairs] / among[pairs]).max()) if bool(pairs.any()) else 0.0
    # At constant 0 an anchor at infinity must still not speak: 0 * inf is no number.
    reach = torch.where(d.isfinite(), constant * torch.where(d.isfinite(), d, 0.0), torch.inf)
    lowest = (v[:, None] + reach).min(0).values
    found = torch.where(lowest.isfinite(), lowest, v.max()).clamp(v.detach().min(), v.detach().max())
    # At the anchors the minimum is the value itself up to rounding of the constant; there it is put back.
    found = found.index_put((torch.from_numpy(anchors),), v)
    return found.to(given.dtype)


__all__ = ["distances", "extend", "local_constants", "vertex_indices"]
