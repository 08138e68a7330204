"""Barycenters: the measure that is closest, on weighted average, to several given ones."""

from discrepancy.transport.barycenters.fixed_support import FixedSupportBarycenter, fixed_support_barycenter
from discrepancy.transport.barycenters.free_support import Barycenter, barycenter
from discrepancy.transport.barycenters.optimised_weights import OptimisedWeights
from discrepancy.transport.barycenters.problems import DebiasedBarycenter, EntropicBarycenter, ExactBarycenter

__all__ = [
    "Barycenter",
    "DebiasedBarycenter",
    "EntropicBarycenter",
    "ExactBarycenter",
    "FixedSupportBarycenter",
    "OptimisedWeights",
    "barycenter",
    "fixed_support_barycenter",
]
