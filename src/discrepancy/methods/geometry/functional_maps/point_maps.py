"""Between functional maps and point maps, and from coarse maps to fine ones."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from discrepancy._validate import whole_number
from discrepancy.methods.geometry.functional_maps.solve import same_size
from discrepancy.methods.geometry.laplacians import LaplacianBasis
from discrepancy.neighbors import nearest_neighbors


def fmap_to_point_map(C_xy: Float[Tensor, "k k"], basis_x: LaplacianBasis, basis_y: LaplacianBasis) -> Int[Tensor, " m"]:
    """y_to_x (n_y,): for each point of Y the point of X whose row of Phi_X is nearest to its row of Phi_Y C_xy.

    Raises ValueError for a map that does not fit the bases. Time n_x n_y k in blocks, memory n k.
    """
    if C_xy.shape != (basis_y.k, basis_x.k):
        raise ValueError(f"C_xy must have shape ({basis_y.k}, {basis_x.k}), from X to Y, got {tuple(C_xy.shape)}")
    return nearest_neighbors(basis_y.vectors @ C_xy.detach(), basis_x.vectors, 1).indices[:, 0]


def point_map_to_fmap(y_to_x: Int[Tensor, " m"], basis_x: LaplacianBasis, basis_y: LaplacianBasis) -> Float[Tensor, "k k"]:
    """C_xy = Phi_Y^T M_Y Phi_X[y_to_x]: the functional map of the point map that takes each point of Y to one of X.

    Raises ValueError for a map of another length or with indices that are not there. Time n_y k^2.
    """
    y_to_x = torch.as_tensor(y_to_x)
    if y_to_x.shape != (basis_y.n,):
        raise ValueError(f"y_to_x must have one entry for each of the {basis_y.n} points of Y, got shape {tuple(y_to_x.shape)}")
    if int(y_to_x.min()) < 0 or int(y_to_x.max()) >= basis_x.n:
        raise ValueError(f"y_to_x must number points of X, 0 to {basis_x.n - 1}, got {int(y_to_x.min())} to {int(y_to_x.max())}")
    return basis_y.coefficients(basis_x.vectors[y_to_x])


def zoom_out(
    C_xy: Float[Tensor, "k k"], basis_x: LaplacianBasis, basis_y: LaplacianBasis, *, step: int = 5
) -> Float[Tensor, "l l"]:
    """The map refined from its own size k to that of the bases: point map, functional map with `step` more eigenfunctions, again.

    Raises ValueError for a map larger than the bases or a step below 1. (l - k) / step nearest-neighbour searches.
    Source: Melzi et al. (2019).
    """
    same_size(basis_x, basis_y)
    k = C_xy.shape[0]
    if C_xy.shape != (k, k) or k > basis_x.k:
        raise ValueError(f"C_xy must be square with at most {basis_x.k} rows, the size of the bases, got {tuple(C_xy.shape)}")
    whole_number(step, 1, "step")
    C = C_xy.detach()
    while k < basis_x.k:
        small = fmap_to_point_map(C, basis_x.truncated(k), basis_y.truncated(k))
        k = min(k + step, basis_x.k)
        C = point_map_to_fmap(small, basis_x.truncated(k), basis_y.truncated(k))
    return C


__all__ = ["fmap_to_point_map", "point_map_to_fmap", "zoom_out"]
