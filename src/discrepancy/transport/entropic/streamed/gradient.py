"""The gradient of a plan's total cost in the points, pairs never held: what the envelope theorem asks of the backward pass."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from discrepancy.costs import Cosine, Cost, Sphere
from discrepancy.transport.entropic.streamed.ground import mean_point
from discrepancy.transport.entropic.streamed.passes import EXACT_CUT, StreamedPairs


def fused_contraction(
    x: Tensor, y: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, epsilon: float, cost: Cost
) -> tuple[Tensor, Tensor]:
    """The gradients (n, d) and (m, d) in float64 of sum_ij P_ij c(x_i, y_j), P_ij = a_i b_j exp((f_i + g_j - c_ij) / epsilon)
    held fixed, for one problem of CPU tensors. One pass of the pairs; memory O((n + m) d) and tiles of 32 MiB."""
    left, right = a.detach().double().numpy(), b.detach().double().numpy()
    stream = StreamedPairs(x, y, left, right, cost)
    scale = 1 / (epsilon * math.log(2))
    with np.errstate(divide="ignore"):
        u = np.where(left > 0, f.double().numpy() * scale + np.log2(np.where(left > 0, left, 1)), 0)
        v = np.where(right > 0, g.double().numpy() * scale + np.log2(np.where(right > 0, right, 1)), 0)
    clouds = stream.clouds
    # Gradients are taken in the points that the passes see: for Cosine these are the directions.
    gx, gy = _tiled(stream, u, v, scale) if clouds.given or isinstance(cost, Sphere) else _direct(stream, u, v, scale)
    if isinstance(cost, Cosine):
        return _through_direction(gx / 2, x), _through_direction(gy / 2, y)
    return gx, gy


def _direct(stream: StreamedPairs, u: np.ndarray, v: np.ndarray, scale: float) -> tuple[Tensor, Tensor]:
    """Costs formed from the points: one compiled pass."""
    from discrepancy._loops.entropic_points.contraction import contraction

    down, across, d = stream.left.heavy, stream.right.heavy, stream.left.points.shape[-1]
    rows, columns = down.gathered(u), np.zeros((16, d, across.size))
    out = np.empty((down.size, d))

    def work(k: int, ground: Any, cloud: Any, first: int, last: int, other: Any, w: np.ndarray, tops: Any, tile: Any) -> None:
        contraction(ground, cloud, first, last, other, w, tops, EXACT_CUT, tile, rows, out, columns[k])

    stream.run(stream.left, stream.right, scale, v, work)
    gx = down.scattered(out, len(u))
    gy = across.scattered(np.ascontiguousarray(columns.sum(0).T), len(v))
    return torch.from_numpy(gx), torch.from_numpy(gy)


def _tiled(stream: StreamedPairs, u: np.ndarray, v: np.ndarray, scale: float) -> tuple[Tensor, Tensor]:
    """The plan tile by tile, and the cost's own contraction with each: matrix products for squared distances."""
    from discrepancy._loops.entropic_points.products import plan_tile
    from discrepancy._loops.threads import in_parallel, ranges

    clouds, x, y = stream.clouds, stream.left.points, stream.right.points
    gx, gy = torch.zeros(x.shape, dtype=torch.float64), torch.zeros(y.shape, dtype=torch.float64)
    weight_x, weight_y = stream.left.weights > 0, stream.right.weights > 0
    step = max(1, min(256, (16 << 20) // (8 * len(v))))
    if not clouds.products:
        step = max(1, min(step, clouds.cost.block_size(len(v), x.shape[-1], 64 << 20, 16)))
    centre = mean_point(y)
    buffer = torch.empty(step, len(v), dtype=torch.float64)
    for start in range(0, len(u), step):
        part = slice(start, min(start + step, len(u)))
        block = x[part].double()
        tile = clouds.costs(block, y, buffer[: block.shape[0]])
        plan = np.where(weight_x[part], u[part], -2000.0), np.where(weight_y, v, -2000.0)
        in_parallel(
            lambda rows, plan=plan, tile=tile: plan_tile(tile.numpy(), rows[0], rows[1], plan[0], plan[1], scale * clouds.factor),
            ranges(block.shape[0], 8),
        )
        if not clouds.products:
            left, right = clouds.cost.contract(block, y.double(), tile)
            gx[part] = left
            gy += right
            continue
        # 2 (x r - P y) and 2 (y c - P^T x), about y's mean, with blocks of y in float64 at a time.
        block = block - centre
        gx[part] = 2 * block * tile.sum(-1, keepdim=True)
        for at in range(0, len(v), 4096):
            columns = slice(at, min(at + 4096, len(v)))
            points, piece = y[columns].double() - centre, tile[:, columns]
            gx[part].addmm_(piece, points, alpha=-2)
            gy[columns] += 2 * points * piece.sum(0)[:, None]
            gy[columns].addmm_(piece.mT, block, alpha=-2)
    return gx, gy


def _through_direction(slope: Tensor, x: Tensor) -> Tensor:
    """The slope in x of a function of x / |x| whose slope in the direction is given."""
    x = x.detach().double()
    size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    unit = x / size
    return (slope - unit * (unit * slope).sum(-1, keepdim=True)) / size


__all__ = ["fused_contraction"]
