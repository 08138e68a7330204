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
from discrepancy.estimation.margins import Margins, NormalScores, Standardised
from discrepancy.estimation.minde import MINDE, FittedMINDE, GaussianScores
from discrepancy.estimation.nearest import NearestNeighbors
from discrepancy.estimation.noise_network import ScoreTraining
from discrepancy.estimation.reference import GaussianReference
from discrepancy.estimation.score_differences import Conditional, DenoisingLoss, Inside, Joint, Outside
from discrepancy.estimation.variational import (
    NWJ,
    SMILE,
    Concatenated,
    CriticTraining,
    DonskerVaradhan,
    GaussianStart,
    GivenCritic,
    InfoNCE,
    JensenShannonBound,
    Separable,
)

__all__ = [
    "MINDE",
    "NWJ",
    "SMILE",
    "ClassifierBound",
    "Concatenated",
    "Conditional",
    "ConditionalInformationMethod",
    "CriticTraining",
    "DenoisingLoss",
    "DonskerVaradhan",
    "EntropyMethod",
    "FittedMINDE",
    "GaussianReference",
    "GaussianScores",
    "GaussianStart",
    "GivenCritic",
    "InfoNCE",
    "InformationMethod",
    "Inside",
    "JensenShannonBound",
    "Joint",
    "Margins",
    "Method",
    "NearestNeighbors",
    "NormalScores",
    "Outside",
    "SampleSizeWarning",
    "ScoreTraining",
    "Separable",
    "Standardised",
    "conditional_mutual_information",
    "entropy",
    "estimate",
    "mutual_information",
]
