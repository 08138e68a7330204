"""Methods for physical systems: fields, molecules, differential equations."""

from discrepancy.methods.physics.analytic_surfaces import LennardJones, MullerBrown
from discrepancy.methods.physics.configurations import Aggregate, ConfigurationDistance, configuration_distance
from discrepancy.methods.physics.dimer import Dimer
from discrepancy.methods.physics.farthest_points import farthest_point_subset
from discrepancy.methods.physics.gp_saddle_pruning import GPDimer, saddle_search
from discrepancy.methods.physics.gradient_gp import GPWithGradients, VarianceBarrier
from discrepancy.methods.physics.gradient_kernels import CartesianKernel, InverseDistanceKernel
from discrepancy.methods.physics.saddle_options import AdaptiveRadius, FixedRadius, Pruning, SaddleResult

__all__ = [
    "AdaptiveRadius",
    "Aggregate",
    "CartesianKernel",
    "ConfigurationDistance",
    "Dimer",
    "FixedRadius",
    "GPDimer",
    "GPWithGradients",
    "InverseDistanceKernel",
    "LennardJones",
    "MullerBrown",
    "Pruning",
    "SaddleResult",
    "VarianceBarrier",
    "configuration_distance",
    "farthest_point_subset",
    "saddle_search",
]
