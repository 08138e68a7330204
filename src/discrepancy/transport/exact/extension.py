"""An exact solution beyond its samples: the map that carries points along the plan, and the potentials as functions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from discrepancy.costs import Cost
from discrepancy.neighbors import nearest_neighbors
from discrepancy.transport.exact.choose import as_points
from discrepancy.transport.exact.gradient import Entries

PointFunction = Callable[[Tensor], Tensor]

# Bytes of one block of costs between new points and a sample.
_BLOCK_BYTES = 64 << 20


def barycentric_map(x: Tensor, y: Tensor, entries: Entries, cost: Cost) -> PointFunction:
    """T(x_i) = sum_j P_ij y_j / sum_j P_ij at the samples x (B, n, d), of targets y (B, m, d); elsewhere by the nearest sample.

    A new point z moves as its nearest sample of positive weight does, z + T(x_i) - x_i (Ferradans et al., 2014), so that a
    translation is found exactly everywhere; where the cost is not translation invariant it goes to T(x_i) itself. The callable
    takes (..., k, d) with the batch of the samples, or (k, d) for one pair, and is differentiable in the points at fixed plan.
    """
    size, n, d = x.shape
    right = y.reshape(-1, d)
    at = entries.problem * n + entries.row
    mass = torch.zeros(size * n, dtype=torch.float64).index_add(0, at, entries.mass)
    targets = right[entries.problem * y.shape[1] + entries.column].double() * entries.mass[:, None]
    image = torch.zeros(size * n, d, dtype=torch.float64).index_add(0, at, targets)
    present = mass > 0
    image = (image / torch.where(present, mass, torch.ones_like(mass))[:, None]).reshape(size, n, d)
    present = present.reshape(size, n)

    def one(k: int, z: Tensor) -> Tensor:
        sources, images = x[k][present[k]].double(), image[k][present[k]]
        nearest = nearest_neighbors(z.detach().double(), sources.detach(), 1).indices[:, 0]
        moved = z.double() + (images - sources)[nearest] if cost.translation_invariant else images[nearest]
        return moved.to(z.dtype)

    def transport(z: Tensor) -> Tensor:
        return torch.stack([one(k, points) for k, points in enumerate(_batched(z, size, d))]).reshape(z.shape)

    return transport


def conjugate_potentials(x: Tensor, y: Tensor, f: Tensor, g: Tensor, cost: Cost) -> tuple[PointFunction, PointFunction]:
    """The potentials as functions of points: f(z) = min_j c(z, y_j) - g_j and g(z) = min_i c(x_i, z) - f_i.

    They take the values f (B, n), g (B, m) at the samples x (B, n, d), y (B, m, d), and keep f(z) + g(w) <= c(z, w) for samples
    w (z) and any z (w). Differentiable in the points: the gradient is that of the cost to the minimiser. The minimiser is found
    in blocks: time O(k m d), memory O(k d) beside blocks of 64 MiB.
    """

    def minimum(z: Tensor, points: Tensor, potential: Tensor, *, from_left: bool) -> Tensor:
        queries, fixed = as_points(z, cost), as_points(points.detach(), cost)
        step = cost.block_size(len(points), z.shape[-1], _BLOCK_BYTES, 8)
        found = []
        with torch.no_grad():
            for start in range(0, len(z), step):
                block = queries[start : start + step]
                costs = cost.matrix(block, fixed) if from_left else cost.matrix(fixed, block).mT
                found.append((costs - potential).argmin(-1))
        best = torch.cat(found)
        costs = cost.pairs(queries, fixed[best]) if from_left else cost.pairs(fixed[best], queries)
        return (costs - potential[best]).to(z.dtype)

    def function(points: Tensor, potential: Tensor, *, from_left: bool) -> PointFunction:
        def evaluate(z: Tensor) -> Tensor:
            pieces = _batched(z, len(points), points.shape[-1])
            values = [minimum(q, p, h, from_left=from_left) for q, p, h in zip(pieces, points, potential, strict=True)]
            return torch.stack(values).reshape(z.shape[:-1])

        return evaluate

    return function(y, g, from_left=True), function(x, f, from_left=False)


def _batched(z: Tensor, size: int, d: int) -> Tensor:
    """Points (..., k, d) as (B, k, d), or ValueError."""
    if z.ndim < 2 or z.shape[-1] != d or z[..., 0, 0].numel() != size:
        raise ValueError(
            f"points must have shape (k, {d})"
            + (f" for each of the {size} problems" if size > 1 else "")
            + f", got {tuple(z.shape)}"
        )
    return z.reshape(size, *z.shape[-2:])


__all__ = ["PointFunction", "barycentric_map", "conjugate_potentials"]
