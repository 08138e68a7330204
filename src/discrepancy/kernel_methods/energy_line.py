"""The energy distance on the line, 2 int (F - G)^2 dt, by sorting: n log n, with exact gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from discrepancy.kernel_methods.variance import Moments
from discrepancy.kernels.first_order import first_order

# Entries of the cumulative weight rows that a pooled statistic holds at a time (64 MiB of float64).
_POOLED_ENTRIES = 1 << 23


def ascending(values: Tensor) -> tuple[Tensor, Tensor]:
    """Values (..., n) in ascending order and the indices that order them.

    On the CPU by NumPy, whose vectorised sort is several times faster than torch's.
    """
    if values.device.type != "cpu":
        ordered = values.sort(-1)
        return ordered.values, ordered.indices
    indices = torch.from_numpy(np.argsort(values.detach().numpy(), axis=-1))
    return values.gather(-1, indices), indices


def _ranks(knots: Tensor, t: Tensor, *, right: bool) -> Tensor:
    """How many knots (B, n) lie below each t (B, k), both ascending; at or below it if `right`."""
    if knots.device.type != "cpu":
        return torch.searchsorted(knots, t, right=right)
    from discrepancy._loops.merging import ranks

    out = np.empty(t.shape, np.int64)
    ranks(knots.numpy(), t.numpy(), right, out)
    return torch.from_numpy(out)


class _Distribution:
    """The distribution function of a weighted sample on the line, values and weights (B, n).

    `ordered`: whether the permutation will be asked for; equal weights alone do without it, and sort several times faster.
    """

    def __init__(self, values: Tensor, weights: Tensor, *, ordered: bool) -> None:
        if not ordered and values.device.type == "cpu" and bool((weights == weights[:, :1]).all()):
            self.knots, mass = torch.from_numpy(np.sort(values.numpy(), axis=-1)), weights.cumsum(-1)
        else:
            self.knots, self.order = ascending(values)
            mass = weights.gather(-1, self.order).cumsum(-1)
        self.mass = torch.cat([mass.new_zeros(len(mass), 1), mass], -1)

    def at(self, t: Tensor) -> Tensor:
        """The mass of values <= t, t ascending."""
        return self.mass.gather(-1, _ranks(self.knots, t, right=True))

    def before(self, t: Tensor) -> Tensor:
        """The mass of values < t, t ascending."""
        return self.mass.gather(-1, _ranks(self.knots, t, right=False))

    def restored(self, at_knots: Tensor) -> Tensor:
        """Values at the knots in the order of the sample. (Look-ups in ascending order are several times faster.)"""
        return torch.empty_like(at_knots).scatter_(-1, self.order, at_knots)


def _gaps(F: _Distribution, G: _Distribution) -> tuple[Tensor, Tensor, Tensor]:
    """The merged knots, and between them F - G and the lengths."""
    merged = torch.cat([F.knots, G.knots], -1)
    knots = torch.from_numpy(np.sort(merged.numpy(), axis=-1)) if merged.device.type == "cpu" else merged.sort(-1).values
    return knots, (F.at(knots) - G.at(knots))[:, :-1], knots.diff(dim=-1)


def tensor_area(F: _Distribution, G: _Distribution) -> Tensor:
    """int (F - G)^2 (B,) in tensor operations, for devices without a loop."""
    _, heights, gaps = _gaps(F, G)
    return (heights.square() * gaps).sum(-1)


def loop_area(F: _Distribution, G: _Distribution) -> Tensor:
    """The same for CPU tensors, by one walk along both samples."""
    from discrepancy._loops.merging import squared_area

    out = np.empty(len(F.knots))
    squared_area(F.knots.numpy(), F.mass.numpy(), G.knots.numpy(), G.mass.numpy(), out)
    return torch.from_numpy(out).to(F.knots.dtype)


class LineEnergy(torch.autograd.Function):
    """2 sum_k (F - G)(z_k)^2 (z_{k+1} - z_k) over the merged knots z; `LineEnergy.apply(x, a, y, b)` -> (B,).

    x (B, n), y (B, m) and weights of the same dtype. Both distribution functions are summed each in its own order, so that
    they cancel exactly where the samples are equal, and exchanging the sides changes no bit. Where points of the two
    samples coincide the gradient is the mean of the one-sided derivatives.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, y: Tensor, b: Tensor) -> Tensor:
        need = ctx.needs_input_grad
        x, a, y, b = (t.detach() for t in (x, a, y, b))
        F, G = _Distribution(x, a, ordered=need[0] or need[1]), _Distribution(y, b, ordered=need[2] or need[3])
        gradients: list[Tensor | None] = [None] * 4
        if need[0]:
            gradients[0] = -2 * a * F.restored(F.at(F.knots) - G.at(F.knots) + (F.before(F.knots) - G.before(F.knots)))
        if need[2]:
            gradients[2] = 2 * b * G.restored(F.at(G.knots) - G.at(G.knots) + (F.before(G.knots) - G.before(G.knots)))
        if need[1] or need[3]:
            knots, heights, gaps = _gaps(F, G)
            areas = heights * gaps
            # The influence of mass at t: 4 int_t^inf (F - G), as a sum over the gaps above t.
            above = torch.cat([4 * areas.flip(-1).cumsum(-1).flip(-1), areas.new_zeros(len(areas), 1)], -1)
            if need[1]:
                gradients[1] = F.restored(above.gather(-1, _ranks(knots, F.knots, right=False)))
            if need[3]:
                gradients[3] = -G.restored(above.gather(-1, _ranks(knots, G.knots, right=False)))
        ctx.gradients = gradients
        return 2 * (loop_area if x.device.type == "cpu" else tensor_area)(F, G)

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        g = grads[0].unsqueeze(-1)
        return tuple(
            g * stored if wanted and stored is not None else None
            for stored, wanted in zip(ctx.gradients, ctx.needs_input_grad, strict=True)
        )


def pooled_line(z: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The statistic of weight rows on a cloud z (N,): one sort here, then a cumulative sum a row; cost O(R N)."""
    knots, order = ascending(z.detach().double())
    gaps = knots.diff()

    def statistic(A: Tensor, B: Tensor) -> Tensor:
        values = []
        step = max(1, _POOLED_ENTRIES // len(z))
        for start in range(0, len(A), step):
            difference = A[start : start + step].double() - B[start : start + step].double()
            heights = difference[:, order].cumsum_(-1)[:, :-1]
            values.append(2 * (heights.square_() @ gaps))
        return torch.cat(values).to(z.dtype)

    return statistic


def line_moments(x: Tensor, a: Tensor, y: Tensor, b: Tensor) -> Moments:
    """The moments of the kernel -|x - y| on the line, x (B, n), y (B, m), in n log n; see `variance.Moments`."""
    centre = y.mean(-1, keepdim=True)
    x, y = x - centre, y - centre
    aa, bb = a.square(), b.square()
    # sum_ij a_i^2 b_j^2 (x_i - y_j)^2, expanded: both are centred, and only a variance is made of it.
    square = (aa * x * x).sum(-1) * bb.sum(-1) - 2 * (aa * x).sum(-1) * (bb * y).sum(-1) + aa.sum(-1) * (bb * y * y).sum(-1)
    return Moments(-_mean(x, y, b), -_mean(x, y, bb), -_mean(y, x, a), -_mean(y, x, aa), square)


def _mean(t: Tensor, x: Tensor, w: Tensor) -> Tensor:
    """sum_j w_j |t_i - x_j|."""
    knots, order = ascending(x)
    mass = w.gather(-1, order)
    sums = torch.stack([mass, mass * knots]).cumsum(-1)
    below, total = torch.cat([torch.zeros_like(sums[..., :1]), sums], -1), sums[..., -1:]
    index = torch.searchsorted(knots, t, right=True)
    return t * (2 * below[0].gather(-1, index) - total[0]) - (2 * below[1].gather(-1, index) - total[1])
