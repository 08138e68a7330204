"""Dependence between paired rows by kernels: HSIC, distance covariance, centred kernel alignment."""

from discrepancy.kernel_methods.dependence.alignment import CKA, minibatch_cka
from discrepancy.kernel_methods.dependence.hsic import HSIC, DistanceCovariance

__all__ = ["CKA", "HSIC", "DistanceCovariance", "minibatch_cka"]
