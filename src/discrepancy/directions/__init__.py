"""Directions on the unit sphere: along which lines the sliced discrepancies look.

Each object draws L directions in d dimensions. Every single direction is uniform on the sphere (for `Hadamard`, nearly so),
hence a mean over them is unbiased; only independent ones give a valid standard error. Numbers are drawn in float64 and then
cast, so that one generator state means the same directions in either precision.
"""

from __future__ import annotations

from discrepancy.directions.base import Directions
from discrepancy.directions.families import Orthogonal, QuasiMonteCarlo, Uniform
from discrepancy.directions.hadamard import Hadamard, hadamard_transform

__all__ = ["Directions", "Hadamard", "Orthogonal", "QuasiMonteCarlo", "Uniform", "hadamard_transform"]
