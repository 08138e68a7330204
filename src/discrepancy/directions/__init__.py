"""Directions on the unit sphere: along which lines the sliced discrepancies look.

Each object draws L directions in d dimensions. Every single direction is uniform on the sphere (for `Hadamard`, nearly so),
hence a mean over them is unbiased; only independent ones give a valid standard error. Numbers are drawn in float64 and then
cast, so that one generator state means the same directions in either precision.
"""

from __future__ import annotations

from discrepancy.directions.base import Directions
from discrepancy.directions.families import Orthogonal, QuasiMonteCarlo, Uniform
from discrepancy.directions.hadamard import Hadamard
from discrepancy.directions.rotation_diagnostics import (
    hadamard_w2_to_sphere,
    marginal_ks,
    sign_quantisation_cosine,
    sketch_distortion,
    sphere_coordinate_cdf,
    vertex_gap,
)
from discrepancy.directions.rotations import HadamardRotation, Padding, haar_images, haar_rotation, hadamard_images
from discrepancy.directions.von_mises_fisher import VonMisesFisher
from discrepancy.directions.walsh_hadamard import hadamard_transform

__all__ = [
    "Directions",
    "Hadamard",
    "HadamardRotation",
    "Orthogonal",
    "Padding",
    "QuasiMonteCarlo",
    "Uniform",
    "VonMisesFisher",
    "haar_images",
    "haar_rotation",
    "hadamard_images",
    "hadamard_transform",
    "hadamard_w2_to_sphere",
    "marginal_ks",
    "sign_quantisation_cosine",
    "sketch_distortion",
    "sphere_coordinate_cdf",
    "vertex_gap",
]
