"""Functional maps: correspondences between shapes as small matrices between their Laplacian eigenfunctions.

Directions, everywhere: C_xy takes coefficients on X to coefficients on Y; it pulls functions back along point maps that go the
other way, `y_to_x` (n_y,), the point of X that each point of Y comes from. Pi_yx (n_y, n_x) is that map as a matrix with rows
that sum to one, C_xy = Phi_Y^T M_Y Pi_yx Phi_X.
"""

from discrepancy.methods.geometry.functional_maps.correspondence import (
    Correspondence,
    EntropicCorrespondence,
    SoftCorrespondence,
    SoftmaxCorrespondence,
    TransportCorrespondence,
)
from discrepancy.methods.geometry.functional_maps.geodesics import GeodesicError, geodesic_distances, geodesic_error
from discrepancy.methods.geometry.functional_maps.losses import FunctionalMapLosses, LossWeights, fmap_losses
from discrepancy.methods.geometry.functional_maps.point_maps import fmap_to_point_map, point_map_to_fmap, zoom_out
from discrepancy.methods.geometry.functional_maps.solve import functional_map, resolvent_mask

__all__ = [
    "Correspondence",
    "EntropicCorrespondence",
    "FunctionalMapLosses",
    "GeodesicError",
    "LossWeights",
    "SoftCorrespondence",
    "SoftmaxCorrespondence",
    "TransportCorrespondence",
    "fmap_losses",
    "fmap_to_point_map",
    "functional_map",
    "geodesic_distances",
    "geodesic_error",
    "point_map_to_fmap",
    "resolvent_mask",
    "zoom_out",
]
