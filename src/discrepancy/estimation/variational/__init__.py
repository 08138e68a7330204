"""Divergences and mutual information from below, by trained critics that are judged on rows they have not seen."""

from discrepancy.estimation.variational.bound import VariationalBound
from discrepancy.estimation.variational.bounds import NWJ, SMILE, DonskerVaradhan, InfoNCE, JensenShannonBound
from discrepancy.estimation.variational.critics import Concatenated, Critic, GivenCritic, Separable
from discrepancy.estimation.variational.fitting import CriticTraining, GaussianStart

__all__ = [
    "NWJ",
    "SMILE",
    "Concatenated",
    "Critic",
    "CriticTraining",
    "DonskerVaradhan",
    "GaussianStart",
    "GivenCritic",
    "InfoNCE",
    "JensenShannonBound",
    "Separable",
    "VariationalBound",
]
