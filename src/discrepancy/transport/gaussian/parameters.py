"""The boundary for Gaussian parameters: means and covariances as the formulas take them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from discrepancy._validate import as_tensor, require_finite

# A covariance may be asymmetric, or have negative eigenvalues, by this share of its largest entry: rounding of whoever made it.
_ROUNDING = {torch.float64: 1e-8, torch.float32: 1e-4}


def covariance(S: Any, name: str, *, like: Tensor | None = None) -> Tensor:
    """A stack of covariances (..., d, d) as a symmetric tensor; ValueError naming what is wrong with it."""
    matrix = as_tensor(S, name, like=like)
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2] or matrix.shape[-1] == 0:
        raise ValueError(f"{name} must be square covariance matrices of shape (..., d, d), got {tuple(matrix.shape)}")
    require_finite(matrix, name)
    allowed = _ROUNDING.get(matrix.dtype, 1e-4)
    values = matrix.detach()
    low, high = values.flatten(-2).aminmax(dim=-1)
    size = torch.maximum(-low, high).clamp_min(torch.finfo(matrix.dtype).tiny)
    asymmetry = float(((values - values.mT).flatten(-2).amax(-1) / size).max())  # the difference is odd: its maximum is its size
    if asymmetry > allowed:
        raise ValueError(
            f"{name} is not symmetric: entries differ by {asymmetry:.2g} of the largest; pass (S + S.mT) / 2 if that is noise"
        )
    symmetric = matrix if asymmetry == 0 else (matrix + matrix.mT) / 2
    lifted = symmetric.detach().clone()
    lifted.diagonal(dim1=-2, dim2=-1).add_(2 * allowed * size[..., None])
    if bool((torch.linalg.cholesky_ex(lifted).info > 0).any()):
        lowest = float((torch.linalg.eigvalsh(symmetric.detach())[..., 0] / size).min())
        raise ValueError(f"{name} is no covariance: an eigenvalue is {lowest:.2g} times its largest entry")
    return symmetric


def mean(m: Any, name: str, covariance: Tensor) -> Tensor:
    """A mean (..., d) that fits the covariances, zero where None."""
    d = covariance.shape[-1]
    if m is None:
        return torch.zeros(d, dtype=covariance.dtype, device=covariance.device)
    vector = as_tensor(m, name, like=covariance)
    if vector.ndim < 1 or vector.shape[-1] != d:
        raise ValueError(f"{name} must have shape (..., {d}) to fit its covariance, got {tuple(vector.shape)}")
    require_finite(vector, name)
    return vector


def gaussians(m1: Any, S1: Any, m2: Any, S2: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two Gaussians of one space, checked and broadcast against each other."""
    first = covariance(S1, "S1")
    second = covariance(S2, "S2", like=first)
    if first.shape[-1] != second.shape[-1]:
        raise ValueError(
            f"S1 has dimension {first.shape[-1]} and S2 {second.shape[-1]}: both Gaussians must live in the same space"
        )
    return mean(m1, "m1", first), first, mean(m2, "m2", second), second


__all__ = ["covariance", "gaussians", "mean"]
