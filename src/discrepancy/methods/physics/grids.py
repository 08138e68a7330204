"""Between coarse and fine regular grids: block means and bilinear interpolation."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from discrepancy._validate import as_tensor, whole_number


def _planes(fields: Any, name: str) -> Tensor:
    x = as_tensor(fields, name)
    if x.ndim < 2 or x.numel() == 0:
        raise ValueError(f"{name} must have shape (..., H, W), got {tuple(x.shape)}")
    return x


def _factor(factor: int) -> int:
    whole_number(factor, 1, "factor")
    return factor


def block_mean(fields: Any, factor: int) -> Tensor:
    """Means over blocks of factor x factor cells: fields (..., H, W) to (..., H/factor, W/factor).

    Conserves totals, as rain on a coarse grid must. Raises ValueError where factor does not divide H and W.
    """
    x, k = _planes(fields, "fields"), _factor(factor)
    h, w = x.shape[-2:]
    if h % k or w % k:
        raise ValueError(f"factor {k} must divide both sides of the fields, got {h} x {w}")
    return x.reshape(*x.shape[:-2], h // k, k, w // k, k).mean((-3, -1))


def bilinear(fields: Any, factor: int) -> Tensor:
    """Bilinear interpolation to a grid `factor` times as fine: (..., h, w) to (..., factor h, factor w).

    Values belong to the middles of the cells; beyond the outer middles the nearest value is kept.
    """
    x, k = _planes(fields, "fields"), _factor(factor)
    flat = x.reshape(-1, 1, *x.shape[-2:])
    fine = F.interpolate(flat, scale_factor=k, mode="bilinear", align_corners=False)
    return fine.reshape(*x.shape[:-2], *fine.shape[-2:])


__all__ = ["bilinear", "block_mean"]
