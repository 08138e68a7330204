"""Distances of mean embeddings (maximum mean discrepancy, energy distance), and the dependence of paired rows by kernels."""

from discrepancy.kernel_methods.dependence import CKA, HSIC, DistanceCovariance, minibatch_cka
from discrepancy.kernel_methods.energy import EnergyDistance
from discrepancy.kernel_methods.mmd import MMD

__all__ = ["CKA", "HSIC", "MMD", "DistanceCovariance", "EnergyDistance", "minibatch_cka"]
