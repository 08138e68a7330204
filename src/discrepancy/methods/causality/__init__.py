"""Causal effects and structural parameters from observational data."""

from discrepancy.methods.causality.baselines import (
    EarlyFit,
    gmm,
    least_squares,
    maximum_moment_restriction,
    mmr_statistic,
    sieve_minimum_distance,
)
from discrepancy.methods.causality.bounding import aggregate_bounds, divergence_radius, manski_bounds
from discrepancy.methods.causality.causal_bounds import CausalBand, CausalBounds
from discrepancy.methods.causality.dual_networks import DualLoss, dual_loss
from discrepancy.methods.causality.kernel_method_of_moments import KernelIVRegressor, KernelMethodOfMoments
from discrepancy.methods.causality.kmm_options import (
    KernelInstruments,
    NeuralInstruments,
    ProfileSolver,
    SaddleSolver,
    SmoothedReference,
)
from discrepancy.methods.causality.outcomes import Clipped, UpTo

__all__ = [
    "CausalBand",
    "CausalBounds",
    "Clipped",
    "DualLoss",
    "EarlyFit",
    "KernelIVRegressor",
    "KernelInstruments",
    "KernelMethodOfMoments",
    "NeuralInstruments",
    "ProfileSolver",
    "SaddleSolver",
    "SmoothedReference",
    "UpTo",
    "aggregate_bounds",
    "divergence_radius",
    "dual_loss",
    "gmm",
    "least_squares",
    "manski_bounds",
    "maximum_moment_restriction",
    "mmr_statistic",
    "sieve_minimum_distance",
]
