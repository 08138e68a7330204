"""The Laplacian of a point cloud, through the graph of nearest neighbours."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from discrepancy.methods.geometry.laplacians.graph import operator_of_weights
from discrepancy.methods.geometry.laplacians.operator import Operator
from discrepancy.neighbors import nearest_neighbors

# The kernel's value at the mean distance of the last neighbour is e^-4: what the graph leaves out is small.
_DECAY = 4.0


def point_cloud_operator(points: Tensor, *, neighbors: int = 32, dimension: int = 2, normalize: bool = True) -> Operator:
    """The Laplace-Beltrami operator of the manifold that points (n, d) sample, whatever the density of the sample.

    W_ij = exp(-4 |x_i - x_j|^2 / r^2), r the mean distance of the last neighbour, on the graph that joins i and j where one is
    among the other's nearest; divided by the densities q_i q_j (q = row sums of W), so that the density leaves the limit;
    M_i = row sum, which then measures area, and S = (D - W) / t. The time t that one step of this walk takes follows from its
    mean squared step, which is 2 t `dimension` on a manifold of that dimension. With `normalize` the points are scaled to mean
    squared distance 1 from their centre. Masses sum to one.
    The bias falls with r: low eigenvalues are within ten per cent at two thousand points of a sphere. Raises ValueError for fewer
    points than neighbours. Time n log n in low dimension, memory n x neighbours. Source: Coifman and Lafon (2006).
    """
    from scipy.sparse import coo_array

    n = len(points)
    if not isinstance(neighbors, int) or not 1 <= neighbors < n:
        raise ValueError(f"neighbors must lie between 1 and {n - 1}, the number of other points, got {neighbors!r}")
    if not isinstance(dimension, int) or not 1 <= dimension <= points.shape[1]:
        raise ValueError(f"dimension must lie between 1 and {points.shape[1]}, that of the space, got {dimension!r}")
    x = points.detach().double()
    x = x - x.mean(0)
    scale = float(x.square().sum(-1).mean().sqrt()) if normalize else 1.0
    if scale == 0:
        raise ValueError("all points are the same: no graph joins them")
    found = nearest_neighbors(x, x, neighbors, exclude_self=True)
    distance = found.distances.cpu().numpy()
    reach = distance[:, -1].mean()
    if reach == 0:
        raise ValueError(f"most points have {neighbors} duplicates or more: raise neighbors, or drop duplicates")
    rows = np.repeat(np.arange(n), neighbors)
    columns = found.indices.cpu().numpy().ravel()
    weight = np.exp(-_DECAY / reach**2 * distance.ravel() ** 2)
    directed = coo_array((weight, (rows, columns)), shape=(n, n)).tocsr()
    W = directed.maximum(
        directed.T
    ).tocsr()  # of weights and not of distances: it drops zeros, and duplicates are at distance zero
    squares = -np.log(W.data) * reach**2 / _DECAY
    # A point counts as its own neighbour, at distance zero: without it sparse regions are given too little area.
    q = np.asarray(W.sum(1)).ravel() + 1.0
    W.data /= np.repeat(q, np.diff(W.indptr)) * q[W.indices]
    stiffness = operator_of_weights(W, degrees_as_mass=False).stiffness
    mass = np.asarray(W.sum(1)).ravel() + 1 / q**2
    total = mass.sum()
    time = float(W.data @ squares) / total / (2 * dimension)
    return Operator(stiffness * (scale**2 / time / total), mass / total)


__all__ = ["point_cloud_operator"]
