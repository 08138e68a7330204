"""k nearest neighbours: a k-d tree in low dimension, blocked brute force above it; both exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from discrepancy._results import Result
from discrepancy._validate import require_finite

Engine = Literal["k-d tree", "blocked brute force"]

_TREE_DIMENSION = 10  # above it a k-d tree visits most of its leaves, and a matrix product with selection is faster
_SLACK = 16  # candidates beyond k that the fast distances may confuse
_BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True, repr=False)
class Neighbors(Result):
    """The k nearest points of each query: `distances` (n, k) ascending, `indices` (n, k) into the points, and the `engine`."""

    distances: Float[Tensor, "n k"]
    indices: Int[Tensor, "n k"]
    engine: Engine


@torch.no_grad()
def nearest_neighbors(
    queries: Float[Tensor, "n d"],
    points: Float[Tensor, "m d"],
    k: int,
    *,
    exclude_self: bool = False,
    engine: Engine | None = None,
) -> Neighbors:
    """The k points nearest to each query in Euclidean distance, exactly; ties come in no particular order.

    With `exclude_self` queries and points are one sample, and each point is left out of its own list by its index, so that a
    duplicate counts, at distance zero. `engine` None takes the k-d tree for CPU tensors of at most 10 dimensions.
    Not differentiable.
    Raises ValueError for shapes that do not fit, fewer than k candidates, and non-finite values.
    Time O((n + m) log m) with the tree in low dimension, else O(n m d); memory O(n k) beside blocks of 64 MiB.
    """
    if queries.ndim != 2 or points.ndim != 2 or queries.shape[1] != points.shape[1]:
        raise ValueError(
            f"queries and points must be (n, d) and (m, d) of one width, got {tuple(queries.shape)}, {tuple(points.shape)}"
        )
    if queries.device != points.device:
        raise ValueError(f"queries are on {queries.device} and points on {points.device}: move one of them")
    if exclude_self and queries.shape != points.shape:
        raise ValueError("exclude_self needs queries and points to be one sample")
    available = len(points) - exclude_self
    if not 1 <= k <= available:
        raise ValueError(f"k must lie between 1 and {available}, the number of other points, got {k}")
    for name, t in (("queries", queries), ("points", points)):
        require_finite(t, name)
    if engine is None:
        low = queries.shape[1] <= _TREE_DIMENSION and queries.device.type == "cpu"
        engine = "k-d tree" if low else "blocked brute force"
    if engine == "k-d tree":
        if queries.device.type != "cpu":
            raise ValueError(f"the k-d tree runs on CPU tensors, got {queries.device}: use 'blocked brute force'")
        return _tree(queries, points, k, exclude_self)
    if engine == "blocked brute force":
        return _brute(queries, points, k, exclude_self)
    raise ValueError(f"engine must be 'k-d tree' or 'blocked brute force', got {engine!r}")


def _tree(queries: Tensor, points: Tensor, k: int, exclude_self: bool) -> Neighbors:
    from scipy.spatial import KDTree

    # Sliding-midpoint splits: a median split degenerates on heavily tied coordinates.
    tree = KDTree(points.double().numpy(), balanced_tree=False)
    wanted = k + 1 if exclude_self else k
    # A list of ranks, and not their number, so that k = 1 also comes as a column.
    distance, index = tree.query(queries.double().numpy(), k=[*range(1, wanted + 1)], workers=torch.get_num_threads())  # type: ignore[arg-type]
    d, i = torch.from_numpy(distance), torch.from_numpy(index)
    if exclude_self:
        own = i == torch.arange(len(i))[:, None]
        # Among many duplicates the point itself may not be listed: then the last one goes, at the same distance.
        own[:, -1] |= ~own.any(1)
        d, i = d[~own].reshape(-1, k), i[~own].reshape(-1, k)
    return Neighbors(d.to(queries.dtype), i, "k-d tree")


def _brute(queries: Tensor, points: Tensor, k: int, exclude_self: bool) -> Neighbors:
    n, m = len(queries), len(points)
    centre = points.mean(0)
    x, y = queries - centre, points - centre
    norms = y.square().sum(1)
    count = min(k + _SLACK, m - exclude_self)
    # |x - y|^2 = |x|^2 + |y|^2 - 2 x.y is off by at most this multiple of |x|^2 + |y|^2.
    epsilon = (queries.shape[1] + 8) * torch.finfo(x.dtype).eps
    rows = max(1, _BLOCK_BYTES // (m * x.element_size()))
    distances, indices = x.new_empty(n, k), torch.empty(n, k, dtype=torch.int64, device=x.device)
    for start in range(0, n, rows):
        block = x[start : start + rows]
        own = torch.arange(start, start + len(block), device=x.device)
        squares = torch.addmm(norms, block, y.T, alpha=-2).add_(block.square().sum(1, keepdim=True))
        if exclude_self:
            squares[own - start, own] = torch.inf
        fast, candidates = torch.topk(squares, count, dim=1, largest=False)
        # From the coordinates as they came: centring has rounded them.
        exact = (queries[start : start + rows, None, :] - points[candidates]).square().sum(-1)
        exact, order = exact.sort(dim=1)
        near, chosen = exact[:, :k], candidates.gather(1, order)[:, :k]
        if count < m - exclude_self:
            error = epsilon * (block.square().sum(1) + norms.max())
            # What was not a candidate is at least as far as the last candidate, less the error: beyond the k-th, all is well.
            unsure = (near[:, -1] > fast[:, -1] - error).nonzero()[:, 0]
            for piece in unsure.split(max(1, _BLOCK_BYTES // (m * y.shape[1] * y.element_size()))):
                every = (queries[start + piece][:, None, :] - points[None]).square().sum(-1)
                if exclude_self:
                    every[torch.arange(len(piece), device=x.device), own[piece]] = torch.inf
                near[piece], chosen[piece] = torch.topk(every, k, dim=1, largest=False)
        distances[start : start + rows], indices[start : start + rows] = near.sqrt(), chosen
    return Neighbors(distances, indices, "blocked brute force")


__all__ = ["Engine", "Neighbors", "nearest_neighbors"]
