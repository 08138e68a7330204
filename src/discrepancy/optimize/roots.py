"""Finding roots of monotone functions, elementwise and safely."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


@torch.no_grad()
def increasing_root(function: Callable[[Tensor], Tensor], target: Tensor, low: float, high: float) -> Tensor:
    """The x in [low, high] where an elementwise non-decreasing function reaches `target`, by bisection in float64.

    Where function(low) >= target the answer is `low`, where function(high) <= target it is `high`; at a jump across the
    target it is the place of the jump. No gradient: attach it by the implicit function theorem.
    target: any shape. Raises ValueError unless low < high are finite. Time: one evaluation of `function` an iteration,
    some 60 in all, until the bracket is 2^-60 of its width or at neighbouring floats; memory a few copies of target.
    """
    if not (torch.isfinite(torch.tensor([low, high])).all() and low < high):
        raise ValueError(f"the bracket must be finite with low < high, got [{low!r}, {high!r}]")
    target = target.double()
    a, b = torch.full_like(target, low), torch.full_like(target, high)
    for _ in range(60):  # halvings: beyond them, only a root next to zero would still gain digits
        middle = a + (b - a) / 2
        if bool(((middle <= a) | (middle >= b)).all()):
            break
        below = function(middle) < target
        a, b = torch.where(below, middle, a), torch.where(below, b, middle)
    at_low, at_high = function(torch.full_like(target, low)) >= target, function(torch.full_like(target, high)) <= target
    root = torch.where(at_high, torch.full_like(target, high), b)
    return torch.where(at_low, torch.full_like(target, low), root)


__all__ = ["increasing_root"]
