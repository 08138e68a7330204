"""A fixed order of the two sides, so that a symmetric statistic is symmetric, and zero at equality, bit for bit."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from discrepancy._validate import SamplePair
from discrepancy.kernel_methods.streaming import working_dtype


class Sides(NamedTuple):
    """Both sides on a flat batch: points (B, n, d), weights (B, n) that sum to one in working precision, and `equal` (B,)."""

    x: Tensor
    a: Tensor
    y: Tensor
    b: Tensor
    equal: Tensor


def in_order(pair: SamplePair) -> Sides:
    """The two samples, the smaller first; of equal sizes, the one whose first differing number is smaller.

    Sums over pairs depend, in the last bits, on which sample is called x: with the sides in an order of their own,
    D(x, y) and D(y, x) run the same instructions. `equal` marks members whose two sides are the same numbers.
    Cost O(n d); differentiable.
    """
    d, dtype = pair.x.shape[-1], working_dtype(pair.x)
    x, y = pair.x.reshape(-1, pair.x.shape[-2], d), pair.y.reshape(-1, pair.y.shape[-2], d)
    a, b = (w.reshape(-1, w.shape[-1]).to(dtype) for w in (pair.a, pair.b))
    a, b = a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)
    equal = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    if x.shape != y.shape:
        return Sides(y, b, x, a, equal) if x.shape[1] > y.shape[1] else Sides(x, a, y, b, equal)
    with torch.no_grad():
        points, masses = (x - y).flatten(1), a - b
        difference = torch.where(
            (points != 0).any(1), _first_nonzero(points).to(dtype), _first_nonzero(masses)
        )  # of the points, or of the weights where all points are equal
        equal, swap = difference == 0, difference > 0
    if bool(swap.all()):
        x, a, y, b = y, b, x, a
    elif bool(swap.any()):
        wide, flat = swap[:, None, None], swap[:, None]
        x, y = torch.where(wide, y, x), torch.where(wide, x, y)
        a, b = torch.where(flat, b, a), torch.where(flat, a, b)
    return Sides(x, a, y, b, equal)


def _first_nonzero(rows: Tensor) -> Tensor:
    """The first non-zero entry of each row, or 0."""
    return rows.gather(1, (rows != 0).to(torch.uint8).argmax(1, keepdim=True)).squeeze(1)
