"""k nearest neighbours and counts within radii: sorted lines, trees and blocked brute force, all exact.

In one dimension a sorted line counts. SciPy's k-d tree serves small problems and needs no compiling, a compiled tree of boxes
large ones; in Euclidean distance above 10 dimensions, and on other devices than the CPU, all distances are computed, in blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from discrepancy._results import Result
from discrepancy._validate import require_finite

Engine = Literal["sorted line", "k-d tree", "box tree", "blocked brute force"]
Norm = Literal["euclidean", "maximum"]

_TREE_DIMENSION = 10  # above it a tree visits most of its leaves, and a matrix product with selection is faster
_BOX_WORK = 20_000  # queries x dimensions from which the compiled tree repays its loading
_FLAT = 3  # dimensions up to which SciPy's tree finds neighbours as fast, and is built faster
_BOX_RANK = 300  # the compiled tree inserts neighbours one by one
_SLACK = 16  # candidates beyond k that the fast distances may confuse
_BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True, repr=False)
class Neighbors(Result):
    """The k nearest points of each query: `distances` (n, k) ascending, `indices` (n, k) into the points, and the `engine`."""

    distances: Float[Tensor, "n k"]
    indices: Int[Tensor, "n k"]
    engine: Engine


@dataclass(frozen=True, repr=False)
class NeighborCounts(Result):
    """How many points lie within its radius of each query: `counts`, of the shape of the radii, and the `engine` that counted."""

    counts: Int[Tensor, "n ..."]
    engine: Engine


@torch.no_grad()
def nearest_neighbors(
    queries: Float[Tensor, "n d"],
    points: Float[Tensor, "m d"],
    k: int,
    *,
    norm: Norm = "euclidean",
    exclude_self: bool = False,
    own: Int[Tensor, " n"] | None = None,
    engine: Engine | None = None,
) -> Neighbors:
    """The k points nearest to each query in the Euclidean or the maximum norm, exactly; ties come in no particular order.

    With `exclude_self` queries and points are one sample, and each point is left out of its own list by its index, so that a
    duplicate counts, at distance zero; `own` says the same of queries that are some of the points: which one each is.
    `engine` None chooses by dimension, size and device, and the result says what it chose.
    Not differentiable.
    Raises ValueError for shapes that do not fit, fewer than k candidates, and non-finite values.
    Time O((n + m) log m) with a tree in low dimension, else O(n m d); memory O(n k) beside blocks of 64 MiB.
    """
    _check(queries, points, norm, exclude_self)
    if exclude_self:
        own = torch.arange(len(queries), device=queries.device)
    if own is not None and (own.shape != queries.shape[:1] or not torch.equal(points[own], queries)):
        raise ValueError("own must give for each query the index of the point that it is")
    available = len(points) - (own is not None)
    if not 1 <= k <= available:
        raise ValueError(f"k must lie between 1 and {available}, the number of other points, got {k}")
    cpu = queries.device.type == "cpu"
    if engine is None:
        engine = chosen_engine(queries, k, norm)
    if engine not in ("k-d tree", "box tree", "blocked brute force"):
        raise ValueError(f"engine must be 'k-d tree', 'box tree' or 'blocked brute force', got {engine!r}")
    if engine == "blocked brute force":
        search = _brute if norm == "euclidean" else _brute_maximum
        return search(queries, points, k, own)
    if not cpu:
        raise ValueError(f"the {engine} runs on CPU tensors, got {queries.device}: use 'blocked brute force'")
    return (_tree if engine == "k-d tree" else _boxes)(queries, points, k, norm, own)


def chosen_engine(queries: Float[Tensor, "n d"], k: int, norm: Norm) -> Engine:
    """What `nearest_neighbors` searches with where it is not told, by dimension, size and device."""
    low = queries.shape[1] <= _TREE_DIMENSION or norm == "maximum"
    if queries.device.type != "cpu" or not low:
        return "blocked brute force"
    return "box tree" if _large(queries, k) and queries.shape[1] > _FLAT else "k-d tree"


@torch.no_grad()
def counts_within(
    queries: Float[Tensor, "n d"],
    points: Float[Tensor, "m d"],
    radii: Float[Tensor, "n ..."],
    *,
    norm: Norm = "euclidean",
    strict: bool = False,
    exclude_self: bool = False,
    engine: Engine | None = None,
) -> NeighborCounts:
    """How many points lie within radii[i] of queries[i]: at most so far, or nearer if `strict`. Radii (n, r) are r a query.

    In the maximum norm the comparison is exact, also where a radius is itself a difference of coordinates; Euclidean distances
    are compared by their squares, up to rounding. With `exclude_self` queries and points are one sample, and none counts itself.
    `engine` None chooses by dimension, size and device: one dimension takes a sorted line on any device.
    Raises ValueError for shapes that do not fit, negative radii and non-finite values.
    Time O((n + m) log m) in low dimension, else up to O(n m d); memory O(n + m) beside blocks of 64 MiB.
    """
    _check(queries, points, norm, exclude_self)
    if radii.ndim not in (1, 2) or len(radii) != len(queries) or not bool((radii >= 0).all()):
        raise ValueError(
            f"radii must be non-negative, of shape ({len(queries)},) or ({len(queries)}, r), got shape {tuple(radii.shape)}"
        )
    cpu = queries.device.type == "cpu"
    if engine is None:
        if queries.shape[1] == 1:
            engine = "sorted line"
        else:
            engine = "blocked brute force" if not cpu else "box tree" if _large(queries, 1) else "k-d tree"
    if engine not in get_args(Engine) or (engine == "sorted line" and queries.shape[1] > 1):
        raise ValueError(f"engine must be one of {get_args(Engine)}, the sorted line in one dimension only, got {engine!r}")
    if not cpu and "tree" in engine:
        raise ValueError(f"the {engine} runs on CPU tensors, got {queries.device}: use 'blocked brute force'")
    at, among, reach = queries.double(), points.double(), radii.double().reshape(len(radii), -1)
    if engine == "sorted line":
        counts = _count_line(at, among, reach, strict)
    else:
        counter = {"k-d tree": _count_tree, "box tree": _count_boxes, "blocked brute force": _count_brute}[engine]
        counts = counter(at, among, reach, norm, strict)
    counts = counts.reshape(radii.shape)
    if exclude_self:
        counts = counts - ((radii > 0).long() if strict else 1)
    return NeighborCounts(counts, engine)


def _check(queries: Tensor, points: Tensor, norm: str, exclude_self: bool) -> None:
    if queries.ndim != 2 or points.ndim != 2 or queries.shape[1] != points.shape[1]:
        raise ValueError(
            f"queries and points must be (n, d) and (m, d) of one width, got {tuple(queries.shape)}, {tuple(points.shape)}"
        )
    if queries.device != points.device:
        raise ValueError(f"queries are on {queries.device} and points on {points.device}: move one of them")
    if exclude_self and queries.shape != points.shape:
        raise ValueError("exclude_self needs queries and points to be one sample")
    if norm not in get_args(Norm):
        raise ValueError(f"norm must be 'euclidean' or 'maximum', got {norm!r}")
    for name, t in (("queries", queries), ("points", points)):
        require_finite(t, name)


def _large(queries: Tensor, k: int) -> bool:
    return queries.numel() >= _BOX_WORK and k <= _BOX_RANK


def _tree(queries: Tensor, points: Tensor, k: int, norm: Norm, own: Tensor | None) -> Neighbors:
    from scipy.spatial import KDTree

    # Sliding-midpoint splits: a median split degenerates on heavily tied coordinates.
    tree = KDTree(points.double().numpy(), balanced_tree=False)
    wanted = k if own is None else k + 1
    # A list of ranks, and not their number, so that k = 1 also comes as a column.
    ranks: Any = [*range(1, wanted + 1)]
    p = torch.inf if norm == "maximum" else 2
    distance, index = tree.query(queries.double().numpy(), k=ranks, p=p, workers=torch.get_num_threads())
    d, i = torch.from_numpy(distance), torch.from_numpy(index)
    if own is not None:
        itself = i == own[:, None]
        # Among many duplicates the point itself may not be listed: then the last one goes, at the same distance.
        itself[:, -1] |= ~itself.any(1)
        d, i = d[~itself].reshape(-1, k), i[~itself].reshape(-1, k)
    return Neighbors(d.to(queries.dtype), i, "k-d tree")


def _boxes(queries: Tensor, points: Tensor, k: int, norm: Norm, own: Tensor | None) -> Neighbors:
    import numpy as np

    from discrepancy._loops.box_tree import build, nearest
    from discrepancy._loops.threads import in_parallel, ranges

    n = len(queries)
    tree = build(points.double().contiguous().numpy())
    at = queries.double().contiguous().numpy()
    itself = np.full(n, -1) if own is None else own.numpy()
    # Queries that are points are searched in the tree's order, so that one finds in the cache what the last one read.
    order = np.arange(n) if own is None else np.argsort(np.argsort(tree.order)[itself])
    at, itself = at[order], itself[order]
    distance, index = np.empty((n, k)), np.empty((n, k), np.int64)
    maximum = norm == "maximum"
    in_parallel(lambda part: nearest(at, itself, *tree, maximum, *part, distance, index), ranges(n, 256))
    d, i = torch.empty(n, k, dtype=torch.float64), torch.empty(n, k, dtype=torch.int64)
    rows = torch.from_numpy(order)
    d[rows], i[rows] = torch.from_numpy(distance), torch.from_numpy(index)
    return Neighbors((d if maximum else d.sqrt()).to(queries.dtype), i, "box tree")


def _brute(queries: Tensor, points: Tensor, k: int, own: Tensor | None) -> Neighbors:
    n, m = len(queries), len(points)
    centre = points.mean(0)
    x, y = queries - centre, points - centre
    norms = y.square().sum(1)
    available = m - (own is not None)
    count = min(k + _SLACK, available)
    # |x - y|^2 = |x|^2 + |y|^2 - 2 x.y is off by at most this multiple of |x|^2 + |y|^2.
    epsilon = (queries.shape[1] + 8) * torch.finfo(x.dtype).eps
    rows = max(1, _BLOCK_BYTES // (m * x.element_size()))
    distances, indices = x.new_empty(n, k), torch.empty(n, k, dtype=torch.int64, device=x.device)
    for start in range(0, n, rows):
        block = x[start : start + rows]
        itself = None if own is None else own[start : start + rows]
        squares = torch.addmm(norms, block, y.T, alpha=-2).add_(block.square().sum(1, keepdim=True))
        if itself is not None:
            squares[torch.arange(len(block), device=x.device), itself] = torch.inf
        fast, candidates = torch.topk(squares, count, dim=1, largest=False)
        # From the coordinates as they came: centring has rounded them.
        exact = (queries[start : start + rows, None, :] - points[candidates]).square().sum(-1)
        exact, order = exact.sort(dim=1)
        near, chosen = exact[:, :k], candidates.gather(1, order)[:, :k]
        if count < available:
            error = epsilon * (block.square().sum(1) + norms.max())
            # What was not a candidate is at least as far as the last candidate, less the error: beyond the k-th, all is well.
            unsure = (near[:, -1] > fast[:, -1] - error).nonzero()[:, 0]
            for piece in unsure.split(max(1, _BLOCK_BYTES // (m * y.shape[1] * y.element_size()))):
                every = (queries[start + piece][:, None, :] - points[None]).square().sum(-1)
                if itself is not None:
                    every[torch.arange(len(piece), device=x.device), itself[piece]] = torch.inf
                near[piece], chosen[piece] = torch.topk(every, k, dim=1, largest=False)
        distances[start : start + rows], indices[start : start + rows] = near.sqrt(), chosen
    return Neighbors(distances, indices, "blocked brute force")


def _brute_maximum(queries: Tensor, points: Tensor, k: int, own: Tensor | None) -> Neighbors:
    parts = []
    for rows in _blocks(queries, points):
        distance = torch.cdist(queries[rows], points, p=torch.inf)
        if own is not None:
            distance[torch.arange(len(rows), device=rows.device), own[rows]] = torch.inf
        parts.append(torch.topk(distance, k, dim=1, largest=False))
    return Neighbors(torch.cat([p.values for p in parts]), torch.cat([p.indices for p in parts]), "blocked brute force")


def _blocks(queries: Tensor, points: Tensor) -> tuple[Tensor, ...]:
    rows = max(1, _BLOCK_BYTES // (len(points) * queries.element_size()))
    return torch.arange(len(queries), device=queries.device).split(rows)


def _count_line(queries: Tensor, points: Tensor, radii: Tensor, strict: bool) -> Tensor:
    line, at = points[:, 0].sort().values, queries
    # Sums are rounded: ends are set right by the very comparison that counts, a run of equal values at a time.
    low = torch.searchsorted(line, at - radii, right=strict)
    high = torch.searchsorted(line, at + radii, right=not strict)
    last = len(line) - 1

    def inside(index: Tensor) -> Tensor:
        gap = (line[index.clamp(0, last)] - at).abs()
        return ((gap < radii) if strict else (gap <= radii)) & (index >= 0) & (index <= last)

    def run(index: Tensor, right: bool) -> Tensor:
        return torch.searchsorted(line, line[index.clamp(0, last)], right=right)

    while bool((grow := inside(low - 1)).any()):
        low = torch.where(grow, run(low - 1, False), low)
    while bool((shrink := ~inside(low) & (low < high)).any()):
        low = torch.where(shrink, run(low, True), low)
    while bool((grow := inside(high)).any()):
        high = torch.where(grow, run(high, True), high)
    while bool((shrink := ~inside(high - 1) & (low < high)).any()):
        high = torch.where(shrink, run(high - 1, False), high)
    return (high - low).clamp_min(0)


def _count_tree(queries: Tensor, points: Tensor, radii: Tensor, norm: Norm, strict: bool) -> Tensor:
    from scipy.spatial import KDTree

    tree = KDTree(points.numpy(), balanced_tree=False)
    reach = torch.nextafter(radii, -torch.ones_like(radii)).abs() if strict else radii
    counts = torch.empty_like(radii, dtype=torch.int64)
    for r in range(radii.shape[1]):
        found: Any = tree.query_ball_point(
            queries.numpy(),
            reach[:, r].numpy(),
            p=torch.inf if norm == "maximum" else 2,
            return_length=True,
            workers=torch.get_num_threads(),
        )
        counts[:, r] = torch.from_numpy(found)
    return torch.where(radii > 0, counts, 0) if strict else counts


def _count_boxes(queries: Tensor, points: Tensor, radii: Tensor, norm: Norm, strict: bool) -> Tensor:
    import numpy as np

    from discrepancy._loops.box_tree import build, count
    from discrepancy._loops.threads import in_parallel, ranges

    maximum = norm == "maximum"
    tree = build(points.contiguous().numpy())
    at, reach = queries.contiguous().numpy(), (radii if maximum else radii.square()).T.contiguous().numpy()
    counts = np.empty(reach.shape, np.int64)
    boxes = tree.columns, tree.first, tree.last, tree.low, tree.high
    for some, into in zip(reach, counts, strict=True):
        in_parallel(lambda part: count(at, some, strict, *boxes, maximum, *part, into), ranges(len(at), 256))  # noqa: B023
    return torch.from_numpy(counts).T


def _count_brute(queries: Tensor, points: Tensor, radii: Tensor, norm: Norm, strict: bool) -> Tensor:
    p = torch.inf if norm == "maximum" else 2
    parts = []
    for rows in _blocks(queries, points):
        distance = torch.cdist(queries[rows], points, p=p, compute_mode="donot_use_mm_for_euclid_dist")
        reaches = radii[rows, :, None].unbind(1)
        parts.append(torch.stack([(distance < r if strict else distance <= r).sum(1) for r in reaches], 1))
    return torch.cat(parts)


__all__ = ["Engine", "NeighborCounts", "Neighbors", "Norm", "chosen_engine", "counts_within", "nearest_neighbors"]
