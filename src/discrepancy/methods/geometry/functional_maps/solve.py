"""The functional map that carries features of one shape to those of another, by regularised least squares."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from discrepancy._results import NumericalError
from discrepancy._validate import at_least, positive, require_finite
from discrepancy.methods.geometry.laplacians import LaplacianBasis


def same_size(basis_x: LaplacianBasis, basis_y: LaplacianBasis) -> None:
    """ValueError unless both bases have as many eigenfunctions, TypeError unless they are of one dtype."""
    if basis_x.k != basis_y.k:
        k = min(basis_x.k, basis_y.k)
        raise ValueError(
            f"basis_x has {basis_x.k} eigenfunctions and basis_y {basis_y.k}: "
            f"the mask compares spectra of one length, take .truncated({k})"
        )
    if basis_x.vectors.dtype != basis_y.vectors.dtype:
        raise TypeError(f"basis_x is {basis_x.vectors.dtype} and basis_y {basis_y.vectors.dtype}: build both from one dtype")


def resolvent_mask(values_x: Float[Tensor, " k"], values_y: Float[Tensor, " k"], *, gamma: float = 0.5) -> Float[Tensor, "k k"]:
    """D_ij = |r(g_i) - r(h_j)|^2, the squared distance of the resolvents of two Laplacians, for eigenvalues i of Y and j of X.

    r(g) = (g / (g^2 + 1), 1 / (g^2 + 1)), g and h the eigenvalues over the largest of both shapes, to the power gamma. Zero where
    eigenvalues agree: a map between isometric shapes pays nothing. Raises ValueError for gamma <= 0 and spectra that are all
    zero. Source: Ren et al. (2019).
    """
    positive(gamma, "gamma")
    top = torch.maximum(values_x[-1], values_y[-1])
    if not float(top) > 0:
        raise ValueError("the eigenvalues are all zero: ask for more of them")
    g, h = (values_y / top) ** gamma, (values_x / top) ** gamma

    def resolvent(v: Tensor) -> tuple[Tensor, Tensor]:
        return v / (v.square() + 1), 1 / (v.square() + 1)

    (g_imaginary, g_real), (h_imaginary, h_real) = resolvent(g), resolvent(h)
    return (g_imaginary[:, None] - h_imaginary).square() + (g_real[:, None] - h_real).square()


def functional_map(
    features_x: Float[Tensor, "n c"],
    features_y: Float[Tensor, "m c"],
    basis_x: LaplacianBasis,
    basis_y: LaplacianBasis,
    *,
    weight: float = 100.0,
    gamma: float = 0.5,
) -> Float[Tensor, "k k"]:
    """C_xy, the minimiser of |C A - B|^2 + weight sum_ij D_ij C_ij^2 for the features' coefficients A on X and B on Y.

    D is the `resolvent_mask` with this gamma. Row i solves (A A^T + weight diag D_i) c_i = A B_i, all k rows in one batch:
    k^4 / 3 operations and k^3 numbers (64 MB at k = 200 in float64), differentiable in both features. Raises ValueError for
    features that do not fit their basis or each other, TypeError for mixed dtypes, NumericalError where the systems are singular
    (weight 0 and fewer features than eigenfunctions). Source: Ovsjanikov et al. (2012); Ren et al. (2019).
    """
    same_size(basis_x, basis_y)
    at_least(weight, 0, "weight")
    for name, f, basis in (("features_x", features_x, basis_x), ("features_y", features_y, basis_y)):
        if f.ndim != 2 or f.shape[0] != basis.n:
            raise ValueError(f"{name} must have shape ({basis.n}, c), a row for each point of its basis, got {tuple(f.shape)}")
        if f.dtype != basis.vectors.dtype:
            raise TypeError(f"{name} is {f.dtype} and its basis {basis.vectors.dtype}: convert one of them")
        require_finite(f, name)
    if features_x.shape[1] != features_y.shape[1]:
        raise ValueError(
            f"features_x has {features_x.shape[1]} columns and features_y {features_y.shape[1]}: they must correspond"
        )
    A, B = basis_x.coefficients(features_x), basis_y.coefficients(features_y)
    systems = A @ A.mT + weight * torch.diag_embed(resolvent_mask(basis_x.values, basis_y.values, gamma=gamma))
    rows, info = torch.linalg.solve_ex(systems, (B @ A.mT)[:, :, None])
    if bool((info != 0).any()):
        raise NumericalError(
            f"functional map: {int((info != 0).sum())} of {len(info)} rows have a singular system; "
            "take more features, or a positive weight"
        )
    return rows.squeeze(-1)


__all__ = ["functional_map", "resolvent_mask", "same_size"]
