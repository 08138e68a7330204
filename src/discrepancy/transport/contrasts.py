"""Directions along which two samples differ in mean or in variance: where a search for the worst direction begins."""

from __future__ import annotations

import torch
from torch import Tensor

_POWER_STEPS = 20


def contrasts(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Two unit vectors (B, 2, d) for x (B, n, d), y (B, m, d) with weights a (B, n), b (B, m): the difference of the means, and
    the axis along which the variances differ most, by power iteration; O((n + m) d) each, no d x d matrix."""
    mx, my = torch.einsum("bn,bnd->bd", a, x), torch.einsum("bm,bmd->bd", b, y)
    gap = mx - my
    length = torch.linalg.vector_norm(gap, dim=-1, keepdim=True)
    first = torch.zeros_like(gap)
    first[:, 0] = 1
    along = torch.where(length > 0, gap / torch.where(length > 0, length, torch.ones_like(length)), first)
    axis = torch.full_like(along, along.shape[-1] ** -0.5)
    for _ in range(_POWER_STEPS):
        parts = []
        for points, weight, m in ((x, a, mx), (y, b, my)):
            centred = points - m[:, None]
            parts.append(torch.einsum("bn,bnd->bd", weight * torch.einsum("bnd,bd->bn", centred, axis), centred))
        moved = parts[0] - parts[1]
        size = torch.linalg.vector_norm(moved, dim=-1, keepdim=True)
        axis = torch.where(size > 0, moved / torch.where(size > 0, size, torch.ones_like(size)), axis)
    starts = torch.stack([along, axis], 1)
    # Opposite vectors see the same distance; one is chosen, so that exchanging the samples changes no bit.
    leading = starts.gather(-1, starts.abs().argmax(-1, keepdim=True))
    return starts * torch.where(leading < 0, -1.0, 1.0).to(starts.dtype)


__all__ = ["contrasts"]
