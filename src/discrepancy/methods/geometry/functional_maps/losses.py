"""What a good pair of functional maps satisfies, as losses."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from discrepancy._results import Result
from discrepancy._validate import at_least
from discrepancy.methods.geometry.functional_maps.correspondence import Correspondence
from discrepancy.methods.geometry.laplacians import LaplacianBasis


@dataclass(frozen=True)
class LossWeights:
    """The factor of each term; a term with factor zero is not computed. Raises ValueError for a negative one."""

    bijectivity: float = 1.0
    orthogonality: float = 1.0
    commutativity: float = 0.0
    alignment: float = 1.0
    transport: float = 100.0
    dirichlet: float = 0.0

    def __post_init__(self) -> None:
        """Check the factors."""
        for f in fields(self):
            at_least(getattr(self, f.name), 0, f.name)


@dataclass(frozen=True, repr=False)
class FunctionalMapLosses(Result):
    """The terms, each a scalar tensor, zero where its weight is zero, and their weighted sum `total`.

    bijectivity    |C_xy C_yx - I|^2 + |C_yx C_xy - I|^2
    orthogonality  |C_xy^T C_xy - I|^2 + |C_yx^T C_yx - I|^2, zero for maps that keep area
    commutativity  |C_xy L_x - L_y C_xy|^2 + |C_yx L_y - L_x C_yx|^2, eigenvalues over the largest: zero for isometries
    alignment      |C_xy - Phi_Y^+ Pi_yx Phi_X|^2 + |C_yx - Phi_X^+ Pi_xy Phi_Y|^2, zero where both maps are one
    transport      the discrepancy between features and features pulled over from the other shape
    dirichlet      the energy of the coordinates pulled over, (tr + tr) / 2: small for smooth maps
    """

    total: Tensor
    bijectivity: Tensor
    orthogonality: Tensor
    commutativity: Tensor
    alignment: Tensor
    transport: Tensor
    dirichlet: Tensor


def _departure(product: Tensor) -> Tensor:
    """|product - I|^2."""
    return (product - torch.eye(len(product), dtype=product.dtype, device=product.device)).square().sum()


def fmap_losses(
    C_xy: Float[Tensor, "k k"],
    C_yx: Float[Tensor, "k k"],
    soft: Correspondence,
    basis_x: LaplacianBasis,
    basis_y: LaplacianBasis,
    *,
    weights: LossWeights | None = None,
    transport: Tensor | None = None,
) -> FunctionalMapLosses:
    """The terms for two functional maps and a soft correspondence; `transport`, computed by the caller, only enters the sum.

    Squared Frobenius norms. The Dirichlet term needs `points` and `stiffness` in both bases, and raises TypeError without.
    Time n_x n_y k for the alignment, k^3 for the rest.
    """
    w = weights or LossWeights()
    zero = C_xy.new_zeros(())
    terms = dict.fromkeys((f.name for f in fields(LossWeights)), zero)
    if w.bijectivity:
        terms["bijectivity"] = _departure(C_xy @ C_yx) + _departure(C_yx @ C_xy)
    if w.orthogonality:
        terms["orthogonality"] = _departure(C_xy.mT @ C_xy) + _departure(C_yx.mT @ C_yx)
    if w.commutativity:
        top = torch.maximum(basis_x.values[-1], basis_y.values[-1])
        gap = (basis_x.values - basis_y.values[:, None]) / top
        terms["commutativity"] = (C_xy * gap).square().sum() + (C_yx * gap.mT).square().sum()
    if w.alignment:
        pulled_y = basis_y.coefficients(soft.yx @ basis_x.vectors)
        pulled_x = basis_x.coefficients(soft.xy @ basis_y.vectors)
        terms["alignment"] = (C_xy - pulled_y).square().sum() + (C_yx - pulled_x).square().sum()
    if w.dirichlet:
        if basis_x.points is None or basis_y.points is None:
            raise TypeError("the Dirichlet term pulls coordinates over, and a basis without points has none: set its weight to 0")
        x, y = (b.points - (b.points * b.mass[:, None]).sum(0) / b.mass.sum() for b in (basis_x, basis_y))  # type: ignore[operator]
        terms["dirichlet"] = (basis_x.dirichlet_energy(soft.xy @ y) + basis_y.dirichlet_energy(soft.yx @ x)) / 2
    if transport is not None:
        terms["transport"] = transport
    total = sum((getattr(w, name) * value for name, value in terms.items()), zero)
    return FunctionalMapLosses(total=total, **terms)


__all__ = ["FunctionalMapLosses", "LossWeights", "fmap_losses"]
