"""Divergences from samples, with their uncertainty."""

from discrepancy.estimation.classifier_bound import ClassifierBound
from discrepancy.estimation.estimate import Method, estimate
from discrepancy.estimation.information import (
    ConditionalInformationMethod,
    EntropyMethod,
    InformationMethod,
    SampleSizeWarning,
    conditional_mutual_information,
    entropy,
    mutual_information,
)
from discrepancy.estimation.nearest import NearestNeighbors
from discrepancy.estimation.reference import GaussianReference

__all__ = [
    "ClassifierBound",
    "ConditionalInformationMethod",
    "EntropyMethod",
    "GaussianReference",
    "InformationMethod",
    "Method",
    "NearestNeighbors",
    "SampleSizeWarning",
    "conditional_mutual_information",
    "entropy",
    "estimate",
    "mutual_information",
]
