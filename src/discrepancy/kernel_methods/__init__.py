"""Distances of mean embeddings (maximum mean discrepancy, energy distance, Cauchy-Schwarz), and the dependence of paired rows."""

from discrepancy.kernel_methods.cauchy_schwarz import (
    ConditionalCauchySchwarz,
    ConditionalWeights,
    DegenerateKernelWarning,
    GeneralizedKernelCauchySchwarz,
    KernelCauchySchwarz,
)
from discrepancy.kernel_methods.density_entropy import KernelEntropy
from discrepancy.kernel_methods.dependence import (
    CKA,
    HSIC,
    CauchySchwarzInformation,
    DistanceCovariance,
    minibatch_cka,
)
from discrepancy.kernel_methods.energy import EnergyDistance
from discrepancy.kernel_methods.invariant_kernel import InvariantKernel
from discrepancy.kernel_methods.mmd import MMD

__all__ = [
    "CKA",
    "HSIC",
    "MMD",
    "CauchySchwarzInformation",
    "ConditionalCauchySchwarz",
    "ConditionalWeights",
    "DegenerateKernelWarning",
    "DistanceCovariance",
    "EnergyDistance",
    "GeneralizedKernelCauchySchwarz",
    "InvariantKernel",
    "KernelCauchySchwarz",
    "KernelEntropy",
    "minibatch_cka",
]
