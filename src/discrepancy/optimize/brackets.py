"""Where a non-decreasing function crosses zero: both sides of the place, which differ where it jumps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Bracket:
    """Where a function changes sign, elementwise: `low` <= `high`, below zero at the first and not below at the second."""

    low: Tensor
    high: Tensor


@torch.no_grad()
def increasing_bracket(
    function: Callable[[Tensor], Tensor], low: Tensor, high: Tensor, *, tolerance: float = 4e-16, iterations: int = 120
) -> Bracket:
    """The sign change of an elementwise non-decreasing function between `low` and `high`, by Chandrupatla's method.

    low, high (...): finite float64 tensors with low <= high. Where the function is not below zero at `low` already, both ends are
    `low`; where it is below zero at `high`, both are `high`; where it is hit exactly, both are the root. Elsewhere the ends are
    apart by `tolerance` of their size and the rounding of the first bracket, so that at a jump across zero they hold its two
    sides. Infinite values count by their sign. Some ten evaluations where the function is smooth, sixty at a jump.
    Source: Chandrupatla (1997).
    """
    floor = 4 * torch.finfo(low.dtype).eps * (high - low).abs()
    first, last = function(low), function(high)
    early, late = first >= 0, last < 0
    a, fa, b, fb = low, first, high, last
    c, fc = b, fb
    t = torch.full_like(low, 0.5)
    for _ in range(iterations):
        width = (b - a).abs()
        slack = tolerance * torch.maximum(a.abs(), b.abs()) + floor
        done = early | late | (width <= slack) | (fa == 0)
        if bool(done.all()):
            break
        edge = (slack / torch.where(width > 0, width, torch.ones_like(width))).clamp(max=0.5)
        x = torch.where(done, a, a + torch.minimum(torch.maximum(t, edge), 1 - edge) * (b - a))
        fx = torch.where(done, fa, function(x))
        same = (fx >= 0) == (fa >= 0)
        # A place that is done keeps its bracket: same holds there, so that b stays and a is put back.
        c, fc = torch.where(same, a, b), torch.where(same, fa, fb)
        b, fb = torch.where(same, b, a), torch.where(same, fb, fa)
        a, fa = x, fx
        xi, phi = (a - b) / (c - b), (fa - fb) / (fc - fb)
        step = fa / (fb - fa) * fc / (fb - fc) + (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
        quadratic = (phi.square() < xi) & ((1 - phi).square() < 1 - xi) & torch.isfinite(step)
        t = torch.where(quadratic, step, torch.full_like(t, 0.5))
    hit = fa == 0
    left = torch.where(hit, a, torch.where(fa < 0, a, b))
    right = torch.where(hit, a, torch.where(fa < 0, b, a))
    left = torch.where(early, low, torch.where(late, high, left))
    return Bracket(left, torch.where(early, low, torch.where(late, high, right)))


__all__ = ["Bracket", "increasing_bracket"]
