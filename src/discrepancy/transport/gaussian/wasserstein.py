"""The Wasserstein distance between the Gaussians fitted to two samples (the Frechet distance of features)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from discrepancy._kinds import Claims, Discrepancy
from discrepancy._validate import SamplePair
from discrepancy.linalg import root
from discrepancy.transport.gaussian.bures import displacement, squared_distance


def _moments(x: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """The weighted mean (B, d), and a factor (B, d, k) of the covariance with k = min(n, d) columns; nothing is squared."""
    center = torch.einsum("bn,bnd->bd", a, x)
    scaled = a.sqrt()[..., None] * (x - center[:, None])
    if scaled.shape[-2] <= scaled.shape[-1]:
        return center, scaled.mT
    return center, torch.linalg.qr(scaled, mode="r").R.mT


class _SquaredDistance(torch.autograd.Function):
    """|m1 - m2|^2 plus the squared Bures distance of the covariances, with gradients in points and weights.

    With T the map and G = I - T: 2 a_i (m1 - m2 + G (x_i - m1)) in x_i, 2 (m1 - m2) . x_i + (x_i - m1)^T G (x_i - m1) in a_i.
    """

    @staticmethod
    def forward(ctx, x, y, a, b, first):  # type: ignore[override]
        ctx.save_for_backward(x, y, a, b)
        u, v, p, q = (t.double() for t in (x, y, a, b))
        (m1, A), (m2, B) = _moments(u, p), _moments(v, q)
        ctx.moments = (m1, A, m2, B)
        bures = squared_distance(A, B) if first else squared_distance(B, A)
        same = torch.zeros_like(bures, dtype=torch.bool)
        if x.shape == y.shape:
            same = (x == y).flatten(1).all(1) & (a == b).all(1)
        ctx.same = same
        return torch.where(same, torch.zeros_like(bures), (m1 - m2).square().sum(-1) + bures)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[override]
        x, y, a, b = ctx.saved_tensors
        m1, A, m2, B = ctx.moments
        need = ctx.needs_input_grad
        grad = torch.where(ctx.same, torch.zeros_like(grad), grad)
        out: list[Tensor | None] = []
        sides = ((x, a, m1, A, m2, B, need[0], need[2]), (y, b, m2, B, m1, A, need[1], need[3]))
        for points, weight, m, own, other, far, need_points, need_weight in sides:
            if not (need_points or need_weight):
                out += [None, None]
                continue
            centered = points.double() - m[:, None]
            left = centered - displacement(own, far, centered)
            gap = 2 * (m - other)[:, None]
            points_slope = grad[:, None, None] * weight.double()[..., None] * (gap + 2 * left)
            weight_slope = grad[:, None] * ((gap * points.double()).sum(-1) + (centered * left).sum(-1))
            out += [points_slope.to(points.dtype), weight_slope.to(weight.dtype)]
        return out[0], out[2], out[1], out[3], None


@dataclass(frozen=True)
class GaussianWasserstein(Discrepancy):
    """W_2 between the Gaussians with the samples' weighted means and covariances: sqrt(|m1 - m2|^2 + squared Bures distance).

    In units of x; covariances are those of the samples as they are (divided by n, not n - 1). A lower bound of W_2 between
    the samples (Gelbrich), blind to all but two moments; of image features its square is the Frechet inception distance. As an
    estimate between laws biased upward by O(d / n). Computed from factors of the data, never from a covariance, so that fewer
    points than dimensions, constant columns and condition numbers of 1e12 cost no accuracy. Gradients in points and weights;
    zero at coincidence. n d min(n, d) time, memory of the data. Source: Gelbrich (1990); Heusel et al. (2017, 1706.08500).
    """

    claims: ClassVar[Claims] = Claims(zero_at_equality=True, metric=True, degree=1.0)
    references: ClassVar[tuple[str, ...]] = ("gelbrich-1990", "heusel-2017")

    def _value(self, pair: SamplePair, generator: torch.Generator | None) -> Tensor:
        """The distance over the batch."""
        x, y = (t.reshape(-1, *t.shape[-2:]) for t in (pair.x, pair.y))
        a, b = (w.reshape(-1, w.shape[-1]) for w in (pair.a, pair.b))
        first = _in_order(x.detach(), y.detach())
        squared: Any = _SquaredDistance.apply(x, y, a, b, first)
        return root(squared, 2).to(pair.x.dtype).reshape(pair.batch)


def _in_order(x: Tensor, y: Tensor) -> bool:
    """Whether x comes first in an order that depends on the data only, so that exchanging the samples changes no bit."""
    if x.shape != y.shape:
        return x.shape[-2] > y.shape[-2]
    differs = (x != y).flatten()
    k = int(differs.int().argmax())
    return bool(x.flatten()[k] >= y.flatten()[k])


__all__ = ["GaussianWasserstein"]
