"""Kernels as objects: `Gaussian`, `Laplacian`, `InverseMultiquadric`, `NegativeDistance`, their sums, and bandwidth rules."""

from discrepancy.kernels.bandwidth import MedianHeuristic
from discrepancy.kernels.families import Gaussian, InverseMultiquadric, Laplacian, NegativeDistance
from discrepancy.kernels.kernel import Kernel, KernelSum, RadialKernel

__all__ = [
    "Gaussian",
    "InverseMultiquadric",
    "Kernel",
    "KernelSum",
    "Laplacian",
    "MedianHeuristic",
    "NegativeDistance",
    "RadialKernel",
]
