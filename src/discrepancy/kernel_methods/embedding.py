"""What the distances of mean embeddings share: the statistic, the choice of the bandwidth, the witness function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from discrepancy._validate import SamplePair, sample
from discrepancy.kernel_methods.ordering import Sides
from discrepancy.kernel_methods.quadratic_form import require_pairs
from discrepancy.kernel_methods.streaming import CrossSum, KernelMean, OffDiagonalSum
from discrepancy.kernels.kernel import Kernel


def resolved_kernel(kernel: Kernel, sides: Sides) -> Kernel:
    """The kernel with its bandwidth chosen on the pooled sample, each side counting by its effective size 1 / sum a^2."""
    with torch.no_grad():
        z = torch.cat([sides.x, sides.y], -2)
        sizes = [1 / w.square().sum(-1, keepdim=True) for w in (sides.a, sides.b)]
        return kernel.resolve(z, torch.cat([sides.a * sizes[0], sides.b * sizes[1]], -1))


def squared_distance(kernel: Kernel, sides: Sides, *, unbiased: bool) -> Tensor:
    """The squared distance of the mean embeddings (B,) under a resolved kernel, as U- or V-statistic.

    U: sum_{i != j} a_i a_j k(x_i, x_j) / (1 - sum a^2) + the same for y - 2 sum_ij a_i b_j k(x_i, y_j). V: a'Ka + b'Kb - 2 a'Kb,
    exactly 0 where the sides are equal and never below. Differentiable once in points and weights.
    """
    x, a, y, b, equal = sides
    within_x, within_y = OffDiagonalSum.apply(kernel, x, a), OffDiagonalSum.apply(kernel, y, b)
    across = CrossSum.apply(kernel, x, a, y, b)
    if unbiased:
        return within_x / require_pairs(a, "one sample") + within_y / require_pairs(b, "one sample") - 2 * across
    own = (a * a * kernel.diagonal(x)).sum(-1) + (b * b * kernel.diagonal(y)).sum(-1)
    return torch.where(equal, 0.0, (within_x + within_y + own - 2 * across).clamp_min(0.0))


def witness_function(kernel: Kernel, pair: SamplePair) -> Callable[[Any], Tensor]:
    """t -> sum_i a_i k(t, x_i) - sum_j b_j k(t, y_j): points (..., k, d) to values (..., k), differentiable."""

    def witness(points: Any) -> Tensor:
        t = sample(points, "points", like=pair.x)
        d = pair.x.shape[-1]
        if t.shape[-1] != d:
            raise ValueError(f"points has {t.shape[-1]} features and the samples have {d}: they must live in one space")
        batch = torch.broadcast_shapes(t.shape[:-2], pair.batch)
        t = t.expand(*batch, *t.shape[-2:])
        flat = t.reshape(-1, *t.shape[-2:])

        def mean(x: Tensor, a: Tensor) -> Tensor:
            x, a = x.expand(*batch, *x.shape[-2:]), a.expand(*batch, a.shape[-1])
            return KernelMean.apply(kernel, flat, x.reshape(-1, *x.shape[-2:]), a.reshape(-1, a.shape[-1]))

        return (mean(pair.x, pair.a) - mean(pair.y, pair.b)).reshape(t.shape[:-1]).to(pair.x.dtype)

    return witness
