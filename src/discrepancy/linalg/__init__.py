"""Small pieces of linear algebra with exact limits: roots, functions of symmetric matrices, Lyapunov's operator, and the
affine-invariant geometry of positive definite ones."""

from discrepancy.linalg.affine_invariant import (
    affine_invariant_distance,
    affine_invariant_exp,
    affine_invariant_geodesic,
    affine_invariant_log,
    affine_invariant_mean,
    congruence,
)
from discrepancy.linalg.lyapunov import lyapunov, lyapunov_power
from discrepancy.linalg.roots import root
from discrepancy.linalg.symmetric import symmetric_exp, symmetric_floor, symmetric_function, symmetric_log, symmetric_power

__all__ = [
    "affine_invariant_distance",
    "affine_invariant_exp",
    "affine_invariant_geodesic",
    "affine_invariant_log",
    "affine_invariant_mean",
    "congruence",
    "lyapunov",
    "lyapunov_power",
    "root",
    "symmetric_exp",
    "symmetric_floor",
    "symmetric_function",
    "symmetric_log",
    "symmetric_power",
]
