"""Cauchy-Schwarz divergences between samples: of two, of conditional laws, of several at once."""

from discrepancy.kernel_methods.cauchy_schwarz.conditional import (
    ConditionalCauchySchwarz,
    ConditionalWeights,
    DegenerateKernelWarning,
)
from discrepancy.kernel_methods.cauchy_schwarz.divergence import KernelCauchySchwarz
from discrepancy.kernel_methods.cauchy_schwarz.generalized import GeneralizedKernelCauchySchwarz

__all__ = [
    "ConditionalCauchySchwarz",
    "ConditionalWeights",
    "DegenerateKernelWarning",
    "GeneralizedKernelCauchySchwarz",
    "KernelCauchySchwarz",
]
