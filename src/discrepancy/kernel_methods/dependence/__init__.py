"""Dependence between paired rows by kernels: HSIC, distance covariance, centred kernel alignment, Cauchy-Schwarz information."""

from discrepancy.kernel_methods.dependence.alignment import CKA, minibatch_cka
from discrepancy.kernel_methods.dependence.cauchy_schwarz_information import CauchySchwarzInformation
from discrepancy.kernel_methods.dependence.hsic import HSIC, DistanceCovariance

__all__ = ["CKA", "HSIC", "CauchySchwarzInformation", "DistanceCovariance", "minibatch_cka"]
