"""Roots of numbers that may be zero."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def root(value: Tensor, p: float) -> Tensor:
    """value^(1/p) for value >= 0, with gradient zero (not infinite) at zero; p = 1 and p = inf leave the value as it is."""
    if p == 1 or math.isinf(p):
        return value
    positive = value > 0
    inner = torch.where(positive, value, torch.ones_like(value))
    return torch.where(positive, inner.sqrt() if p == 2 else inner ** (1.0 / p), torch.zeros_like(value))


__all__ = ["root"]
