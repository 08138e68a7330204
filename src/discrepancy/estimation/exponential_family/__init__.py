"""Exponential families as objects: statistics, means and parameters, cumulants, fits, divergences between members."""

from discrepancy.estimation.exponential_family.closed import Exponential, Gaussian, Poisson
from discrepancy.estimation.exponential_family.cumulants import Cumulants, DrawCumulants, PartitionCumulants, StateCumulants
from discrepancy.estimation.exponential_family.custom import CustomFamily
from discrepancy.estimation.exponential_family.family import ExponentialFamily, Fit, information_projection, kl_between
from discrepancy.estimation.exponential_family.ising import Ising
from discrepancy.estimation.exponential_family.log_linear import LogLinear
from discrepancy.estimation.exponential_family.polynomial import PolynomialExp
from discrepancy.estimation.exponential_family.sampled import SampledFamily

__all__ = [
    "Cumulants",
    "CustomFamily",
    "DrawCumulants",
    "Exponential",
    "ExponentialFamily",
    "Fit",
    "Gaussian",
    "Ising",
    "LogLinear",
    "PartitionCumulants",
    "Poisson",
    "PolynomialExp",
    "SampledFamily",
    "StateCumulants",
    "information_projection",
    "kl_between",
]
