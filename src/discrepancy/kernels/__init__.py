"""Kernels as objects (`Gaussian`, `Laplacian`, `InverseMultiquadric`, `NegativeDistance`, `Linear`), sums and bandwidth rules."""

from discrepancy.kernels.bandwidth import MedianHeuristic
from discrepancy.kernels.families import Gaussian, InverseMultiquadric, Laplacian, NegativeDistance
from discrepancy.kernels.kernel import Kernel, KernelSum, RadialKernel
from discrepancy.kernels.linear import Linear
from discrepancy.kernels.logarithm import LogKernel

__all__ = [
    "Gaussian",
    "InverseMultiquadric",
    "Kernel",
    "KernelSum",
    "Laplacian",
    "Linear",
    "LogKernel",
    "MedianHeuristic",
    "NegativeDistance",
    "RadialKernel",
]
